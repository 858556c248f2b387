/* A sequence lock (Linux: seqlock_t): a reader takes two words that belong together, and takes them again if a writer
 * was at work. A reader must read the words before it looks at the count again. With reader=no-barrier nothing in the
 * source says so: in C11 the compiler and the processor may both read the count first. x86 does not reorder loads, and
 * this compiler has not, so that a search of the image is complete all the same. With reader=once the count is not read again. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("seqlock", "1", "A sequence lock over two words");
LAB_ORACLE(TORN, 1, "torn", "took two words that do not belong together");

enum { BARRIER, NO_BARRIER, ONCE };
LAB_WORD(reader, "reader", "How a reader knows that no writer was at work.");
LAB_VALUE("reader", BARRIER, "barrier");
LAB_BROKEN_VALUE("reader", NO_BARRIER, "no-barrier");
LAB_BROKEN_VALUE("reader", ONCE, "once");

static struct lab_lock writers;
static _Atomic uint32_t sequence;
/* The second is always twice the first. */
static _Atomic uint64_t number, twice;

LAB_DEED(write, 1, "write", "Writes the number, and its double.", LAB_NUMBER)
{
    uint32_t before;

    lab_lock(&writers);
    before = atomic_load_explicit(&sequence, memory_order_relaxed);
    atomic_store_explicit(&sequence, before + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&number, command->arguments[0], memory_order_relaxed);
    atomic_store_explicit(&twice, 2 * command->arguments[0], memory_order_relaxed);
    atomic_store_explicit(&sequence, before + 2, memory_order_release);
    lab_unlock(&writers);
    return 0;
}

LAB_DEED(read, 2, "read", "Takes the number and its double.")
{
    uint32_t before, after;
    uint64_t first, second;

    lab_wait_begin();
    for (;;) {
        before = atomic_load_explicit(&sequence, memory_order_acquire);
        first = atomic_load_explicit(&number, memory_order_relaxed);
        second = atomic_load_explicit(&twice, memory_order_relaxed);
        if (reader == BARRIER)
            atomic_thread_fence(memory_order_acquire);
        after = reader == ONCE ? before : atomic_load_explicit(&sequence, memory_order_relaxed);
        if (before % 2 == 0 && before == after)
            break;
        lab_relax();
    }
    lab_wait_end();
    if (second != 2 * first)
        lab_report(TORN, 0, first);
    return first;
}
