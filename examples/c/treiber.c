/* A Treiber stack (R. Kent Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118, 1986) of four nodes,
 * by number. With top=naive a pop can meet ABA: it reads the top A and what follows it, B; another CPU pops A and B and
 * pushes A again; the compare-and-exchange finds A, and makes the popped B the top. With top=counted the top carries a
 * count of pops and pushes, so that the exchange fails. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("treiber", "1", "A Treiber stack of numbered nodes");
LAB_ORACLE(HELD_TWICE, 1, "held-twice", "gave a node to two owners");
LAB_COUNTER(POPPED, 0, "nodes_popped", "Nodes that were popped.");
LAB_COUNTER(FOUND_EMPTY, 1, "found_empty", "Pops that found the stack empty.");

enum { COUNTED, NAIVE };
LAB_WORD(top_is, "top", "What the top of the stack is.");
LAB_VALUE("top", COUNTED, "counted");
LAB_BROKEN_VALUE("top", NAIVE, "naive");

enum { NODES = 4, NONE = 0 };

/* The number of the node in the low half, in the upper half the count. */
static _Atomic uint64_t top;

static struct node {
    _Atomic uint32_t next; /* its number, or NONE */
    _Atomic uint32_t owned; /* whether a CPU has it */
} nodes[NODES + 1];

static uint64_t after(uint64_t before, uint32_t number)
{
    uint64_t count = before >> 32;

    return (top_is == COUNTED ? count + 1 : count) << 32 | number;
}

static void push(uint32_t number)
{
    uint64_t before = atomic_load_explicit(&top, memory_order_relaxed);

    do {
        atomic_store_explicit(&nodes[number].next, (uint32_t)before, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&top, &before, after(before, number),
                                                    memory_order_release, memory_order_relaxed));
}

static uint32_t pop(void)
{
    uint64_t before = atomic_load_explicit(&top, memory_order_acquire);
    uint32_t next;

    do {
        if ((uint32_t)before == NONE)
            return NONE;
        next = atomic_load_explicit(&nodes[(uint32_t)before].next, memory_order_relaxed);
        LAB_PROBE("stack.next-read", 0, next);
    } while (!atomic_compare_exchange_weak_explicit(&top, &before, after(before, next),
                                                    memory_order_acquire, memory_order_acquire));
    return (uint32_t)before;
}

/* What each CPU has popped, in that order. */
struct hand {
    uint32_t count, numbers[NODES];
};
static LAB_PER_CPU(struct hand, hands);

LAB_DEED(do_pop, 1, "pop", "Pops a node, if there is one, and keeps it.")
{
    struct hand *mine = &hands[lab_cpu()];
    uint32_t number = pop();

    if (number == NONE) {
        lab_count(FOUND_EMPTY, 1);
        return NONE;
    }
    lab_count(POPPED, 1);
    if (atomic_exchange_explicit(&nodes[number].owned, 1, memory_order_relaxed) != 0)
        lab_report(HELD_TWICE, 0, number);
    else if (mine->count < NODES)
        mine->numbers[mine->count++] = number;
    return number;
}

LAB_DEED(do_push, 2, "push", "Pushes the node back that this CPU has kept for the longest time, if any.")
{
    struct hand *mine = &hands[lab_cpu()];
    uint32_t number;

    if (mine->count == 0)
        return NONE;
    number = mine->numbers[0];
    mine->count--;
    for (uint32_t place = 0; place < mine->count; place++)
        mine->numbers[place] = mine->numbers[place + 1];
    atomic_store_explicit(&nodes[number].owned, 0, memory_order_relaxed);
    push(number);
    return number;
}

/* At first all nodes are on the stack, node 1 on top. */
__attribute__((constructor)) static void fill(void)
{
    for (uint32_t number = NODES; number >= 1; number--) {
        nodes[number].next = (uint32_t)top;
        top = number;
    }
}
