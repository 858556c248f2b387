/* Linux's kernel/smp.c as a guest: what its CPUs can be told, in the words of the project's own guest, so that the
 * same cases and scripts fit both. Each call is entered in the ledger, and its argument is its id. What deeds act on
 * besides calls is in objects.c. */
#include "lab.h"

#include "deeds.h"
#include "smp_lab.h"
#include "workloads.h"

LAB_GUEST("linux-smp", SMP_LAB_VERSION, "The cross-CPU calls of Linux: kernel/smp.c, unmodified");

LAB_ORACLE(WARNED, 1, "warned", "warned, by WARN or printk, in the kernel's code (the line is what was seen)");

LAB_ORACLE(INTERRUPTED, 2, "interrupts-on", "ran the function of a call with interrupts enabled");
LAB_ORACLE(UNSERVED, 3, "unserved", "left a CPU's wish unserved, although what serves it had been asked for, or was under way");
LAB_ORACLE(BREACH, CONTRACT, "contract",
           "broke a rule of the calls: made one that can wait where it must not, by the kernel's own WARN (the line is what "
           "was seen), or released a lock that it did not have");
LAB_ORACLE(FREED_IN_USE, 5, "use-after-free", "freed the memory of a CPU that has left while calls of that CPU were in it");
LAB_ORACLE(WRONG_TARGETS, 6, "wrong-targets", "was made to other CPUs than those it names that are online (the set is what was seen)");

LAB_VECTOR(CALL, CALL_VECTOR, "call", "Run what other CPUs have queued for this one.")
{
    linux_single_interrupt();
}

LAB_VECTOR(WORK, WORK_VECTOR, "irq-work", "Run what this CPU has queued for itself.")
{
    linux_irq_work_interrupt();
}

/* Whether this CPU makes a call that can wait where that breaks a rule: with interrupts off, or in a handler. */
static LAB_PER_CPU(bool, breaks_a_rule);

void lab_warned(const char *file, int line)
{
    lab_print_number(file, line);
    lab_report(breaks_a_rule[lab_cpu()] ? CONTRACT : WARNED, 0, line);
}

void smp_lab_freed_in_use(unsigned int cpu)
{
    lab_report(FREED_IN_USE, 0, cpu);
}

/* ---- Calls ---- */

void smp_lab_runs(void *call)
{
    if (lab_irqs_enabled())
        lab_report(INTERRUPTED, (uint64_t)call, 0);
    smp_lab_call_runs((uint64_t)call);
    lab_call_ran((uint64_t)call);
    do_program(lab_program_of((uint64_t)call));
}

static uint64_t only(uint64_t cpu)
{
    return 1ull << cpu;
}

/* A call, by its id, and the CPUs that were online when it began. */
struct call {
    uint64_t id, online;
};

static void made(struct call *call, const struct lab_command *command, uint64_t cpus)
{
    call->online = linux_online(0);
    call->id = lab_call_made_for(&cpus, command->waits, command->program);
    smp_lab_call_begins(call->id);
}

/* The same, for a call that can wait. */
static void may_wait(struct call *call, const struct lab_command *command, uint64_t cpus)
{
    if (lab_in_handler() || !lab_irqs_enabled())
        breaks_a_rule[lab_cpu()] = true;
    made(call, command, cpus);
}

static int returned(const struct call *call)
{
    lab_call_returned(call->id);
    smp_lab_call_ends(call->id);
    breaks_a_rule[lab_cpu()] = false;
    return 0;
}

/* It was made to these CPUs. All of `least` had to be called that were online, and of `most` all may be that are. */
static int was_made_to(const struct call *call, uint64_t cpus, uint64_t least, uint64_t most)
{
    lab_call_was_made_to(call->id, &cpus);
    check_called(call->id, cpus, least & call->online, most);
    return returned(call);
}

/* It has this result: it was made to that CPU, or refused. */
static int resulted(const struct call *call, int result, uint64_t cpu)
{
    was_made_to(call, result < 0 ? 0 : only(cpu), result == REFUSED_BUSY ? 0 : only(cpu), only(cpu));
    return result;
}

/* That of a call to one, and of one that nobody waits for. */
enum {
    A_CALL = LAB_IN_HANDLER | LAB_TAKES_PROGRAM | LAB_MAY_WAIT,
    A_CALL_NOT_WAITED_FOR = LAB_IN_HANDLER | LAB_TAKES_PROGRAM,
};

