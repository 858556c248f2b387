/* By the compiler's builtins, which the hooks see. All are full barriers on x86. */
#ifndef LAB_ASM_CMPXCHG_H
#define LAB_ASM_CMPXCHG_H
#include <linux/types.h>

#define arch_xchg(place, value) __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST)
#define arch_cmpxchg(place, old, new)                                              \
    ({                                                                             \
        __typeof__(*(place)) lab_old = (old);                                      \
        __atomic_compare_exchange_n(place, &lab_old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        lab_old;                                                                   \
    })
#define arch_cmpxchg64 arch_cmpxchg
#define arch_cmpxchg_local arch_cmpxchg
#define arch_cmpxchg64_local arch_cmpxchg
#define arch_try_cmpxchg(place, old, new)                                          \
    __atomic_compare_exchange_n(place, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#endif
