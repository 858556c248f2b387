/* What the two sides of this guest know of each other. `machine.c` is compiled with the kernel's headers, and `deeds.c`
 * with lab.h; both define names that the other has otherwise, so that neither sees the other's. */
#ifndef SMP_LAB_H
#define SMP_LAB_H

#define SMP_LAB_CPUS 64
#define SMP_LAB_TASKS 8

/* ---- What machine.c offers: the functions of kernel/smp.c and kernel/irq_work.c ---- */

void linux_single_interrupt(void);
void linux_irq_work_interrupt(void);

/* Their results are the kernel's: 0, or an error number below zero. `mask` is a word with a bit for each CPU. */
int linux_single(unsigned int cpu, void (*function)(void *), void *info, int waits);
int linux_async_is_busy(void);
int linux_async(unsigned int cpu, void (*function)(void *), void *info);
/* Returns which CPUs have not left the mask meanwhile. */
unsigned long linux_many(unsigned long mask, void (*function)(void *), void *info, int waits);
void linux_all(void (*function)(void *), void *info, int waits);
void linux_each(void (*function)(void *), void *info, int waits);
int linux_any(unsigned long mask, void (*function)(void *), void *info, int waits);
/* Calls those of these CPUs of which smp_lab_condition() says yes, and returns which. It is asked about `asked`. */
unsigned long linux_cond(unsigned long mask, void (*function)(void *), void *info, int waits, unsigned long *asked);
/* To which of these CPUs this CPU's last call to several was made, which had this argument. */
unsigned long linux_called(unsigned long among, void *info);
/* Takes this CPU out of the mask with which another one calls many. */
void linux_leave_mask(unsigned int cpu);
int linux_irq_work_is_busy(void);
void linux_irq_work(unsigned int cpu, void (*function)(void *), void *info);

/* Calls with this CPU's descriptor that always has the same function, smp_lab_serve(). */
int linux_fixed_async(unsigned int cpu);

/* Queues the work that all CPUs share, unless it is pending. */
void linux_shared_work(unsigned int cpu);

/* ---- What hotplug.c offers ---- */

int linux_cpu_down(unsigned int cpu);
int linux_cpu_up(unsigned int cpu);
/* Whether all CPUs stop while one leaves, whether one that comes is online before it has started, and whether an IPI
 * can come later than a stop that has begun after it was sent. */
void linux_set_hotplug(int stops, int is_online_first, int ipis_can_be_late);
/* As in struct lab_hotplug. */
void linux_cpu_starts(void);
_Bool linux_between(void);
_Bool linux_is_wanted(void);
unsigned long linux_online(unsigned int word);

/* ---- What wakeup.c offers ---- */

/* Whether this task sleeps, so that the caller is the one who wakes it, on this CPU, by linux_wake(). */
int linux_begin_wake(unsigned int task);
void linux_wake(unsigned int task, unsigned int cpu, void *call);

/* ---- What machine.c offers hotplug.c ---- */

/* smpcfd_prepare_cpu() */
int linux_prepare_cpu(unsigned int cpu);

/* ---- What deeds.c and objects.c offer ---- */

/* The condition of this CPU's conditional call. */
_Bool smp_lab_condition(unsigned int cpu);
/* Whether this CPU's task holds a spin lock. */
_Bool smp_lab_holds_locks(void);
/* Memory is freed of which a part is in use: that for calls to this CPU. */
void smp_lab_freed_in_use(unsigned int cpu);

enum { CALL_VECTOR = 0xf4, WORK_VECTOR = 0xf3, TIMER_VECTOR = 0xf2 };

/* The function of a call, whose id is `call`, and what a task does that is woken: enters in the ledger that it has run. */
void smp_lab_runs(void *call);
/* Serves all wishes. */
void smp_lab_serve(void);
/* The kernel's code warns, at this place of its source. */
void lab_warned(const char *file, int line);

/* ---- What points.c offers: points of a trace ---- */

void smp_lab_call_begins(unsigned long call);
void smp_lab_call_ends(unsigned long call);
void smp_lab_call_runs(unsigned long call);

#endif
