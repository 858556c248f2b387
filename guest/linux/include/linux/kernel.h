#ifndef LAB_LINUX_KERNEL_H
#define LAB_LINUX_KERNEL_H
#include <linux/align.h>
#include <linux/array_size.h>
#include <linux/container_of.h>
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/typecheck.h>
#include <linux/types.h>
#include <linux/compiler.h>
#include <linux/bitops.h>
#include <linux/printk.h>
#include <linux/processor.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <vdso/time64.h>
#define might_sleep() ((void)0)
#define oops_in_progress 0
int get_option(char **text, void *number);
#endif
