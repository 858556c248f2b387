/* A guest of the tests that has one of everything in lab.h, and makes accesses of every kind. What each deed can go
 * wrong by is known, so that a search which does not see an access finds nothing, and a test fails. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("parts", "1", "One of everything that a guest in C can have");
LAB_ORACLE(LOST_UPDATE, 1, "lost-update", "lost what was added");
LAB_ORACLE(TORN, 2, "torn", "took what does not belong together");
LAB_COUNTER(CALLS, 0, "calls_taken", "Calls that were taken.");

enum { ALL, NONE };
LAB_WORD(sends, "sends", "Whether a call is sent.");
LAB_VALUE("sends", ALL, "all");
LAB_BROKEN_VALUE("sends", NONE, "none");

static uint32_t plain, wanted[LAB_CPUS];
static volatile uint16_t in_volatile;
static uint32_t constructed;

__attribute__((constructor)) static void construct(void)
{
    constructed = 7;
}

LAB_DEED(bump_plain, 1, "bump-plain", "Adds one to an ordinary variable.")
{
    plain++;
    wanted[lab_cpu()]++;
    return 0;
}

LAB_DEED(bump_volatile, 2, "bump-volatile", "Adds one to a volatile variable.")
{
    in_volatile = in_volatile + 1;
    wanted[lab_cpu()]++;
    return 0;
}

/* Both at once, by whoever writes them; read and written in several sizes. */
union {
    uint64_t whole;
    uint32_t half[2];
    uint8_t byte[8];
} static mixed;

LAB_DEED(write_halves, 3, "write-halves", "Writes the number to each half of a word.", LAB_NUMBER)
{
    mixed.half[0] = (uint32_t)command->arguments[0];
    mixed.half[1] = (uint32_t)command->arguments[0];
    return 0;
}

LAB_DEED(read_whole, 4, "read-whole", "Reads the word as a whole.")
{
    uint64_t whole = mixed.whole;

    if ((uint32_t)whole != whole >> 32)
        lab_report(TORN, 0, whole);
    return 0;
}

LAB_DEED(write_whole, 5, "write-whole", "Writes both halves in one instruction.", LAB_NUMBER)
{
    mixed.whole = (uint64_t)(uint32_t)command->arguments[0] << 32 | (uint32_t)command->arguments[0];
    return 0;
}

/* Four words that belong together. */
struct four {
    uint64_t words[4];
};
static struct four shared_four;

static void check(const struct four *four)
{
    for (int i = 1; i < 4; i++)
        if (four->words[i] != four->words[0])
            lab_report(TORN, 0, four->words[i]);
}

LAB_DEED(write_four, 6, "write-four", "Writes the number to four words, by memcpy().", LAB_NUMBER)
{
    struct four mine;

    for (int i = 0; i < 4; i++)
        mine.words[i] = command->arguments[0];
    memcpy(&shared_four, &mine, sizeof(mine));
    return 0;
}

LAB_DEED(copy_four, 7, "copy-four", "Takes the four words by memcpy().")
{
    struct four mine;

    memcpy(&mine, &shared_four, sizeof(mine));
    check(&mine);
    return 0;
}

LAB_DEED(assign_four, 8, "assign-four", "Takes the four words by assignment.")
{
    struct four mine = shared_four;

    check(&mine);
    return 0;
}

/* A structure of one word, which GCC announces in the other order than it copies. */
struct one {
    uint32_t a, b;
};
static struct one shared_one;
static LAB_PER_CPU(struct one, own_ones);

LAB_DEED(assign_one, 9, "assign-one", "Copies a structure of one word from what CPUs share, and back.")
{
    own_ones[lab_cpu()] = shared_one;
    shared_one = own_ones[lab_cpu()];
    return 0;
}

/* Data races, and what is none. */
static uint32_t raced;
static _Atomic uint32_t published;

LAB_DEED(bump_intended, 22, "bump-intended", "Adds one to an ordinary variable, which may race.")
{
    return LAB_DATA_RACE(raced++) > 100 ? -1 : 0;
}

LAB_DEED(peek, 23, "peek", "Reads the ordinary variable that bump-plain changes, as a volatile one.")
{
    return *(volatile uint32_t *)&plain > 100 ? -1 : 0;
}

