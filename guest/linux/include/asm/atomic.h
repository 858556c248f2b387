/* By the compiler's builtins, which the hooks see. */
#ifndef LAB_ASM_ATOMIC_H
#define LAB_ASM_ATOMIC_H
#include <linux/types.h>
#include <asm/barrier.h>
#include <asm/cmpxchg.h>

#define LAB_ATOMIC(type, name, value_type)                                         \
    static __always_inline value_type arch_##name##_read(const type *v)            \
    {                                                                              \
        return READ_ONCE(v->counter);                                              \
    }                                                                              \
    static __always_inline void arch_##name##_set(type *v, value_type i)           \
    {                                                                              \
        WRITE_ONCE(v->counter, i);                                                 \
    }                                                                              \
    LAB_ATOMIC_OP(type, name, value_type, add)                                     \
    LAB_ATOMIC_OP(type, name, value_type, sub)                                     \
    LAB_ATOMIC_OP(type, name, value_type, and)                                     \
    LAB_ATOMIC_OP(type, name, value_type, or)                                      \
    LAB_ATOMIC_OP(type, name, value_type, xor)                                     \
    static __always_inline value_type arch_##name##_add_return(value_type i, type *v) \
    {                                                                              \
        return __atomic_add_fetch(&v->counter, i, __ATOMIC_SEQ_CST);               \
    }                                                                              \
    static __always_inline value_type arch_##name##_sub_return(value_type i, type *v) \
    {                                                                              \
        return __atomic_sub_fetch(&v->counter, i, __ATOMIC_SEQ_CST);               \
    }

#define LAB_ATOMIC_OP(type, name, value_type, op)                                  \
    static __always_inline void arch_##name##_##op(value_type i, type *v)          \
    {                                                                              \
        __atomic_fetch_##op(&v->counter, i, __ATOMIC_SEQ_CST);                     \
    }                                                                              \
    static __always_inline value_type arch_##name##_fetch_##op(value_type i, type *v) \
    {                                                                              \
        return __atomic_fetch_##op(&v->counter, i, __ATOMIC_SEQ_CST);              \
    }

LAB_ATOMIC(atomic_t, atomic, int)
LAB_ATOMIC(atomic64_t, atomic64, s64)

#define arch_atomic_xchg(v, new) arch_xchg(&(v)->counter, new)
#define arch_atomic_cmpxchg(v, old, new) arch_cmpxchg(&(v)->counter, old, new)
#define arch_atomic64_xchg(v, new) arch_xchg(&(v)->counter, new)
#define arch_atomic64_cmpxchg(v, old, new) arch_cmpxchg(&(v)->counter, old, new)
#define arch_atomic_add_return arch_atomic_add_return
#define arch_atomic_sub_return arch_atomic_sub_return
#define arch_atomic_fetch_add arch_atomic_fetch_add
#define arch_atomic_fetch_sub arch_atomic_fetch_sub
#define arch_atomic_fetch_and arch_atomic_fetch_and
#define arch_atomic_fetch_or arch_atomic_fetch_or
#define arch_atomic_fetch_xor arch_atomic_fetch_xor
#define arch_atomic64_add_return arch_atomic64_add_return
#define arch_atomic64_sub_return arch_atomic64_sub_return
#define arch_atomic64_fetch_add arch_atomic64_fetch_add
#define arch_atomic64_fetch_sub arch_atomic64_fetch_sub
#define arch_atomic64_fetch_and arch_atomic64_fetch_and
#define arch_atomic64_fetch_or arch_atomic64_fetch_or
#define arch_atomic64_fetch_xor arch_atomic64_fetch_xor

#endif
