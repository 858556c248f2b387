/* What the two sides of this guest know of each other. `machine.c` is compiled with the kernel's headers, and `deeds.c`
 * with lab.h; both define names that the other has otherwise, so that neither sees the other's. */
#ifndef SMP_LAB_H
#define SMP_LAB_H

#define SMP_LAB_CPUS 64

/* ---- What machine.c offers: the functions of kernel/smp.c and kernel/irq_work.c ---- */

void linux_single_interrupt(void);
void linux_irq_work_interrupt(void);

/* Their results are the kernel's: 0, or an error number below zero. `mask` is a word with a bit for each CPU. */
int linux_single(unsigned int cpu, void (*function)(void *), void *info, int waits);
int linux_async_is_busy(void);
int linux_async(unsigned int cpu, void (*function)(void *), void *info);
void linux_many(unsigned long mask, void (*function)(void *), void *info, int waits);
void linux_all(void (*function)(void *), void *info, int waits);
void linux_each(void (*function)(void *), void *info, int waits);
int linux_any(unsigned long mask, void (*function)(void *), void *info, int waits);
int linux_irq_work_is_busy(void);
void linux_irq_work(unsigned int cpu, void (*function)(void *), void *info);

/* Queues the work that all CPUs share, unless it is pending. */
void linux_shared_work(unsigned int cpu);

/* ---- What deeds.c offers ---- */

enum { CALL_VECTOR = 0xf4, WORK_VECTOR = 0xf3 };

/* The work that all CPUs share. */
void smp_lab_serve(void);
/* The kernel's code warns, at this place of its source. */
void lab_warned(const char *file, int line);

#endif
