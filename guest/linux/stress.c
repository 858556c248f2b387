/* `workload=stress`: every CPU makes calls of all kinds, drawn at random by weights, as kernel/scftorture.c does, whose
 * module parameters the weights are, with the same defaults: if none is said, calls to one CPU are drawn the more often
 * the more CPUs there are; else those that are not said are not drawn. `each` is not there, and is drawn as `all` is. */
#include "checked.h"
#include "workloads.h"

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

static uint64_t sum_of_weights(void)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < KINDS; n++)
        sum += *kinds[n].weight;
    return sum;
}

LAB_DEFAULTS(weigh)
{
    bool none_is_said = true;

    for (uint32_t n = 0; n < KINDS; n++)
        none_is_said &= *kinds[n].weight == LAB_UNSET;
    for (uint32_t n = 0; n < KINDS; n++) {
        uint64_t *weight = kinds[n].weight;

        if (*weight == LAB_UNSET)
            *weight = none_is_said ? kinds[n].by_cpus * cpus + kinds[n].fixed : 0;
        if (*weight > UINT32_MAX)
            return "a weight_ is more than 4294967295";
    }
    return sum_of_weights() ? 0 : "all weight_ are 0, so that stress has nothing to do";
}

bool stress_has_time(void)
{
    return milliseconds != LAB_UNSET;
}

static void operate(const struct kind *kind, uint64_t *random)
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

/* One of them, by its weight. */
static struct kind *draw(uint64_t *random, uint64_t sum)
{
    uint64_t at = below(random, sum);
    uint32_t n = 0;

    while (at >= *kinds[n].weight)
        at -= *kinds[n++].weight;
    return &kinds[n];
}

/* When all had come. */
static LAB_PER_CPU(uint64_t, begun);

static bool is_over(uint64_t operations)
{
    uint64_t passed = lab_timestamp() - begun[lab_cpu()];

    return operations >= workload_calls() ||
           (milliseconds != LAB_UNSET && passed / (lab_cycles_per_second() / 1000) >= milliseconds);
}

LAB_WORKLOAD(stress, STRESS, "stress")
{
    uint64_t random = workload_random(), sum = sum_of_weights(), operations = 0;

    if (milliseconds == LAB_UNSET)
        workload_plans(workload_calls());
    lab_barrier();
    begun[lab_cpu()] = lab_timestamp();
    while (!is_over(operations++)) {
        operate(draw(&random, sum), &random);
        workload_step_done();
    }
}
