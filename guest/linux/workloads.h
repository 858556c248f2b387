/* The workloads of this guest, and the words that several of them take. */
#ifndef WORKLOADS_H
#define WORKLOADS_H

#include "lab.h"

enum workload { SELFTEST, STRESS, PUPPET, BENCH };

/* `calls=`: what it counts each workload says. Never LAB_UNSET but in a stress that a time ends. */
uint64_t workload_calls(void);
/* The state from which this CPU draws, by `seed=`. */
uint64_t workload_random(void);
/* Whether CPUs do what they are told. Can be called before there are CPUs. */
bool workload_is_puppet(void);
/* Whether a time ends the stress. Can be called before there are CPUs. */
bool stress_has_time(void);
/* Adds so many steps to what this CPU has to do, and one to what it has done. */
void workload_plans(uint64_t steps);
void workload_step_done(void);

#endif
