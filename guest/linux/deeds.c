/* Linux's kernel/smp.c as a guest: what its CPUs can be told, in the words of the project's own guest, so that the
 * same cases and scripts fit both. Each call is entered in the ledger, and its argument is its id. */
#include "lab.h"

#include "smp_lab.h"

LAB_GUEST("linux-smp", SMP_LAB_VERSION, "The cross-CPU calls of Linux: kernel/smp.c, unmodified");

LAB_ORACLE(WARNED, 1, "warned", "warned, by WARN or printk, in the kernel's code (the line is what was seen)");

LAB_ORACLE(INTERRUPTED, 2, "interrupts-on", "ran the function of a call with interrupts enabled");
LAB_ORACLE(UNSERVED, 3, "unserved", "left a CPU's wish unserved, although that had queued the work that serves it");

LAB_VECTOR(CALL, CALL_VECTOR, "call", "Run what other CPUs have queued for this one.")
{
    linux_single_interrupt();
}

LAB_VECTOR(WORK, WORK_VECTOR, "irq-work", "Run what this CPU has queued for itself.")
{
    linux_irq_work_interrupt();
}

void lab_warned(const char *file, int line)
{
    lab_print_number(file, line);
    lab_report(WARNED, 0, line);
}

/* ---- Calls ---- */

static void ran(void *call)
{
    if (lab_irqs_enabled())
        lab_report(INTERRUPTED, (uint64_t)call, 0);
    lab_call_ran((uint64_t)call);
}

static uint64_t only(uint64_t cpu)
{
    return 1ull << cpu;
}

static uint64_t all(void)
{
    return ~0ull >> (64 - lab_cpus());
}

static uint64_t made(uint64_t cpus, bool waits)
{
    return lab_call_made(&cpus, waits);
}

LAB_DEED_WITH(call_single, 1, "call-single", "single", LAB_MAY_WAIT | LAB_ENTERS_CALL,
              "Calls one CPU (smp_call_function_single).", LAB_CPU)
{
    uint64_t call = made(only(command->arguments[0]), command->waits);
    int result = linux_single(command->arguments[0], ran, (void *)call, command->waits);

    lab_call_returned(call);
    return result;
}

LAB_DEED_WITH(call_async, 2, "call-async", "async", 0,
              "Calls one CPU with a descriptor of the caller's own (smp_call_function_single_async). Is refused while the "
              "last such call is under way.",
              LAB_CPU)
{
    uint64_t call;
    int result;

    if (linux_async_is_busy())
        return -1;
    call = made(only(command->arguments[0]), false);
    result = linux_async(command->arguments[0], ran, (void *)call);
    lab_call_returned(call);
    return result;
}

LAB_DEED_WITH(call_many, 3, "call-many", "many", LAB_MAY_WAIT | LAB_ENTERS_CALL,
              "Calls these CPUs (smp_call_function_many).", LAB_CPU_SET)
{
    uint64_t call = made(command->cpus[0] & ~only(lab_cpu()), command->waits);

    linux_many(command->cpus[0], ran, (void *)call, command->waits);
    lab_call_returned(call);
    return 0;
}

LAB_DEED_WITH(call_all, 4, "call-all", "all", LAB_MAY_WAIT, "Calls all others (smp_call_function).")
{
    uint64_t call = made(all() & ~only(lab_cpu()), command->waits);

    linux_all(ran, (void *)call, command->waits);
    lab_call_returned(call);
    return 0;
}

LAB_DEED_WITH(on_each, 5, "on-each", "each", LAB_MAY_WAIT, "Calls all, itself too (on_each_cpu).")
{
    uint64_t call = made(all(), command->waits);

    linux_each(ran, (void *)call, command->waits);
    lab_call_returned(call);
    return 0;
}

LAB_DEED_WITH(call_any, 6, "call-any", "any", LAB_MAY_WAIT,
              "Calls one of these CPUs (smp_call_function_any): itself if it is one, or else the first.", LAB_CPU_SET)
{
    uint64_t cpus = command->cpus[0], call;
    int result;

    if (!cpus)
        return -1;
    cpus = cpus & only(lab_cpu()) ? only(lab_cpu()) : cpus & -cpus;
    call = made(cpus, command->waits);
    result = linux_any(command->cpus[0], ran, (void *)call, command->waits);
    lab_call_returned(call);
    return result;
}

LAB_DEED(irq_work, 24, "irq-work",
         "Queues work on one CPU, perhaps itself (irq_work_queue_on). Is refused while the last such work is under way.",
         LAB_CPU)
{
    uint64_t call;

    if (linux_irq_work_is_busy())
        return -1;
    call = made(only(command->arguments[0]), false);
    linux_irq_work(command->arguments[0], ran, (void *)call);
    lab_call_returned(call);
    return 0;
}

/* One work that all CPUs share, as users of irq_work do: who has a wish says so and queues the work, and if that is
 * pending already, it will see the wish. */
static volatile LAB_PER_CPU(uint32_t, wishes);

void smp_lab_serve(void)
{
    if (lab_irqs_enabled())
        lab_report(INTERRUPTED, 0, 0);
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        if (wishes[cpu])
            wishes[cpu] = 0;
}

LAB_DEED(wish, 25, "wish",
         "Makes a wish, and has one CPU serve all wishes, by work that all CPUs share (irq_work_queue_on).", LAB_CPU)
{
    wishes[lab_cpu()] = 1;
    linux_shared_work(command->arguments[0]);
    return 0;
}

LAB_JUDGE(all_wishes_are_served)
{
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        if (wishes[cpu])
            lab_report(UNSERVED, 0, cpu);
}

/* ---- Interrupts ---- */

LAB_DEED(irqs_off, 7, "irqs-off", "Disables interrupts.")
{
    lab_irqs_disable();
    return 0;
}

LAB_DEED(irqs_on, 8, "irqs-on", "Enables interrupts, and takes all that are pending.")
{
    lab_irqs_enable();
    return 0;
}
