/* A CPU does one thing: nothing preempts it but interrupts. */
#ifndef LAB_LINUX_PREEMPT_H
#define LAB_LINUX_PREEMPT_H
#include <lab_machine.h>
#define preempt_disable() __asm__ __volatile__("" ::: "memory")
#define preempt_enable() __asm__ __volatile__("" ::: "memory")
#define preempt_disable_notrace preempt_disable
#define preempt_enable_notrace preempt_enable
#define in_task() (!lab_in_handler())
#define in_hardirq() lab_in_handler()
#define in_nmi() 0
#define lockdep_assert_preemption_disabled() ((void)0)
#endif
