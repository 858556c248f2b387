/* By the compiler's builtins, which the hooks see. All are full barriers on x86. */
#ifndef LAB_ASM_CMPXCHG_H
#define LAB_ASM_CMPXCHG_H
#include <linux/compiler.h>
#include <linux/types.h>
#include <lab_machine.h>

#define arch_xchg(place, value) __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST)
#define arch_cmpxchg(place, old, new)                                              \
    ({                                                                             \
        __typeof__(*(place)) lab_old = (old);                                      \
        __atomic_compare_exchange_n(place, &lab_old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        lab_old;                                                                   \
    })
#define arch_cmpxchg64 arch_cmpxchg
/* Without a lock prefix on x86: one instruction, which other CPUs can come between. */
#define arch_cmpxchg_local(place, old, new)                                        \
    ({                                                                             \
        __typeof__(place) lab_place = (place);                                     \
        _Bool lab_irqs = lab_irqs_enabled();                                       \
        lab_irqs_disable();                                                        \
        __typeof__(*(place)) lab_found = READ_ONCE(*lab_place);                    \
        if (lab_found == (old))                                                    \
            WRITE_ONCE(*lab_place, new);                                           \
        if (lab_irqs)                                                              \
            lab_irqs_enable();                                                     \
        lab_found;                                                                 \
    })
#define arch_cmpxchg64_local arch_cmpxchg_local
#define arch_try_cmpxchg(place, old, new)                                          \
    __atomic_compare_exchange_n(place, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#endif
