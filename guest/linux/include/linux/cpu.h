#ifndef LAB_LINUX_CPU_H
#define LAB_LINUX_CPU_H
#include <linux/cpumask.h>
#include <linux/smp.h>
#include <linux/topology.h>
#include <linux/workqueue.h>
/* No machine boots by smp_init() here. */
#define bringup_nonboot_cpus(most) ((void)(most))
#define smp_cpus_done(most) ((void)(most))
#endif
