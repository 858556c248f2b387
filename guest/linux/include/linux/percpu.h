#ifndef LAB_LINUX_PERCPU_H
#define LAB_LINUX_PERCPU_H
#include <linux/cache.h>
#include <linux/types.h>
#include <linux/preempt.h>
struct pt_regs;
struct task_struct;
#include <linux/smp.h>
#include <linux/percpu-defs.h>
void __percpu *__alloc_percpu(size_t size, size_t align);
void free_percpu(void __percpu *variable);
#define alloc_percpu(type) ((typeof(type) __percpu *)__alloc_percpu(sizeof(type), __alignof__(type)))
#include <asm/percpu.h>
#endif
