/* Calls of which everything that Linux promises is checked. The ledger watches whether each runs once, on its targets,
 * before a caller that waits goes on. Here the data is watched: what the caller has written before the call is there
 * when the function runs, and what the function has written is there when a caller that has waited for it goes on. As
 * in kernel/scftorture.c neither side does anything for that but to call and to be called. */
#include "checked.h"
#include "deeds.h"

#include "smp_lab.h"

LAB_ORACLE(STALE_DATA, 20, "stale-data", "ran a function that did not find what its caller had written");
LAB_ORACLE(STALE_REPLY, 21, "stale-reply", "went back to a caller that did not find what the function had written");

/* What a caller writes for each of its calls: the call's id, in the place that the call has among its open ones. */
static LAB_PER_CPU(struct { uint64_t in[LAB_CALL_SLOTS]; } __attribute__((aligned(64))), written);

/* What functions write for the caller, each target in a place of its own. A caller waits for one call at a time. */
static LAB_PER_CPU(struct { uint64_t on[LAB_CPUS]; } __attribute__((aligned(64))), replies);

/* The last call of each CPU whose function has told it that it has run. */
static LAB_PER_CPU(struct { uint64_t call; } __attribute__((aligned(64))), told);

static void arrive(void *call)
{
    uint64_t id = (uint64_t)call, found = written[lab_call_cpu(id)].in[lab_call_slot(id)];

    if (found != id)
        lab_report(STALE_DATA, id, found);
    smp_lab_runs(call);
}

/* Not of calls that nobody waits for: those can run late, and would write into the place of a later one. */
static void arrive_and_reply(void *call)
{
    uint64_t id = (uint64_t)call;

    arrive(call);
    replies[lab_call_cpu(id)].on[lab_cpu()] = id;
}

static void arrive_and_tell(void *call)
{
    uint64_t id = (uint64_t)call;

    arrive_and_reply(call);
    __atomic_store_n(&told[lab_call_cpu(id)].call, id, __ATOMIC_RELEASE);
}

static uint64_t made(uint64_t cpus, enum reply reply)
{
    uint64_t call;

    lab_wait_until(lab_call_has_room());
    call = lab_call_made(&cpus, reply == AT_RETURN);
    written[lab_cpu()].in[lab_call_slot(call)] = call;
    smp_lab_call_begins(call);
    return call;
}

static void (*function(enum reply reply))(void *)
{
    return reply == NO_REPLY ? arrive : reply == AT_RETURN ? arrive_and_reply : arrive_and_tell;
}

static void returned(uint64_t call, uint64_t cpus, enum reply reply)
{
    lab_call_returned(call);
    smp_lab_call_ends(call);
    if (reply == BY_FUNCTION)
        lab_wait_until(__atomic_load_n(&told[lab_cpu()].call, __ATOMIC_ACQUIRE) == call);
    for (uint32_t cpu = 0; reply != NO_REPLY && cpu < lab_cpus(); cpu++) {
        uint64_t found = replies[lab_cpu()].on[cpu];

        if (cpus >> cpu & 1 && found != call)
            lab_report(STALE_REPLY, call, found);
    }
}

static uint64_t others(void)
{
    return all_cpus() & ~(1ull << lab_cpu());
}

void checked_single(uint32_t cpu, enum reply reply)
{
    uint64_t call = made(1ull << cpu, reply);

    linux_single(cpu, function(reply), (void *)call, reply == AT_RETURN);
    returned(call, 1ull << cpu, reply);
}

void checked_many(uint64_t cpus, enum reply reply)
{
    uint64_t call;

    cpus &= others();
    call = made(cpus, reply);
    linux_many(cpus, function(reply), (void *)call, reply == AT_RETURN);
    returned(call, cpus, reply);
}

void checked_all(enum reply reply)
{
    uint64_t call = made(others(), reply);

    linux_all(function(reply), (void *)call, reply == AT_RETURN);
    returned(call, others(), reply);
}

void checked_each(enum reply reply)
{
    uint64_t call = made(all_cpus(), reply);

    linux_each(function(reply), (void *)call, reply == AT_RETURN);
    returned(call, all_cpus(), reply);
}
