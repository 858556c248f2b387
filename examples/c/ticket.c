/* A ticket lock: who wants it draws a number, and waits until that is served. With draw=in-two-steps the number is
 * read and then written, so that two CPUs can draw the same. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("ticket", "1", "A ticket lock, and a sum that it guards");
LAB_ORACLE(NOT_ALONE, 1, "not-alone", "let two CPUs have the lock at once");
LAB_ORACLE(MISCOUNTED, 2, "miscounted", "left a sum that is not what was added");
LAB_COUNTER(TAKEN, 0, "locks_taken", "Times the lock was taken.");

enum { AT_ONCE, IN_TWO_STEPS };
LAB_WORD(draw, "draw", "How a CPU draws its number.");
LAB_VALUE("draw", AT_ONCE, "at-once");
LAB_BROKEN_VALUE("draw", IN_TWO_STEPS, "in-two-steps");

struct ticket_lock {
    _Atomic uint16_t next, served;
};

static struct ticket_lock lock;
static uint32_t holders;
static uint64_t sum;
static LAB_PER_CPU(uint64_t, added);

static void ticket_lock(struct ticket_lock *lock)
{
    uint16_t mine;

    if (draw == AT_ONCE) {
        mine = atomic_fetch_add_explicit(&lock->next, 1, memory_order_relaxed);
    } else {
        mine = atomic_load_explicit(&lock->next, memory_order_relaxed);
        atomic_store_explicit(&lock->next, mine + 1, memory_order_relaxed);
    }
    LAB_PROBE("ticket.drawn", 0, mine);
    lab_wait_until(atomic_load_explicit(&lock->served, memory_order_acquire) == mine);
}

static void ticket_unlock(struct ticket_lock *lock)
{
    uint16_t served = atomic_load_explicit(&lock->served, memory_order_relaxed);

    atomic_store_explicit(&lock->served, served + 1, memory_order_release);
}

LAB_DEED(add, 1, "add", "Adds the number to the sum, with the lock held.", LAB_NUMBER)
{
    ticket_lock(&lock);
    lab_count(TAKEN, 1);
    if (holders++ != 0)
        lab_report(NOT_ALONE, 0, holders);
    sum += command->arguments[0];
    holders--;
    ticket_unlock(&lock);
    added[lab_cpu()] += command->arguments[0];
    return 0;
}

LAB_JUDGE(all_is_counted)
{
    uint64_t all = 0;

    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        all += added[cpu];
    if (sum != all)
        lab_report(MISCOUNTED, 0, sum);
}
