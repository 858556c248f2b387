/* A tiny RCU: readers say that they read, by a flag of their own, and who replaces what they read waits until each has
 * been seen outside. A reader's flag must be in memory before it reads the pointer: with reader=no-barrier it can still be
 * in the store buffer of its CPU while the old node is given up under it. With wait=no nobody waits at all. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("rcu", "1", "Readers of a node that is replaced and given up");
LAB_ORACLE(USED_AFTER, 1, "use-after-free", "read a node that was given up");

enum { BARRIER, NO_BARRIER };
LAB_WORD(reader, "reader", "Whether a reader's flag reaches memory before it reads.");
LAB_VALUE("reader", BARRIER, "barrier");
LAB_BROKEN_VALUE("reader", NO_BARRIER, "no-barrier");

enum { YES, NO };
LAB_WORD(waits, "wait", "Whether who replaces the node waits for readers.");
LAB_VALUE("wait", YES, "yes");
LAB_BROKEN_VALUE("wait", NO, "no");

struct node {
    _Atomic uint32_t number; /* 0: it was given up */
};

static struct lab_lock updates;
static LAB_PER_CPU(_Atomic uint32_t, reading);
static struct node nodes[2] = {{1}, {0}};
static struct node *_Atomic current_node = &nodes[0];

static void rcu_read_lock(void)
{
    atomic_store_explicit(&reading[lab_cpu()], 1, memory_order_relaxed);
    if (reader == BARRIER)
        atomic_thread_fence(memory_order_seq_cst);
}

static void rcu_read_unlock(void)
{
    atomic_store_explicit(&reading[lab_cpu()], 0, memory_order_release);
}

static void synchronize_rcu(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        lab_wait_until(atomic_load_explicit(&reading[cpu], memory_order_acquire) == 0);
}

LAB_DEED(read, 1, "read", "Reads the present node.")
{
    uint32_t number;

    rcu_read_lock();
    struct node *node = atomic_load_explicit(&current_node, memory_order_acquire);
    LAB_PROBE("rcu.node-read", 0, (uint64_t)node);
    number = atomic_load_explicit(&node->number, memory_order_relaxed);
    rcu_read_unlock();
    if (number == 0)
        lab_report(USED_AFTER, 0, (uint64_t)node);
    return number;
}

LAB_DEED(update, 2, "update", "Makes a node with this number the present one, and gives up the old.", LAB_NUMBER)
{
    struct node *old, *new;

    if (command->arguments[0] == 0)
        return -1;
    lab_lock(&updates);
    old = atomic_load_explicit(&current_node, memory_order_relaxed);
    new = old == &nodes[0] ? &nodes[1] : &nodes[0];
    atomic_store_explicit(&new->number, (uint32_t)command->arguments[0], memory_order_relaxed);
    atomic_store_explicit(&current_node, new, memory_order_release);
    if (waits == YES)
        synchronize_rcu();
    atomic_store_explicit(&old->number, 0, memory_order_relaxed);
    lab_unlock(&updates);
    return 0;
}
