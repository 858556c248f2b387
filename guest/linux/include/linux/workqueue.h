/* There are no threads that could do work: smp_call_on_cpu() is refused, by a warning. */
#ifndef LAB_LINUX_WORKQUEUE_H
#define LAB_LINUX_WORKQUEUE_H
#include <linux/bug.h>
struct work_struct {
    void (*does)(struct work_struct *);
};
struct completion {
    int is_done;
};
#define COMPLETION_INITIALIZER_ONSTACK(name) { 0 }
#define INIT_WORK_ONSTACK(work, function) ((work)->does = (function))
#define system_wq 0
#define queue_work_on(cpu, queue, work) BUG()
#define wait_for_completion(completion) ((void)(completion))
#define complete(completion) ((completion)->is_done = 1)
#define destroy_work_on_stack(work) ((void)(work))
#define hypervisor_pin_vcpu(cpu) ((void)(cpu))
#endif
