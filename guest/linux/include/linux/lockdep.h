#ifndef LAB_LINUX_LOCKDEP_H
#define LAB_LINUX_LOCKDEP_H
#include <linux/irqflags.h>
#define lockdep_irq_work_enter(flags) ((void)(flags))
#define lockdep_irq_work_exit(flags) ((void)(flags))
#endif
