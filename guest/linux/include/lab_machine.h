/* What of lab.h the kernel's headers need here: lab.h itself stays outside, since both define such names as bool. */
#ifndef LAB_MACHINE_H
#define LAB_MACHINE_H

#include <lab_wait.h>

unsigned int lab_cpu(void);
unsigned int lab_cpus(void);
_Bool lab_in_handler(void);
_Bool lab_irqs_enabled(void);
void lab_irqs_disable(void);
void lab_irqs_enable(void);
unsigned long long lab_timestamp(void);
void lab_print(const char *text);
_Noreturn void abort(void);
void lab_send_ipi(unsigned int cpu, unsigned int vector);
unsigned int lab_cpus_at_boot(void);
_Bool lab_start_cpu(unsigned int cpu);
void lab_wake(unsigned int cpu);

/* This CPU waits for a csd, and no longer (points.c). */
void smp_lab_wait_begins(void);
void smp_lab_wait_ends(void);

/* The kernel's code warns, at this place of its source (deeds.c). */
void lab_warned(const char *file, int line);

#endif
