/* A guest with more kinds of data races than a search keeps, of which one order also breaks something, and with a CPU
 * that is started anew while it is in an expression that may race. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("racing", "1", "Races beyond number");
LAB_ORACLE(BAD, 1, "bad", "saw the flag at 1");

static uint32_t x;
static _Atomic uint32_t flag;

/* Each as an access of its own, in a line of its own. */
#define APART atomic_signal_fence(memory_order_seq_cst)

LAB_DEED(write, 1, "write", "Writes x often.")
{
    x = 1;
    APART;
    x = 2;
    APART;
    x = 3;
    APART;
    x = 4;
    APART;
    x = 5;
    APART;
    x = 6;
    APART;
    x = 7;
    APART;
    x = 8;
    APART;
    x = 9;
    APART;
    x = 10;
    atomic_store(&flag, 1);
    atomic_store(&flag, 2);
    return 0;
}

LAB_DEED(read, 2, "read", "Reads x often.")
{
    uint32_t sum = 0;

    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    APART;
    sum += x;
    if (atomic_load(&flag) == 1)
        lab_report(BAD, 0, 0);
    return sum & 1;
}

static _Atomic uint64_t online_cpus = 3;
static _Atomic uint32_t is_to_leave, is_back;
static volatile uint32_t never;

static void starts(void)
{
    atomic_fetch_or(&online_cpus, 1ull << lab_cpu());
}

/* It waits there for ever, offline, until it is started anew. */
static bool between(void)
{
    if (lab_cpu() != 1 || !atomic_load(&is_to_leave))
        return false;
    lab_irqs_disable();
    atomic_store(&is_to_leave, 0);
    return LAB_DATA_RACE(({
        atomic_fetch_and(&online_cpus, ~2ull);
        lab_wait_until(never);
        true;
    }));
}

static bool is_wanted(void)
{
    return lab_cpu() == 1 && atomic_load(&is_to_leave);
}

static uint64_t online(uint32_t word)
{
    return word ? 0 : atomic_load(&online_cpus);
}

LAB_HOTPLUG(starts, between, is_wanted, online);

LAB_DEED(restart, 3, "restart", "Starts CPU 1 anew, and adds to x.")
{
    atomic_store(&is_to_leave, 1);
    lab_wake(1);
    lab_wait_until(!(atomic_load(&online_cpus) & 2));
    lab_start_cpu(1);
    lab_wait_until(atomic_load(&online_cpus) & 2);
    atomic_store(&is_back, 1);
    x++;
    return 0;
}

LAB_DEED(add, 4, "add", "Adds to x, if CPU 1 is back.")
{
    if (atomic_load(&is_back))
        x++;
    return 0;
}
