/* What deeds.c, objects.c and checked.c know of each other. */
#ifndef DEEDS_H
#define DEEDS_H

#include "lab.h"

/* Why a deed is refused, as Linux numbers errors. */
enum { REFUSED_OFFLINE = -6, REFUSED_BUSY = -16, REFUSED_INVALID = -22 };

/* The number of the oracle `contract`, which deeds.c declares. */
enum { CONTRACT = 4 };

/* All CPUs, as a set. */
static inline uint64_t all_cpus(void)
{
    return ~0ull >> (64 - lab_cpus());
}

/* All but this one. */
static inline uint64_t other_cpus(void)
{
    return all_cpus() & ~(1ull << lab_cpu());
}

/* Does what stood in braces behind a deed, if anything did, on this CPU. */
void do_program(uint32_t program);

/* Reports a call that was made to other CPUs than it should: not to all of `least`, which were online when it began, or
 * to one that is not in `most` or not online now. None leaves while another one calls, but one can come. */
void check_called(uint64_t call, uint64_t called, uint64_t least, uint64_t most);

/* Reads a word of the deeds, if there is one with this number. */
bool word(uint64_t number, uint64_t *value);

#endif
