#ifndef LAB_LINUX_SCHED_H
#define LAB_LINUX_SCHED_H
#include <linux/preempt.h>
#include <linux/irqflags.h>
#include <linux/lockdep.h>
#include <linux/processor.h>
#include <linux/rcupdate.h>
#include <linux/topology.h>
struct task_struct;
void sched_ttwu_pending(void *list);
void wake_up_if_idle(int cpu);
/* Threads do irq_work only on PREEMPT_RT. */
#define sched_set_fifo_low(task) ((void)(task))
#define wake_up_process(task) ((void)(task))
#define dump_cpu_task(cpu) ((void)(cpu))
#define dump_stack() ((void)0)
#endif
