/* `workload=bench`: the same IPI, or the same call, from CPU 0 again and again, one at a time, each waited for: what
 * `vmm bench` measures, in the words of the project's own guest (guest/src/workload/bench.rs). */
#include "lab.h"
#include "smp_lab.h"
#include "workloads.h"

enum { NOBODY, SELF, ONE, SOME, ALL };
LAB_WORKLOAD_WORD(to, LAB_IN(BENCH), 2, "to", "To whom each round of the bench goes.");
LAB_VALUE("to", NOBODY, "nobody");
LAB_VALUE("to", SELF, "self");
LAB_VALUE("to", ONE, "one");
LAB_VALUE("to", SOME, "some");
LAB_VALUE("to", ALL, "all");

enum { IPI, CALL };
LAB_WORKLOAD_WORD(by, LAB_IN(BENCH), 3, "by", "What a round of the bench is.");
LAB_VALUE("by", IPI, "ipi");
LAB_VALUE("by", CALL, "call");

enum { HALTED, RUNNING, STALLED };
LAB_WORKLOAD_WORD(receiver, LAB_IN(BENCH), 4, "receiver", "What the other CPUs do in the bench.");
LAB_VALUE("receiver", HALTED, "halted");
LAB_VALUE("receiver", RUNNING, "running");
LAB_VALUE("receiver", STALLED, "stalled");

/* By the name that the project's own guest has for this design, so that lines of the two can be compared. */
LAB_WORKLOAD_WORD(queue, LAB_IN(BENCH), 7, "queue", "What carries calls to several: the file has one design.");
LAB_VALUE("queue", 0, "llist");

LAB_POINT("bench.start", 8);
LAB_POINT("bench.round", 7);

static uint32_t ready;

/* IPIs that each CPU has received. */
static LAB_PER_CPU(struct { uint32_t count; } __attribute__((aligned(64))), received);

LAB_VECTOR_OF(MEASURED, 0xf5, LAB_MEASURED, "measured", "Count that it was received, for the bench.")
{
    __atomic_store_n(&received[lab_cpu()].count, received[lab_cpu()].count + 1, __ATOMIC_RELEASE);
}

static uint64_t targets(void)
{
    uint64_t cpus = 0;

    for (uint32_t cpu = 1; cpu < lab_cpus_at_boot() && to >= ONE; cpu += to == ALL ? 1 : to == SOME ? 3 : 64)
        cpus |= 1ull << cpu;
    return to == SELF ? 1 : cpus;
}

static uint32_t count_of(uint32_t cpu)
{
    return __atomic_load_n(&received[cpu].count, __ATOMIC_ACQUIRE);
}

/* All have been sent as many. */
static bool all_have(uint64_t cpus, uint32_t count)
{
    for (uint32_t cpu = 0; cpu < lab_cpus(); cpu++)
        if (cpus >> cpu & 1 && count_of(cpu) != count)
            return false;
    return true;
}

/* A number to whose 32 high bits belongs how long the sending took, and to the low ones how long all took, in cycles. */
static uint64_t times(uint64_t sent, uint64_t all)
{
    uint64_t most = UINT32_MAX;

    return (sent < most ? sent : most) << 32 | (all < most ? all : most);
}

static uint64_t send(uint64_t cpus, uint32_t count)
{
    uint64_t start = lab_timestamp(), sent;

    if (to == SELF)
        lab_send_ipi(0, MEASURED);
    else if (cpus)
        lab_send_ipis(&cpus, MEASURED);
    sent = lab_timestamp() - start;
    if (receiver != STALLED)
        lab_wait_until(all_have(cpus, count));
    return times(sent, lab_timestamp() - start);
}

static uint64_t call(uint64_t cpus)
{
    uint64_t start = lab_timestamp(), call;

    if (cpus) {
        call = lab_call_made(&cpus, true);
        if (to <= ONE)
            linux_single(to == SELF ? 0 : 1, smp_lab_runs, (void *)call, true);
        else
            linux_many(cpus, smp_lab_runs, (void *)call, true);
        lab_call_returned(call);
    }
    return times(0, lab_timestamp() - start);
}

static bool never(void)
{
    return false;
}

LAB_BENCH(bench, BENCH, "bench")
{
    uint64_t cpus = targets(), warm_up = workload_calls() / 8;

    lab_barrier();
    if (lab_cpu()) {
        __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
        while (receiver == RUNNING)
            lab_relax();
        lab_sleep_until(never);
    }
    lab_wait_until(__atomic_load_n(&ready, __ATOMIC_ACQUIRE) == lab_cpus_at_boot() - 1);
    for (uint64_t n = 0; n < warm_up + workload_calls(); n++) {
        uint64_t took;

        if (n == warm_up) {
            LAB_PROBE("bench.start", 0, 0);
            lab_warmed_up();
        }
        took = by == IPI ? send(cpus, n + 1) : call(cpus);
        if (n >= warm_up)
            LAB_PROBE("bench.round", 0, took);
    }
}