LAB_DEED_WITH(call_single, 1, "call-single", "single", A_CALL | LAB_ENTERS_CALL,
              "Calls one CPU (smp_call_function_single).", LAB_CPU)
{
    uint64_t cpu = command->arguments[0];
    struct call call;

    may_wait(&call, command, only(cpu));
    return resulted(&call, linux_single(cpu, smp_lab_runs, (void *)call.id, command->waits), cpu);
}

LAB_DEED_WITH(call_async, 2, "call-async", "async", A_CALL_NOT_WAITED_FOR,
              "Calls one CPU with a descriptor of the caller's own (smp_call_function_single_async). Is refused while the "
              "last such call is under way.",
              LAB_CPU)
{
    uint64_t cpu = command->arguments[0];
    struct call call;

    if (linux_async_is_busy())
        return REFUSED_BUSY;
    made(&call, command, only(cpu));
    return resulted(&call, linux_async(cpu, smp_lab_runs, (void *)call.id), cpu);
}

LAB_DEED_WITH(call_many, 3, "call-many", "many", A_CALL | LAB_ENTERS_CALL, "Calls these CPUs (smp_call_function_many).",
              LAB_CPU_SET)
{
    uint64_t others = command->cpus[0] & ~only(lab_cpu());
    uint64_t left;
    struct call call;

    may_wait(&call, command, others);
    left = linux_many(command->cpus[0], smp_lab_runs, (void *)call.id, command->waits);
    return was_made_to(&call, linux_called(others, (void *)call.id), others & left, others);
}

LAB_DEED_WITH(call_all, 4, "call-all", "all", A_CALL, "Calls all others (smp_call_function).")
{
    uint64_t others = other_cpus();
    struct call call;

    may_wait(&call, command, others);
    linux_all(smp_lab_runs, (void *)call.id, command->waits);
    return was_made_to(&call, linux_called(others, (void *)call.id), others, others);
}

LAB_DEED_WITH(on_each, 5, "on-each", "each", A_CALL, "Calls all, itself too (on_each_cpu).")
{
    uint64_t others = other_cpus();
    struct call call;

    may_wait(&call, command, all_cpus());
    linux_each(smp_lab_runs, (void *)call.id, command->waits);
    return was_made_to(&call, linux_called(others, (void *)call.id) | only(lab_cpu()), others, all_cpus());
}

/* The word that this CPU's condition asks. */
static LAB_PER_CPU(uint64_t, condition);

_Bool smp_lab_condition(unsigned int cpu)
{
    uint64_t value = 0;

    word(condition[lab_cpu()], &value);
    return value >> cpu & 1;
}

LAB_DEED_WITH(call_cond, 22, "call-cond", "cond", A_CALL,
              "Calls those of these CPUs, itself too, whose bit is set in one of the words 0-7 (on_each_cpu_cond_mask).",
              LAB_CPU_SET, LAB_NUMBER)
{
    uint64_t asked, chosen, unused;
    struct call call;

    if (!word(command->arguments[1], &unused))
        return REFUSED_INVALID;
    condition[lab_cpu()] = command->arguments[1];
    may_wait(&call, command, command->cpus[0]);
    chosen = linux_cond(command->cpus[0], smp_lab_runs, (void *)call.id, command->waits, &asked);
    return was_made_to(&call, chosen, command->cpus[0] & ~asked, chosen);
}

/* The call to any of several CPUs that has run last on each CPU, by caller. */
static uint64_t ran_as_any[LAB_CPUS][LAB_CPUS];

static void ran_any(void *call)
{
    ran_as_any[(uint64_t)call >> 48][lab_cpu()] = (uint64_t)call;
    smp_lab_runs(call);
}

static bool found_any(uint64_t call, uint64_t *cpus)
{
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++) {
        if (__atomic_load_n(&ran_as_any[lab_cpu()][cpu], __ATOMIC_RELAXED) == call) {
            *cpus = only(cpu);
            return true;
        }
    }
    return false;
}

/* Of these CPUs the one that is called now: itself, or else the first that is online. */
static uint64_t first_of(uint64_t cpus)
{
    uint64_t online = cpus & linux_online(0);

    return cpus & only(lab_cpu()) ? only(lab_cpu()) : online & -online;
}

