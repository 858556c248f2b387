/* CPUs that leave and come, by the functions that kernel/smp.c has for this, in the order in which kernel/cpu.c calls
 * them, and with the stop of kernel/stop_machine.c around a CPU that leaves. Compiled with the kernel's headers. Of the
 * states of the hotplug machine only those are here that have to do with calls. */
#include <linux/percpu.h>
#include <linux/cpu.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "smp_lab.h"

void flush_smp_call_function_queue(void); /* kernel/sched/smp.h */

/* ---- The stop (stop_machine_cpuslocked) ---- */

/* How far each CPU is in a stop, which has a number. The states of multi_cpu_stop() are followed in as few steps as they
 * can be, since a search tries the orders of all of them: what the CPUs do in each, and that none begins before all
 * others are there, is the same. */
enum { IS_WANTED, HAS_COME, IRQS_ARE_OFF, HAS_DONE, HOW_FAR };

/* The stop under way. There is one at a time. */
static struct {
    unsigned int leaving; /* the CPU that goes offline meanwhile */
    unsigned long cpus;   /* those that stop */
    u64 number;           /* times HOW_FAR, from 1; for who stops the others */
    /* By CPU: the number of the last stop that it was wanted for, plus how far it is in that one. So in the next one it
     * is nowhere until it is told of it, and not as far as it was in the last. */
    u64 reached[NR_CPUS];
} stop;

static bool late_ipis, stops = true;

/* Not by a store, which could wait in a buffer: more orders, in which the others find the same. */
static void reach(unsigned int cpu, u64 how_far)
{
    arch_xchg(&stop.reached[cpu], how_far);
}

static bool has_reached(unsigned int cpu, u64 how_far)
{
    return READ_ONCE(stop.reached[cpu]) >= how_far;
}

static bool have_all_reached(u64 how_far)
{
    unsigned int cpu;

    for_each_cpu(cpu, cpu_possible_mask)
        if (stop.cpus >> cpu & 1 && !has_reached(cpu, how_far))
            return false;
    return true;
}

/* Wakes the stoppers of these CPUs. Returns the stop's number. */
static u64 queue_stop_works(unsigned int leaving, unsigned long cpus)
{
    u64 number = stop.number += HOW_FAR;
    unsigned int cpu;

    arch_xchg(&stop.leaving, leaving);
    arch_xchg(&stop.cpus, cpus);
    for_each_cpu(cpu, cpu_possible_mask)
        if (cpus >> cpu & 1)
            reach(cpu, number + IS_WANTED);
    for_each_cpu(cpu, cpu_possible_mask)
        if (cpus >> cpu & 1 && cpu != smp_processor_id())
            lab_wake(cpu);
    return number;
}

/* take_cpu_down(), interrupts off: __cpu_disable(), and of the dying states the one of calls. */
static void take_cpu_down(void)
{
    set_cpu_online(smp_processor_id(), false);
    smpcfd_dying_cpu(smp_processor_id());
}

/* multi_cpu_stop(). Whether this is the CPU that has gone offline, which returns with its interrupts off: it would
 * enable them once more, with its APIC disabled, before it is idle. */
static bool multi_cpu_stop(u64 number)
{
    unsigned int cpu = smp_processor_id();
    bool leaves = stop.leaving == cpu;

    /* MULTI_STOP_PREPARE */
    reach(cpu, number + HAS_COME);
    lab_wait_until(have_all_reached(number + HAS_COME));
    /* MULTI_STOP_DISABLE_IRQ */
    local_irq_disable();
    reach(cpu, number + IRQS_ARE_OFF);
    /* MULTI_STOP_RUN */
    if (leaves) {
        lab_wait_until(have_all_reached(number + IRQS_ARE_OFF));
        take_cpu_down();
    } else {
        lab_wait_until(has_reached(stop.leaving, number + HAS_DONE));
        /* MULTI_STOP_EXIT */
        local_irq_enable();
        /* As if the IPI had come that tells of what is queued. It finds nothing when it comes. */
        if (!late_ipis)
            flush_smp_call_function_queue();
    }
    /* cpu_stop_signal_done(). The next stop can begin. */
    reach(cpu, number + HAS_DONE);
    return leaves;
}

/* ---- The CPU that leaves ---- */

static int is_idle_dead;

static void complete_idle_dead(void *unused)
{
    WRITE_ONCE(is_idle_dead, 1);
}

/* The number of the stop that this CPU is wanted for, or 0. One that holds a spin lock is not preempted. */
static u64 wanted_for(void)
{
    u64 reached = READ_ONCE(stop.reached[smp_processor_id()]);

    return reached % HOW_FAR == IS_WANTED && !smp_lab_holds_locks() ? reached - IS_WANTED : 0;
}

bool linux_is_wanted(void)
{
    return wanted_for() != 0;
}

/* What the stopper's thread does, and the idle thread of a CPU that has left. */
bool linux_between(void)
{
    u64 number = wanted_for();

    if (!number)
        return false;
    if (stops) {
        if (!multi_cpu_stop(number))
            return false;
    } else {
        local_irq_disable();
        take_cpu_down();
        reach(smp_processor_id(), number + HAS_DONE);
    }
    /* cpuhp_report_idle_dead(): the CPU, which is offline, has another one say that it is dead. */
    smp_call_function_single(cpumask_first(cpu_online_mask), complete_idle_dead, NULL, 0);
    return true;
}

/* ---- The CPU that asks for it ---- */

/* cpu_hotplug_lock, which is not waited for. */
static atomic_t hotplug_lock = ATOMIC_INIT(0);

static int cpu_down(unsigned int leaving)
{
    u64 number;

    if (leaving == smp_processor_id() || !cpu_online(leaving) || leaving == 0)
        return -EINVAL;
    arch_xchg(&is_idle_dead, 0);
    /* takedown_cpu() */
    number = queue_stop_works(leaving, stops ? READ_ONCE(__cpu_online_mask.bits[0]) : 1UL << leaving);
    if (stops) {
        multi_cpu_stop(number);
        lab_wait_until(have_all_reached(number + HAS_DONE));
    }
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
