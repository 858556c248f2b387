/* The machine for `make designs`: the kernel's files as a library on the host, whose CPUs are those of the program that
 * loads it (guest/examples/designs), which hears of every access. In the place of deeds.c and of the C kit; what a
 * kernel's file calls goes to the program by one table. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smp_lab.h"

/* As `Machine` in guest/examples/designs/linux.rs. */
struct census {
    uint32_t (*cpu)(void);
    bool (*in_handler)(void);
    bool (*irqs_enabled)(void);
    void (*set_irqs)(bool enabled);
    void (*send)(uint32_t cpu, uint32_t vector);
    void (*relax)(void);
    void (*heard)(uint32_t kind, uintptr_t address);
    void (*warned)(const char *where, uint32_t line);
};

static const struct census *census;

void census_begins(const struct census *the_program)
{
    census = the_program;
}

/* Bytes that the path keeps for a CPU: its queue, what it has for its calls to many, and a descriptor for each CPU. */
unsigned long census_bytes = CENSUS_BYTES;

unsigned int lab_cpus(void)
{
    return CENSUS_CPUS;
}

/* Constructors run before the program has begun, on CPU 0. */
unsigned int lab_cpu(void)
{
    return census ? census->cpu() : 0;
}

_Bool lab_in_handler(void)
{
    return census && census->in_handler();
}

_Bool lab_irqs_enabled(void)
{
    return census && census->irqs_enabled();
}

void lab_irqs_disable(void)
{
    census->set_irqs(false);
}

void lab_irqs_enable(void)
{
    census->set_irqs(true);
}

unsigned long long lab_timestamp(void)
{
    return 0;
}

void lab_send_ipi(unsigned int cpu, unsigned int vector)
{
    census->send(cpu, vector);
}

void lab_wait_begin(void)
{
}

void lab_relax(void)
{
    census->relax();
}

void lab_wait_end(void)
{
}

void lab_print(const char *text)
{
    lab_warned(text, 0);
}

void lab_warned(const char *file, int line)
{
    if (census)
        census->warned(file, line);
}

unsigned int lab_cpus_at_boot(void)
{
    return CENSUS_CPUS;
}

void smp_lab_serve(void)
{
}

void smp_lab_wait_begins(void)
{
}

void smp_lab_wait_ends(void)
{
}

/* ---- What only deeds come to that are not counted ---- */

_Bool smp_lab_condition(unsigned int cpu)
{
    return false;
}

void smp_lab_freed_in_use(unsigned int cpu)
{
}

void sched_ttwu_pending(void *list)
{
}

/* ---- The compiler's hooks, as in guest/ckit/src/hooks.rs. What they announce has a number in linux.rs ---- */

enum { LOAD, STORE, READ_MODIFY_WRITE, FENCE };

static void heard(uint32_t kind, const volatile void *address)
{
    if (census)
        census->heard(kind, (uintptr_t)address);
}

#define HOOKS(size)                                                                \
    void __tsan_read##size(void *at) { heard(LOAD, at); }                          \
    void __tsan_write##size(void *at) { heard(STORE, at); }                        \
    void __tsan_volatile_read##size(void *at) { heard(LOAD, at); }                 \
    void __tsan_volatile_write##size(void *at) { heard(STORE, at); }

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)

void __tsan_write_range(void *at, size_t size)
{
    for (size_t done = 0; done < size; done += 8)
        heard(STORE, (char *)at + done);
}

void __tsan_read_range(void *at, size_t size)
{
    for (size_t done = 0; done < size; done += 8)
        heard(LOAD, (char *)at + done);
}

void __tsan_init(void) {}
void __tsan_func_entry(void *caller) {}
void __tsan_func_exit(void) {}

/* Only one that is sequentially consistent is an instruction on x86. */
void __tsan_atomic_thread_fence(int order)
{
    if (order == __ATOMIC_SEQ_CST)
        heard(FENCE, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#define OPERATION(bits, operation)                                                 \
    uint##bits##_t __tsan_atomic##bits##_##operation(uint##bits##_t *at, uint##bits##_t value, int order) \
    {                                                                              \
        heard(READ_MODIFY_WRITE, at);                                              \
        return __atomic_##operation(at, value, __ATOMIC_SEQ_CST);                  \
    }

#define __atomic_exchange __atomic_exchange_n

#define ATOMICS(bits)                                                              \
    OPERATION(bits, exchange)                                                      \
    OPERATION(bits, fetch_add)                                                     \
    OPERATION(bits, fetch_sub)                                                     \
    OPERATION(bits, fetch_and)                                                     \
    OPERATION(bits, fetch_or)                                                      \
    OPERATION(bits, fetch_xor)                                                     \
    int __tsan_atomic##bits##_compare_exchange_strong(uint##bits##_t *at, uint##bits##_t *old, uint##bits##_t new, \
                                                      int order, int failed)       \
    {                                                                              \
        heard(READ_MODIFY_WRITE, at);                                              \
        return __atomic_compare_exchange_n(at, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }

ATOMICS(32)
ATOMICS(64)
