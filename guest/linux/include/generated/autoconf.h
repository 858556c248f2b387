/* What of Linux's configuration is set: see ../../README.md. Not CONFIG_X86: then no inline assembly is met, and
 * atomics and barriers are the compiler's, which the hooks see. */
#define CONFIG_SMP 1
#define CONFIG_64BIT 1
#define CONFIG_NR_CPUS 64
#define CONFIG_HOTPLUG_CPU 1
#define CONFIG_IRQ_WORK 1
#define CONFIG_GENERIC_BUG 1