LAB_DEED_WITH(call_any, 6, "call-any", "any", A_CALL,
              "Calls one of these CPUs (smp_call_function_any): itself if it is one, or else the first that is online.",
              LAB_CPU_SET)
{
    uint64_t cpus = command->cpus[0], target = first_of(cpus);
    struct call call;
    int result;

    if (!cpus)
        return REFUSED_OFFLINE;
    may_wait(&call, command, target ? target : cpus);
    result = linux_any(cpus, ran_any, (void *)call.id, command->waits);
    if (result < 0) {
        was_made_to(&call, 0, cpus, 0);
        return result;
    }
    /* None can leave meanwhile, but one can come, and then only the function knows where it runs. */
    if (target != first_of(cpus))
        lab_wait_until(found_any(call.id, &target));
    return was_made_to(&call, target, 0, cpus);
}

LAB_DEED_WITH(leave_mask, 13, "leave-mask", "", LAB_IN_HANDLER,
              "Takes itself out of the mask with which another CPU calls many, not in a handler.", LAB_CPU)
{
    linux_leave_mask(command->arguments[0]);
    return 0;
}

LAB_DEED_WITH(irq_work, 24, "irq-work", "", A_CALL_NOT_WAITED_FOR,
              "Queues work on one CPU, perhaps itself (irq_work_queue_on). Is refused while the last such work is under way.",
              LAB_CPU)
{
    struct call call;

    if (linux_irq_work_is_busy())
        return REFUSED_BUSY;
    made(&call, command, only(command->arguments[0]));
    linux_irq_work(command->arguments[0], smp_lab_runs, (void *)call.id);
    return returned(&call);
}

LAB_DEED_WITH(wake, 27, "wake", "", A_CALL_NOT_WAITED_FOR,
              "Wakes one of the tasks 0-7 on one CPU (__smp_call_single_queue, CSD_TYPE_TTWU). Is refused while another "
              "one wakes it.",
              LAB_NUMBER, LAB_CPU)
{
    struct call call;

    if (command->arguments[0] >= SMP_LAB_TASKS)
        return REFUSED_INVALID;
    if (!linux_begin_wake(command->arguments[0]))
        return REFUSED_BUSY;
    made(&call, command, only(command->arguments[1]));
    linux_wake(command->arguments[0], command->arguments[1], (void *)call.id);
    return returned(&call);
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

LAB_DEED(kick, 26, "kick",
         "Makes a wish, and has one CPU serve all wishes, by a descriptor of this CPU's that always has the same function "
         "(smp_call_function_single_async). Is refused, by -EBUSY, while that is in use.",
         LAB_CPU)
{
    wishes[lab_cpu()] = 1;
    return linux_fixed_async(command->arguments[0]);
}

LAB_JUDGE(all_wishes_are_served)
{
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        if (wishes[cpu])
            lab_report(UNSERVED, 0, cpu);
}

/* ---- CPUs that leave and come ---- */

enum { STOP, NO_STOP, ONLINE_FIRST };

LAB_WORD(hotplug, "hotplug", "How CPUs leave and come.");
LAB_VALUE("hotplug", STOP, "stop");
LAB_BROKEN_VALUE("hotplug", NO_STOP, "no-stop");
LAB_BROKEN_VALUE("hotplug", ONLINE_FIRST, "online-first");

enum { ON, OFF };

LAB_WORD_BY_DEFAULTS(late_ipis, "late-ipis",
                     "Whether an IPI can reach a CPU later than a stop of the machine which that CPU has gone through.");
LAB_VALUE("late-ipis", ON, "on");
LAB_VALUE("late-ipis", OFF, "off");

/* The file does not bear it, which a search shows. Where the CPUs do what they like, all is to be well. */
LAB_DEFAULTS(bear_late_ipis)
{
    if (late_ipis == LAB_UNSET_WORD)
        late_ipis = workload_is_puppet() ? ON : OFF;
    return 0;
}

/* The command line has been read by now. */
__attribute__((constructor)) static void choose(void)
{
    linux_set_hotplug(hotplug != NO_STOP, hotplug == ONLINE_FIRST, late_ipis == ON);
}

/* Without a stop a CPU can leave meanwhile, and nothing is promised. */
void check_called(uint64_t call, uint64_t called, uint64_t least, uint64_t most)
{
    if (hotplug != NO_STOP && ((least & ~called) || (called & ~(most & linux_online(0)))))
        lab_report(WRONG_TARGETS, call, called);
}

LAB_HOTPLUG(linux_cpu_starts, linux_between, linux_is_wanted, linux_online);

LAB_DEED(offline, 9, "offline", "Takes another CPU offline.", LAB_CPU)
{
    return linux_cpu_down(command->arguments[0]);
}

LAB_DEED(online, 10, "online", "Brings another CPU online.", LAB_CPU)
{
    return linux_cpu_up(command->arguments[0]);
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
    lab_take_pending();
    return 0;
}
