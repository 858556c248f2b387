#ifndef LAB_ASM_SMP_H
#define LAB_ASM_SMP_H
#include <lab_machine.h>
struct cpumask;
struct pt_regs;
#define raw_smp_processor_id() ((int)lab_cpu())
void arch_send_call_function_single_ipi(int cpu);
void arch_send_call_function_ipi_mask(const struct cpumask *mask);
#endif
