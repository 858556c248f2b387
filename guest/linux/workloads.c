/* Which workloads this guest has, and the words that several of them take: those of the project's own guest, with the
 * same defaults (guest/src/workload/amount.rs). */
#include "workloads.h"

#include "smp_lab.h"

LAB_WORKLOADS(PUPPET, "bench");
LAB_WORKLOAD_NUMBER(calls, LAB_IN(SELFTEST) | LAB_IN(STRESS) | LAB_IN(BENCH), 8, "calls",
                    "Calls, operations or rounds, of which the workload makes so many.");
LAB_WORKLOAD_NUMBER(seed, LAB_IN(SELFTEST) | LAB_IN(STRESS), 0, "seed", "Where everything random comes from.");
LAB_COUNTER_OF(STEPS_PLANNED, 0, LAB_PLANNED, "steps_planned", "Steps that the workload will do.");
LAB_COUNTER_OF(STEPS_DONE, 1, LAB_DONE, "steps_done", "Those of them that have been done.");

static uint64_t clamp(uint64_t number, uint64_t least, uint64_t most)
{
    return number < least ? least : number > most ? most : number;
}

LAB_DEFAULTS(choose)
{
    if (seed == LAB_UNSET)
        seed = 1;
    if (calls == LAB_UNSET && lab_workload == SELFTEST)
        calls = clamp(256 / cpus, 1, 16);
    else if (calls == LAB_UNSET && lab_workload == BENCH)
        calls = 1000;
    else if (calls == LAB_UNSET && !stress_has_time())
        calls = clamp(4096 / cpus, 16, 256);
    return 0;
}

bool workload_is_puppet(void)
{
    return lab_workload == PUPPET;
}

uint64_t workload_calls(void)
{
    return calls;
}

uint64_t workload_random(void)
{
    return seed ^ (uint64_t)lab_cpu() << 32;
}

void workload_plans(uint64_t steps)
{
    lab_count(STEPS_PLANNED, steps);
}

void workload_step_done(void)
{
    lab_count(STEPS_DONE, 1);
}
