/* Barriers of x86, in C: a fence that is sequentially consistent is an instruction, and the rest hold the compiler
 * back (arch/x86/include/asm/barrier.h). A loop that waits says so, so that a search knows. */
#ifndef LAB_ASM_BARRIER_H
#define LAB_ASM_BARRIER_H
#include <linux/compiler.h>
#include <lab_machine.h>

#define mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rmb() barrier()
#define wmb() barrier()
#define __smp_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __smp_rmb() barrier()
#define __smp_wmb() barrier()
#define __smp_mb__before_atomic() barrier()
#define __smp_mb__after_atomic() barrier()

#define __smp_store_release(place, value)                                          \
    do {                                                                           \
        barrier();                                                                 \
        WRITE_ONCE(*(place), value);                                               \
    } while (0)
#define __smp_load_acquire(place)                                                  \
    ({                                                                             \
        __unqual_scalar_typeof(*(place)) lab_loaded = READ_ONCE(*(place));         \
        barrier();                                                                 \
        (typeof(*(place)))lab_loaded;                                              \
    })

#define smp_cond_load_relaxed(place, condition)                                    \
    ({                                                                             \
        typeof(place) lab_place = (place);                                         \
        __unqual_scalar_typeof(*(place)) VAL;                                      \
        smp_lab_wait_begins();                                                     \
        lab_wait_until(({                                                          \
            VAL = READ_ONCE(*lab_place);                                           \
            condition;                                                             \
        }));                                                                       \
        smp_lab_wait_ends();                                                       \
        (typeof(*(place)))VAL;                                                     \
    })

#include <asm-generic/barrier.h>
#endif
