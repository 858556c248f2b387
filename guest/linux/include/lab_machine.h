/* What of lab.h the kernel's headers need here: lab.h itself stays outside, since both define such names as bool. */
#ifndef LAB_MACHINE_H
#define LAB_MACHINE_H

unsigned int lab_cpu(void);
unsigned int lab_cpus(void);
_Bool lab_in_handler(void);
_Bool lab_irqs_enabled(void);
void lab_irqs_disable(void);
void lab_irqs_enable(void);
void lab_wait_begin(void);
void lab_relax(void);
void lab_wait_end(void);
unsigned long long lab_timestamp(void);
void lab_print(const char *text);
_Noreturn void abort(void);

/* What machine.c does. */
void lab_warned(const char *file, int line);

#endif
