#ifndef LAB_LINUX_IRQFLAGS_H
#define LAB_LINUX_IRQFLAGS_H
#include <linux/bug.h>
#include <lab_machine.h>
#define irqs_disabled() (!lab_irqs_enabled())
#define local_irq_disable() lab_irqs_disable()
#define local_irq_enable() lab_irqs_enable()
#define local_irq_save(flags)                                                      \
    do {                                                                           \
        (flags) = lab_irqs_enabled();                                              \
        lab_irqs_disable();                                                        \
    } while (0)
#define local_irq_restore(flags)                                                   \
    do {                                                                           \
        if (flags)                                                                 \
            lab_irqs_enable();                                                     \
    } while (0)
#define raw_local_irq_save local_irq_save
#define raw_local_irq_restore local_irq_restore
/* KCSAN and lockdep would say it; so does the bench. */
#define lockdep_assert_irqs_disabled() ((void)WARN_ON(!irqs_disabled()))
#define lockdep_assert_irqs_enabled() ((void)WARN_ON(irqs_disabled()))
#define early_boot_irqs_disabled 0
#endif
