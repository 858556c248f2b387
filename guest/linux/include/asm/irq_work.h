#ifndef LAB_ASM_IRQ_WORK_H
#define LAB_ASM_IRQ_WORK_H
static inline _Bool arch_irq_work_has_interrupt(void)
{
    return 1;
}
#endif