LAB_DEED(publish, 24, "publish", "Writes an ordinary variable, and says so.")
{
    raced = 1;
    atomic_store_explicit(&published, 1, memory_order_release);
    return 0;
}

LAB_DEED(take, 25, "take", "Reads the variable once it has been published.")
{
    if (atomic_load_explicit(&published, memory_order_acquire))
        return raced == 1 ? 0 : -1;
    return 0;
}

LAB_DEED(take_early, 26, "take-early", "Reads it before it looks.")
{
    uint32_t early = raced;

    return atomic_load_explicit(&published, memory_order_acquire) && !early ? -1 : 0;
}

/* Each CPU stays out if it sees that the other one wants to come in. */
static _Atomic uint32_t wants[2];

LAB_DEED(enter, 27, "enter", "Adds one, unless the other CPU of the first two does.")
{
    uint32_t me = lab_cpu() & 1;

    atomic_store_explicit(&wants[me], 1, memory_order_relaxed);
    if (!atomic_load_explicit(&wants[1 - me], memory_order_relaxed))
        raced++;
    return 0;
}

/* What a CPU asks is on its stack, as a structure that is set as a whole. */
struct asked {
    uint64_t words[4];
};
static _Atomic(struct asked *) asked;

LAB_DEED(ask, 20, "ask", "Waits until another CPU has answered what is on this one's stack.")
{
    struct asked mine = {.words = {[1] = 1}};

    atomic_store(&asked, &mine);
    lab_wait_until(atomic_load(&asked) == NULL);
    if (mine.words[0] || mine.words[1] != 1 || mine.words[3] != 4)
        lab_report(TORN, 0, mine.words[3]);
    return 0;
}

LAB_DEED(answer, 21, "answer", "Answers what another CPU asks.")
{
    struct asked *theirs;

    lab_wait_until((theirs = atomic_load(&asked)) != NULL);
    theirs->words[3] += 4;
    atomic_store(&asked, NULL);
    return 0;
}

static _Atomic uint8_t flag;

LAB_DEED(raise, 10, "raise", "Sets the flag.")
{
    atomic_store_explicit(&flag, 1, memory_order_release);
    return 0;
}

LAB_DEED(spin, 11, "spin", "Spins until the flag is set, in a loop that nobody has announced.")
{
    while (!atomic_load_explicit(&flag, memory_order_acquire))
        ;
    return 0;
}

static struct lab_lock lock;
static uint32_t guarded;

LAB_DEED(bump_guarded, 12, "bump-guarded", "Adds one under a lock.")
{
    bool were_enabled = lab_irqs_save();

    lab_lock(&lock);
    guarded++;
    lab_unlock(&lock);
    lab_irqs_restore(were_enabled);
    return 0;
}

static LAB_PER_CPU(_Atomic uint64_t, calls);

LAB_VECTOR(CALL_ME, 0xf5, "call-me", "Runs the call that is waiting here.")
{
    uint64_t call = atomic_load(&calls[lab_cpu()]);

    if (call != 0) {
        lab_count(CALLS, 1);
        lab_call_ran(call);
        plain++;
        wanted[lab_cpu()]++;
        atomic_store(&calls[lab_cpu()], 0);
    }
}

LAB_DEED(call, 13, "call", "Calls a CPU, and waits until the call has run.", LAB_CPU)
{
    uint32_t target = (uint32_t)command->arguments[0];
    uint64_t cpus[16] = {0}, id;

    cpus[target / 64] = 1ull << target % 64;
    id = lab_call_made(cpus, true);
    atomic_store(&calls[target], id);
    if (sends == ALL)
        lab_announce(target, CALL_ME, id);
    lab_wait_until(atomic_load(&calls[target]) == 0);
    lab_call_returned(id);
    return 0;
}

LAB_DEED(report_all, 14, "say", "Prints what the constructor has left.")
{
    LAB_PROBE("parts.say", 0, constructed);
    lab_print_number("constructed", constructed);
    lab_print("said");
    return constructed;
}

LAB_JUDGE(nothing_is_lost)
{
    uint32_t all = 0;

    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        all += wanted[cpu];
    if (plain + in_volatile != all)
        lab_report(LOST_UPDATE, 0, plain + in_volatile);
}
