/* The machine under kernel/smp.c: what that file calls and does not define, by the functions of lab.h, and its own
 * functions for deeds.c. Compiled with the kernel's headers, as the file itself is. */
#include <linux/irq_work.h>
#include <linux/percpu.h>
#include <linux/smp.h>
#include <linux/cpu.h>
#include <linux/sched.h>

#include "smp_lab.h"

/* ---- CPUs and their variables ---- */

struct cpumask __cpu_possible_mask, __cpu_online_mask, __cpu_present_mask, __cpu_active_mask;
atomic_t __num_online_cpus;

static_assert(SMP_LAB_CPUS == NR_CPUS);

/* Each CPU's copy of the section. */
char lab_per_cpu_area[NR_CPUS][LAB_PER_CPU_BYTES] __aligned(64);
/* For whoever looks for the copies from outside (vmm/src/machine/memory_names/per_cpu.rs). */
unsigned long lab_per_cpu_bytes = LAB_PER_CPU_BYTES;

/* What there is to allocate: for each CPU that calls many, a csd for each CPU that is called. What is free is the first
 * that is given out, and zeroed then. */
struct piece {
    call_single_data_t csd;
#ifdef CONFIG_CSD_LOCK_WAIT_DEBUG
    u64 counts[3]; /* by 6.1 */
#endif
};
/* Aligned, so that how many lines they take does not depend on what lies before them. */
static DEFINE_PER_CPU(struct piece [NR_CPUS], csd_of) __aligned(64);
static bool is_taken[NR_CPUS];
static unsigned int given_last;

void __percpu *__alloc_percpu(size_t size, size_t align)
{
    unsigned int piece, cpu;

    if (size > sizeof(struct piece) || align > __alignof__(struct piece))
        return NULL;
    for (piece = 0; piece < NR_CPUS; piece++) {
        if (is_taken[piece])
            continue;
        is_taken[piece] = true;
        given_last = piece;
        for_each_possible_cpu(cpu)
            memset(per_cpu_ptr(&csd_of[piece], cpu), 0, sizeof(struct piece));
        return (void __percpu *)&csd_of[piece];
    }
    return NULL;
}

/* A csd that is locked is in a queue, or is about to be unlocked. */
void free_percpu(void __percpu *variable)
{
    unsigned int piece = (struct piece __percpu *)variable - csd_of, cpu;

    for_each_possible_cpu(cpu)
        if (READ_ONCE(per_cpu_ptr(&csd_of[piece], cpu)->csd.node.u_flags) & CSD_FLAG_LOCK)
            smp_lab_freed_in_use(cpu);
    is_taken[piece] = false;
}

void call_function_init(void);
void setup_nr_cpu_ids(void);

/* Which piece a CPU calls many with. */
static DEFINE_PER_CPU(unsigned int, piece_of);

int linux_prepare_cpu(unsigned int cpu)
{
    int result = smpcfd_prepare_cpu(cpu);

    *per_cpu_ptr(&piece_of, cpu) = given_last;
    return result;
}

unsigned long linux_called(unsigned long among, void *info)
{
    unsigned int piece = *this_cpu_ptr(&piece_of), cpu;
    unsigned long called = 0;

    for_each_cpu(cpu, cpu_possible_mask)
        if (among >> cpu & 1 && per_cpu_ptr(&csd_of[piece], cpu)->csd.info == info)
            called |= 1UL << cpu;
    return called;
}

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

/* As start_kernel() and the first states of cpu_up() do, for all CPUs that start at boot. */
__attribute__((constructor)) static void boot(void)
{
    size_t used = lab_percpu_end - lab_percpu_start;
    unsigned int cpu, cpus = lab_cpus(), at_boot = lab_cpus_at_boot();

    if (cpus > NR_CPUS || used > LAB_PER_CPU_BYTES) {
        lab_print("linux-smp: there is room for 64 CPUs, and for 8192 bytes of the variables of each");
        abort();
    }
    for (cpu = 0; cpu < cpus; cpu++) {
        memcpy(lab_per_cpu_area[cpu], lab_percpu_start, used);
        __cpu_possible_mask.bits[0] |= 1UL << cpu;
    }
    __cpu_present_mask = __cpu_active_mask = __cpu_possible_mask;
    setup_nr_cpu_ids();
    call_function_init();
    for (cpu = 0; cpu < at_boot; cpu++) {
        if (cpu != 0)
            linux_prepare_cpu(cpu);
        set_cpu_online(cpu, true);
    }
}

/* ---- Interrupts ---- */

void arch_send_call_function_single_ipi(int cpu)
{
    lab_send_ipi(cpu, CALL_VECTOR);
}

void arch_send_call_function_ipi_mask(const struct cpumask *mask)
{
    int cpu;

    for_each_cpu(cpu, mask)
        lab_send_ipi(cpu, CALL_VECTOR);
}

/* The scheduler may find that an idle CPU polls and needs no interrupt; here none does. By 6.12 it says so, and by 6.1
 * it sends the interrupt itself. */
bool call_function_single_prep_ipi(int cpu)
{
    return true;
}

void send_call_function_single_ipi(int cpu)
{
    arch_send_call_function_single_ipi(cpu);
}

void arch_irq_work_raise(void)
{
    lab_send_ipi(lab_cpu(), WORK_VECTOR);
}

void linux_single_interrupt(void)
{
    generic_smp_call_function_single_interrupt();
}

void linux_irq_work_interrupt(void)
{
    irq_work_run();
}

/* ---- What is not here ---- */

void wake_up_if_idle(int cpu)
{
    BUG();
}

void cpuhp_threads_init(void)
{
}

int get_option(char **text, void *number)
{
    return 0;
}

