/* What deeds act on besides calls: spin locks and words that all CPUs share, and each CPU's timer, as in the project's
 * own guest. */
#include "lab.h"

#include "smp_lab.h"
#include "deeds.h"

enum { LOCKS = 8, WORDS = 8 };

/* ---- Programs ---- */

/* Whether this CPU does a program, and the locks that its task, and that program, hold. */
static LAB_PER_CPU(bool, in_program);
static LAB_PER_CPU(uint32_t, held_by_task);
static LAB_PER_CPU(uint32_t, held_by_program);

/* Nobody asks a program for an answer. A target that is offline, or a csd that is in use, makes sense. */
static void refused(int64_t result)
{
    if (result != REFUSED_OFFLINE && result != REFUSED_BUSY)
        lab_report(CONTRACT, 0, -result);
}

void do_program(uint32_t program)
{
    uint32_t me = lab_cpu();

    if (!program)
        return;
    in_program[me] = true;
    held_by_program[me] = 0;
    lab_do_program(program, refused);
    in_program[me] = false;
}

/* ---- Locks and words ---- */

static struct {
    struct lab_lock lock;
} __attribute__((aligned(64))) locks[LOCKS];

static struct {
    uint64_t value;
} __attribute__((aligned(64))) words[WORDS];

bool smp_lab_holds_locks(void)
{
    return held_by_task[lab_cpu()];
}

static uint32_t *held(void)
{
    return in_program[lab_cpu()] ? &held_by_program[lab_cpu()] : &held_by_task[lab_cpu()];
}

LAB_DEED_WITH(lock, 16, "lock", "", LAB_IN_HANDLER,
              "Takes a spin lock (0-7), and waits for it with interrupts as they are.", LAB_NUMBER)
{
    if (command->arguments[0] >= LOCKS)
        return REFUSED_INVALID;
    lab_lock(&locks[command->arguments[0]].lock);
    *held() |= 1u << command->arguments[0];
    return 0;
}

LAB_DEED_WITH(unlock, 17, "unlock", "", LAB_IN_HANDLER, "Releases a spin lock that the same context has taken.",
              LAB_NUMBER)
{
    if (command->arguments[0] >= LOCKS)
        return REFUSED_INVALID;
    if (!(*held() >> command->arguments[0] & 1)) {
        lab_report(CONTRACT, 0, command->arguments[0]);
        return REFUSED_BUSY;
    }
    *held() &= ~(1u << command->arguments[0]);
    lab_unlock(&locks[command->arguments[0]].lock);
    return 0;
}

LAB_DEED_WITH(set_word, 18, "set-word", "set", LAB_IN_HANDLER,
              "Writes a value to one of the words 0-7 (smp_store_release).", LAB_NUMBER, LAB_NUMBER)
{
    if (command->arguments[0] >= WORDS)
        return REFUSED_INVALID;
    __atomic_store_n(&words[command->arguments[0]].value, command->arguments[1], __ATOMIC_RELEASE);
    return 0;
}

bool word(uint64_t number, uint64_t *value)
{
    if (number >= WORDS)
        return false;
    *value = __atomic_load_n(&words[number].value, __ATOMIC_ACQUIRE);
    return true;
}

LAB_DEED_WITH(spin_until, 19, "spin-until", "until", LAB_IN_HANDLER,
              "Spins until one of the words 0-7 has a value (smp_cond_load_acquire), with interrupts as they are.",
              LAB_NUMBER, LAB_NUMBER)
{
    if (command->arguments[0] >= WORDS)
        return REFUSED_INVALID;
    lab_wait_until(__atomic_load_n(&words[command->arguments[0]].value, __ATOMIC_ACQUIRE) == command->arguments[1]);
    return 0;
}

/* ---- Timers ---- */

/* How often this CPU's timer still comes, and what its handler does. */
static LAB_PER_CPU(uint64_t, timer_comes);
static LAB_PER_CPU(uint32_t, timer_does);

LAB_VECTOR(TIMER, TIMER_VECTOR, "timer", "The timer of this CPU.")
{
    uint32_t me = lab_cpu();

    /* It can have been set anew meanwhile, to come no more. */
    if (!timer_comes[me])
        return;
    timer_comes[me]--;
    do_program(timer_does[me]);
    if (timer_comes[me])
        lab_send_ipi(me, TIMER);
}

LAB_DEED_WITH(timer, 21, "timer", "", LAB_TAKES_PROGRAM,
              "Sets its timer, which interrupts it so many times from now on.", LAB_NUMBER)
{
    uint32_t me = lab_cpu();

    timer_does[me] = command->program;
    timer_comes[me] = command->arguments[0];
    if (command->arguments[0])
        lab_send_ipi(me, TIMER);
    return 0;
}
