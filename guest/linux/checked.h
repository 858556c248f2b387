/* Calls as the workloads make them: entered in the ledger, with data that the caller writes for the function and the
 * function for the caller, each an ordinary variable. checked.c says what is asked of them. A CPU that is offline is not
 * called. */
#ifndef CHECKED_H
#define CHECKED_H

#include "lab.h"

/* Does the caller wait: not; by the call itself; or, of a call to one CPU, until the function has told it. */
enum reply { NO_REPLY, AT_RETURN, BY_FUNCTION };

void checked_single(uint32_t cpu, enum reply reply);
/* To these CPUs but for the caller, to all others, and to all. Not with BY_FUNCTION. */
void checked_many(uint64_t cpus, enum reply reply);
void checked_all(enum reply reply);
void checked_each(enum reply reply);

/* A number below `limit`, which is not 0. */
static inline uint64_t below(uint64_t *random, uint64_t limit)
{
    return lab_random(random) % limit;
}

#endif
