/* `workload=selftest`: every CPU calls every other, then random sets of them, then all at once, as in the project's own
 * guest (guest/src/workload/selftest.rs). */
#include "checked.h"
#include "workloads.h"

/* Each as a step. */
#define STEP(call)                                                                 \
    do {                                                                           \
        call;                                                                      \
        workload_step_done();                                                      \
    } while (0)

LAB_WORKLOAD(selftest, SELFTEST, "selftest")
{
    uint64_t random = workload_random();

    workload_plans(2 * lab_cpus() + workload_calls() + 6);
    lab_barrier();
    for (uint32_t n = 0; n < lab_cpus(); n++) {
        uint32_t cpu = (lab_cpu() + n) % lab_cpus();

        STEP(checked_single(cpu, AT_RETURN));
        STEP(checked_single(cpu, NO_REPLY));
    }
    STEP(checked_single((lab_cpu() + 1) % lab_cpus(), BY_FUNCTION));
    lab_barrier();
    for (uint64_t n = 0; n < workload_calls(); n++) {
        uint64_t cpus = lab_random(&random);

        STEP(checked_many(cpus, below(&random, 2) ? AT_RETURN : NO_REPLY));
    }
    lab_barrier();
    for (enum reply reply = NO_REPLY; reply <= AT_RETURN; reply++) {
        STEP(checked_all(reply));
        STEP(checked_each(reply));
    }
    /* To oneself alone: there is nobody to call. */
    STEP(checked_many(1ull << lab_cpu(), AT_RETURN));
}
