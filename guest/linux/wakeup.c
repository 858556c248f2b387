/* The part of the scheduler that is woken over the queue of calls (kernel/sched/core.c: ttwu_queue_wakelist() and
 * sched_ttwu_pending()), with tasks that do one thing each time they are woken, and sleep again. Compiled with the
 * kernel's headers. */
#include <linux/percpu.h>
#include <linux/smp.h>
#include <linux/sched.h>

#include "smp_lab.h"

enum { SLEEPS, IS_WAKING };

static struct task {
    struct __call_single_node wake_entry;
    atomic_t state;
    void *call; /* what it does when it is woken */
} tasks[SMP_LAB_TASKS];

/* try_to_wake_up(): of several that wake a task, one does. */
int linux_begin_wake(unsigned int number)
{
    return atomic_cmpxchg(&tasks[number].state, SLEEPS, IS_WAKING) == SLEEPS;
}

/* __ttwu_queue_wakelist() */
void linux_wake(unsigned int number, unsigned int cpu, void *call)
{
    struct task *task = &tasks[number];

    task->call = call;
    task->wake_entry.u_flags = CSD_TYPE_TTWU;
    __smp_call_single_queue(cpu, &task->wake_entry.llist);
}

void sched_ttwu_pending(void *list)
{
    struct task *task, *next;

    if (irqs_disabled() == 0)
        WARN_ON(1);
    llist_for_each_entry_safe(task, next, (struct llist_node *)list, wake_entry.llist) {
        smp_lab_runs(task->call);
        /* Whoever finds that it sleeps can wake it again. */
        atomic_set_release(&task->state, SLEEPS);
    }
}
