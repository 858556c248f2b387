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

/* A call: its id, the CPUs it names, those of all CPUs that were online when it began, and does its caller wait. */
struct call {
    uint64_t id, cpus, online;
    enum reply reply;
};

static void made(struct call *call, uint64_t cpus, enum reply reply)
{
    lab_wait_until(lab_call_has_room());
    call->cpus = cpus;
    call->reply = reply;
    call->online = linux_online(0);
    call->id = lab_call_made(&cpus, reply == AT_RETURN);
    written[lab_cpu()].in[lab_call_slot(call->id)] = call->id;
    smp_lab_call_begins(call->id);
}

static void (*function(enum reply reply))(void *)
{
    return reply == NO_REPLY ? arrive : reply == AT_RETURN ? arrive_and_reply : arrive_and_tell;
}

/* It has returned, and was made to these CPUs. */
static void returned(const struct call *call, uint64_t called)
{
    lab_call_was_made_to(call->id, &called);
    check_called(call->id, called, call->cpus & call->online, call->cpus);
    lab_call_returned(call->id);
    smp_lab_call_ends(call->id);
    if (call->reply == BY_FUNCTION && called)
        lab_wait_until(__atomic_load_n(&told[lab_cpu()].call, __ATOMIC_ACQUIRE) == call->id);
    for (uint32_t cpu = 0; call->reply != NO_REPLY && cpu < lab_cpus(); cpu++) {
        uint64_t found = replies[lab_cpu()].on[cpu];

        if (called >> cpu & 1 && found != call->id)
            lab_report(STALE_REPLY, call->id, found);
    }
}

/* The same, where only the file knows which of its targets were online. */
static void returned_from_several(const struct call *call)
{
    uint64_t me = 1ull << lab_cpu();

    returned(call, linux_called(call->cpus & ~me, (void *)call->id) | (call->cpus & me));
}

void checked_single(uint32_t cpu, enum reply reply)
{
    struct call call;
    int result;

    made(&call, 1ull << cpu, reply);
    result = linux_single(cpu, function(reply), (void *)call.id, reply == AT_RETURN);
    returned(&call, result ? 0 : call.cpus);
}

void checked_many(uint64_t cpus, enum reply reply)
{
    struct call call;

    made(&call, cpus & other_cpus(), reply);
    linux_many(call.cpus, function(reply), (void *)call.id, reply == AT_RETURN);
    returned_from_several(&call);
}

void checked_all(enum reply reply)
{
    struct call call;

    made(&call, other_cpus(), reply);
    linux_all(function(reply), (void *)call.id, reply == AT_RETURN);
    returned_from_several(&call);
}

void checked_each(enum reply reply)
{
    struct call call;

    made(&call, all_cpus(), reply);
    linux_each(function(reply), (void *)call.id, reply == AT_RETURN);
    returned_from_several(&call);
}
