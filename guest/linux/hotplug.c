/* CPUs that leave and come, by the functions that kernel/smp.c has for this, in the order in which kernel/cpu.c calls
 * them, and with the stop of kernel/stop_machine.c around a CPU that leaves. Compiled with the kernel's headers. Of the
 * states of the hotplug machine only those are here that have to do with calls. */
#include <linux/percpu.h>
#include <linux/cpu.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "smp_lab.h"

void set_cpu_online(unsigned int cpu, bool online)
{
    if (online) {
        if (!cpumask_test_and_set_cpu(cpu, &__cpu_online_mask))
            atomic_inc(&__num_online_cpus);
    } else {
        if (cpumask_test_and_clear_cpu(cpu, &__cpu_online_mask))
            atomic_dec(&__num_online_cpus);
    }
}

/* ---- The stop (stop_machine_cpuslocked) ---- */

enum { STOP_NONE, STOP_PREPARE, STOP_DISABLE_IRQ, STOP_RUN, STOP_EXIT };

/* The stop under way. There is one at a time. */
static struct {
    unsigned int threads;
    unsigned int leaving; /* the CPU that goes offline meanwhile */
    int state;
    atomic_t acks;  /* how many threads have yet to do what the state asks for */
    atomic_t to_do; /* how many have yet to end */
} stop;

/* Whether this CPU's stopper has something to do: to take part in the stop, or to take its CPU offline without one. */
static DEFINE_PER_CPU(int, stopper_is_wanted);

static bool late_ipis, stops = true;

static void set_state(int state)
{
    atomic_set(&stop.acks, stop.threads);
    smp_wmb();
    WRITE_ONCE(stop.state, state);
}

static void want_stopper(unsigned int cpu)
{
    smp_store_release(per_cpu_ptr(&stopper_is_wanted, cpu), 1);
    lab_wake(cpu);
}

/* take_cpu_down(), interrupts off: __cpu_disable(), and of the dying states the one of calls. */
static void take_cpu_down(void)
{
    set_cpu_online(smp_processor_id(), false);
    smpcfd_dying_cpu(smp_processor_id());
}

/* multi_cpu_stop(). The CPU that goes offline returns with its interrupts off: it would enable them once more, with
 * its APIC disabled, before it is idle. */
static void take_part_in_stop(void)
{
    bool leaves = stop.leaving == smp_processor_id();
    int state = STOP_NONE;

    do {
        lab_wait_until(READ_ONCE(stop.state) != state);
        state = READ_ONCE(stop.state);
        if (state == STOP_DISABLE_IRQ)
            local_irq_disable();
        if (state == STOP_RUN && leaves)
            take_cpu_down();
        if (atomic_dec_and_test(&stop.acks))
            set_state(state + 1);
    } while (state != STOP_EXIT);
    if (leaves)
        return;
    local_irq_enable();
    if (!late_ipis)
        lab_take_pending();
}

/* ---- The CPU that leaves ---- */

static int is_idle_dead;

static void complete_idle_dead(void *unused)
{
    WRITE_ONCE(is_idle_dead, 1);
}

/* A CPU that holds a spin lock is not preempted. */
bool linux_is_wanted(void)
{
    return smp_load_acquire(this_cpu_ptr(&stopper_is_wanted)) && !smp_lab_holds_locks();
}

/* What the stopper's thread does, and the idle thread of a CPU that has left. */
bool linux_between(void)
{
    if (!linux_is_wanted())
        return false;
    WRITE_ONCE(*this_cpu_ptr(&stopper_is_wanted), 0);
    if (stops) {
        take_part_in_stop();
    } else {
        local_irq_disable();
        take_cpu_down();
    }
    atomic_dec(&stop.to_do);
    if (cpu_online(smp_processor_id()))
        return false;
    /* cpuhp_report_idle_dead(): the CPU, which is offline, has another one say that it is dead. */
    smp_call_function_single(cpumask_first(cpu_online_mask), complete_idle_dead, NULL, 0);
    return true;
}

/* ---- The CPU that asks for it ---- */

/* cpu_hotplug_lock, which is not waited for. */
static atomic_t hotplug_lock = ATOMIC_INIT(0);

static int cpu_down(unsigned int leaving)
{
    unsigned int cpu;

    if (leaving == smp_processor_id() || !cpu_online(leaving) || leaving == 0)
        return -EINVAL;
    is_idle_dead = 0;
    /* takedown_cpu() */
    stop.leaving = leaving;
    stop.threads = stops ? num_online_cpus() : 1;
    atomic_set(&stop.to_do, stop.threads);
    set_state(STOP_PREPARE);
    if (stops) {
        for_each_cpu(cpu, cpu_online_mask)
            if (cpu != smp_processor_id())
                want_stopper(cpu);
        take_part_in_stop();
        atomic_dec(&stop.to_do);
    } else {
        want_stopper(leaving);
    }
    lab_wait_until(atomic_read(&stop.to_do) == 0);
    lab_wait_until(READ_ONCE(is_idle_dead));
    return smpcfd_dead_cpu(leaving);
}

static bool online_first;

static int cpu_up(unsigned int coming)
{
    int result;

    if (cpu_online(coming))
        return -EINVAL;
    result = linux_prepare_cpu(coming);
    if (result)
        return result;
    if (online_first)
        set_cpu_online(coming, true);
    if (!lab_start_cpu(coming)) {
        smpcfd_dead_cpu(coming);
        return -EIO;
    }
    lab_wait_until(cpu_online(coming));
    return 0;
}

static int with_lock(int (*does)(unsigned int), unsigned int cpu)
{
    int result;

    if (irqs_disabled() || cpu >= nr_cpu_ids)
        return -EINVAL;
    if (atomic_cmpxchg(&hotplug_lock, 0, 1))
        return -EBUSY;
    result = does(cpu);
    atomic_set(&hotplug_lock, 0);
    return result;
}

int linux_cpu_down(unsigned int cpu)
{
    return with_lock(cpu_down, cpu);
}

int linux_cpu_up(unsigned int cpu)
{
    return with_lock(cpu_up, cpu);
}

void linux_set_hotplug(int with_stop, int is_online_first, int ipis_can_be_late)
{
    stops = with_stop;
    online_first = is_online_first;
    late_ipis = ipis_can_be_late;
}

/* As start_secondary() ends: the CPU is online, and then enables its interrupts. */
void linux_cpu_starts(void)
{
    if (!cpu_online(smp_processor_id()))
        set_cpu_online(smp_processor_id(), true);
}

unsigned long linux_online(unsigned int word)
{
    return word ? 0 : READ_ONCE(__cpu_online_mask.bits[0]);
}
