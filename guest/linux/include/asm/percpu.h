/* Each CPU's variables are a copy of one section, at a fixed distance: where they are is known without a look at
 * memory. */
#ifndef LAB_ASM_PERCPU_H
#define LAB_ASM_PERCPU_H
#include <lab_machine.h>

#define LAB_PER_CPU_BYTES 8192
extern char lab_per_cpu_area[][LAB_PER_CPU_BYTES];
extern char lab_percpu_start[], lab_percpu_end[]; /* guest/image.ld */

#define PER_CPU_BASE_SECTION "lab_percpu"
#define per_cpu_offset(cpu)                                                        \
    ((unsigned long)lab_per_cpu_area + (cpu) * (unsigned long)LAB_PER_CPU_BYTES -  \
     (unsigned long)lab_percpu_start)
/* The generic header then does without its table of offsets. */
#define __per_cpu_offset per_cpu_offset
#define __my_cpu_offset per_cpu_offset(lab_cpu())

#include <asm-generic/percpu.h>

#undef PER_CPU_SHARED_ALIGNED_SECTION
#define PER_CPU_SHARED_ALIGNED_SECTION ""
#undef PER_CPU_ALIGNED_SECTION
#define PER_CPU_ALIGNED_SECTION ""
#undef PER_CPU_FIRST_SECTION
#define PER_CPU_FIRST_SECTION ""
#endif
