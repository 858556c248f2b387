/* A grace period is only waited for where threads run irq_work (PREEMPT_RT). */
#ifndef LAB_LINUX_RCUPDATE_H
#define LAB_LINUX_RCUPDATE_H
/* Which 6.1 has not got. */
#if __has_include(<linux/cleanup.h>)
#include <linux/cleanup.h>
#endif
#include <linux/compiler.h>
#include <asm/barrier.h>
#define current ((struct task_struct *)0)
#define rcu_read_lock() ((void)0)
#define rcu_read_unlock() ((void)0)
#define synchronize_rcu() ((void)0)
#define rcu_access_pointer(pointer) READ_ONCE(pointer)
#define rcu_assign_pointer(pointer, value) smp_store_release(&(pointer), value)
#ifdef DEFINE_LOCK_GUARD_0
DEFINE_LOCK_GUARD_0(rcu, rcu_read_lock(), rcu_read_unlock())
#endif
#endif
