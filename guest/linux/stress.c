/* `workload=stress`: every CPU makes calls of all kinds, drawn at random by weights, as kernel/scftorture.c does, whose
 * module parameters the weights are, with the same defaults: if none is more than 0, calls to one CPU are drawn the more
 * often the more CPUs there are; else those that are not said are not drawn. `each` is not there, and is drawn as `all`
 * is. CPUs leave and come by a weight too, where scftorture has a time from one to the next (onoff_interval): by default
 * in one operation of 64, as in the project's own guest (guest/src/workload/stress.rs). */
#include "checked.h"
#include "deeds.h"
#include "workloads.h"

#include "smp_lab.h"

#define WEIGHT(variable, key, what)                                                \
    LAB_WORKLOAD_NUMBER(variable, LAB_IN(STRESS), 0, key, "How often stress " what)

WEIGHT(single, "weight_single", "calls one CPU.");
WEIGHT(single_rpc, "weight_single_rpc", "calls one CPU, and waits until the function tells it that it has run.");
WEIGHT(single_wait, "weight_single_wait", "calls one CPU, and waits for it.");
WEIGHT(many, "weight_many", "calls several CPUs.");
WEIGHT(many_wait, "weight_many_wait", "calls several CPUs, and waits for them.");
WEIGHT(all, "weight_all", "calls all others.");
WEIGHT(all_wait, "weight_all_wait", "calls all others, and waits for them.");
WEIGHT(each, "weight_each", "calls all, itself too.");
WEIGHT(each_wait, "weight_each_wait", "calls all, itself too, and waits for them.");
WEIGHT(onoff, "weight_onoff", "takes a CPU offline, or brings one online.");
LAB_WORKLOAD_TIME(milliseconds, LAB_IN(STRESS), "for", "How long stress goes on, such as 3s.");

enum to { SINGLE, MANY, ALL, EACH };

/* What is drawn: its weight, and the weight of scftorture, by the number of CPUs and besides. It is not const, since the
 * compiler announces no reads of what is. */
static struct kind {
    uint64_t *weight;
    enum to to;
    enum reply reply;
    uint32_t by_cpus, fixed;
} kinds[] = {
    { &single, SINGLE, NO_REPLY, 2, 0 },
    { &single_rpc, SINGLE, BY_FUNCTION, 2, 0 },
    { &single_wait, SINGLE, AT_RETURN, 2, 0 },
    { &many, MANY, NO_REPLY, 0, 2 },
    { &many_wait, MANY, AT_RETURN, 0, 2 },
    { &all, ALL, NO_REPLY, 0, 1 },
    { &all_wait, ALL, AT_RETURN, 0, 1 },
    { &each, EACH, NO_REPLY, 0, 1 },
    { &each_wait, EACH, AT_RETURN, 0, 1 },
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* By default, one operation in so many takes a CPU offline or brings one online. */
enum { ONOFF_ONE_IN = 64 };

static bool is_positive(uint64_t weight)
{
    return weight != LAB_UNSET && weight != 0;
}

/* The sum of the weights of all calls. */
static uint64_t sum_of_calls(void)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < KINDS; n++)
        sum += *kinds[n].weight;
    return sum;
}

LAB_DEFAULTS(weigh)
{
    bool any_is_positive = is_positive(onoff);

    for (uint32_t n = 0; n < KINDS; n++)
        any_is_positive |= is_positive(*kinds[n].weight);
    for (uint32_t n = 0; n < KINDS; n++)
        if (*kinds[n].weight == LAB_UNSET)
            *kinds[n].weight = any_is_positive ? 0 : kinds[n].by_cpus * cpus + kinds[n].fixed;
    if (onoff == LAB_UNSET)
        onoff = any_is_positive ? 0 : sum_of_calls() / (ONOFF_ONE_IN - 1) + 1;
    for (uint32_t n = 0; n < KINDS; n++)
        if (*kinds[n].weight > UINT32_MAX)
            return "a weight_ is more than 4294967295";
    if (onoff > UINT32_MAX)
        return "weight_onoff is more than 4294967295";
    return sum_of_calls() + onoff ? 0 : "all weight_ are 0, so that stress has nothing to do";
}

bool stress_has_time(void)
{
    return milliseconds != LAB_UNSET;
}

static bool is_online(uint32_t cpu)
{
    return linux_online(0) >> cpu & 1;
}

static void call(const struct kind *kind, uint64_t *random)
{
    switch (kind->to) {
    case SINGLE:
        return checked_single(below(random, lab_cpus()), kind->reply);
    case MANY:
        return checked_many(lab_random(random), kind->reply);
    case ALL:
        return checked_all(kind->reply);
    case EACH:
        return checked_each(kind->reply);
    }
}

/* One operation, drawn by its weight. */
static void operate(uint64_t *random)
{
    uint64_t at = below(random, sum_of_calls() + onoff);
    uint32_t cpu;

    for (uint32_t n = 0; n < KINDS; n++) {
        if (at < *kinds[n].weight)
            return call(&kinds[n], random);
        at -= *kinds[n].weight;
    }
    cpu = below(random, lab_cpus());
    /* Both are refused while another CPU does either, and of CPU 0 and the one that asks. */
    if (is_online(cpu))
        linux_cpu_down(cpu);
    else
        linux_cpu_up(cpu);
}

/* How far a CPU is. It is kept while the CPU is offline. */
struct progress {
    uint64_t begun; /* when, or 0 */
    uint64_t random, operations;
    bool is_done;
};

static LAB_PER_CPU(struct progress, progress);

/* CPUs that start at boot begin when all of them are there. */
static void begin(struct progress *mine)
{
    mine->random = workload_random();
    if (milliseconds == LAB_UNSET)
        workload_plans(workload_calls());
    if (lab_cpu() < lab_cpus_at_boot())
        lab_barrier();
    mine->begun = lab_timestamp();
}

static bool is_over(const struct progress *mine)
{
    uint64_t passed = lab_timestamp() - mine->begun;

    return mine->operations >= workload_calls() ||
           (milliseconds != LAB_UNSET && passed / (lab_cycles_per_second() / 1000) >= milliseconds);
}

static bool is_done(uint32_t cpu)
{
    return __atomic_load_n(&progress[cpu].is_done, __ATOMIC_ACQUIRE);
}

/* Brings a CPU back if it is offline, until this holds. CPU 0 does so, which never leaves, but stops when others do. */
static void bring_back_until(bool (*holds)(uint32_t), uint32_t cpu)
{
    lab_wait_begin();
    while (!holds(cpu)) {
        if (!is_online(cpu))
            linux_cpu_up(cpu);
        lab_goes_offline();
        lab_relax();
    }
    lab_wait_end();
}

LAB_WORKLOAD(stress, STRESS, "stress")
{
    struct progress *mine = &progress[lab_cpu()];

    if (!mine->begun)
        begin(mine);
    while (!is_over(mine)) {
        operate(&mine->random);
        mine->operations++;
        workload_step_done();
        if (lab_goes_offline())
            return;
    }
    __atomic_store_n(&mine->is_done, true, __ATOMIC_RELEASE);
    if (lab_cpu() != 0)
        return;
    for (uint32_t cpu = 1; cpu < lab_cpus(); cpu++)
        bring_back_until(is_done, cpu);
    /* Nobody takes one down any more. */
    for (uint32_t cpu = 1; cpu < lab_cpus(); cpu++)
        bring_back_until(is_online, cpu);
}