int strcmp(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *(const unsigned char *)left - *(const unsigned char *)right;
}

#undef __sw_hweight64
unsigned long __sw_hweight64(__u64 word)
{
    unsigned long bits = 0;

    for (; word; word &= word - 1)
        bits++;
    return bits;
}

/* Of lib/bitmap.c, which needs much more; for 6.1, which does not do this inline. */
bool __bitmap_and(unsigned long *to, const unsigned long *left, const unsigned long *right, unsigned int bits)
{
    unsigned long any = 0, word;
    unsigned int at;

    for (at = 0; at < BITS_TO_LONGS(bits); at++) {
        word = left[at] & right[at];
        if (at == bits / BITS_PER_LONG)
            word &= BITMAP_LAST_WORD_MASK(bits);
        to[at] = word;
        any |= word;
    }
    return any;
}

/* ---- The functions of the file ---- */

int linux_single(unsigned int cpu, void (*function)(void *), void *info, int waits)
{
    return smp_call_function_single(cpu, function, info, waits);
}

/* Each CPU has one descriptor of its own for the calls that it does not wait for. */
static DEFINE_PER_CPU(call_single_data_t, own_csd);

/* Its owner must not touch one that is under way. */
int linux_async_is_busy(void)
{
    return READ_ONCE(this_cpu_ptr(&own_csd)->node.u_flags) & CSD_FLAG_LOCK;
}

int linux_async(unsigned int cpu, void (*function)(void *), void *info)
{
    call_single_data_t *csd = this_cpu_ptr(&own_csd);

    csd->func = function;
    csd->info = info;
    return smp_call_function_single_async(cpu, csd);
}

/* The masks with which each CPU's task and its handlers call many. Others can leave the first one meanwhile, as they do
 * with the CPUs of an address space. */
static DEFINE_PER_CPU(struct cpumask [2], own_masks);

void linux_leave_mask(unsigned int cpu)
{
    cpumask_clear_cpu(smp_processor_id(), &(*per_cpu_ptr(&own_masks, cpu))[0]);
}

unsigned long linux_many(unsigned long word, void (*function)(void *), void *info, int waits)
{
    struct cpumask *mask = &(*this_cpu_ptr(&own_masks))[lab_in_handler()];

    WRITE_ONCE(mask->bits[0], word);
    smp_call_function_many(mask, function, info, waits);
    return READ_ONCE(mask->bits[0]);
}

/* Which CPUs the condition was asked about, and has said yes of, in this CPU's call. */
static DEFINE_PER_CPU(unsigned long, asked_about);
static DEFINE_PER_CPU(unsigned long, chosen);

static bool is_chosen(int cpu, void *info)
{
    *this_cpu_ptr(&asked_about) |= 1UL << cpu;
    if (!smp_lab_condition(cpu))
        return false;
    *this_cpu_ptr(&chosen) |= 1UL << cpu;
    return true;
}

unsigned long linux_cond(unsigned long word, void (*function)(void *), void *info, int waits, unsigned long *asked)
{
    struct cpumask mask = { .bits = { word } };
    /* A handler can interrupt the task's call by one of its own. */
    unsigned long its_asked_about = *this_cpu_ptr(&asked_about), its_chosen = *this_cpu_ptr(&chosen), found;

    *this_cpu_ptr(&asked_about) = *this_cpu_ptr(&chosen) = 0;
    on_each_cpu_cond_mask(is_chosen, function, info, waits, &mask);
    *asked = *this_cpu_ptr(&asked_about);
    found = *this_cpu_ptr(&chosen);
    *this_cpu_ptr(&asked_about) = its_asked_about;
    *this_cpu_ptr(&chosen) = its_chosen;
    return found;
}

void linux_all(void (*function)(void *), void *info, int waits)
{
    smp_call_function(function, info, waits);
}

void linux_each(void (*function)(void *), void *info, int waits)
{
    on_each_cpu(function, info, waits);
}

int linux_any(unsigned long word, void (*function)(void *), void *info, int waits)
{
    struct cpumask mask = { .bits = { word } };

    return smp_call_function_any(&mask, function, info, waits);
}

/* A descriptor of which the function is always the same, so that the file alone says whether it is in use. */
static void serve(void *unused)
{
    smp_lab_serve();
}

static DEFINE_PER_CPU(call_single_data_t, fixed_csd) = CSD_INIT(serve, NULL);

int linux_fixed_async(unsigned int cpu)
{
    return smp_call_function_single_async(cpu, this_cpu_ptr(&fixed_csd));
}

/* Each CPU has one irq_work of its own. */
struct own_work {
    struct irq_work work;
    void (*function)(void *);
    void *info;
};

static DEFINE_PER_CPU(struct own_work, own_work);

static void do_own_work(struct irq_work *work)
{
    struct own_work *own = container_of(work, struct own_work, work);

    own->function(own->info);
}

/* The kernel lets a work be queued again while it runs. What it is to do must not change then. */
int linux_irq_work_is_busy(void)
{
    return irq_work_is_busy(&this_cpu_ptr(&own_work)->work);
}

void linux_irq_work(unsigned int cpu, void (*function)(void *), void *info)
{
    struct own_work *own = this_cpu_ptr(&own_work);

    init_irq_work(&own->work, do_own_work);
    own->function = function;
    own->info = info;
    irq_work_queue_on(&own->work, cpu);
}

static void do_shared_work(struct irq_work *work)
{
    smp_lab_serve();
}

static struct irq_work shared_work = IRQ_WORK_INIT(do_shared_work);

void linux_shared_work(unsigned int cpu)
{
    irq_work_queue_on(&shared_work, cpu);
}
