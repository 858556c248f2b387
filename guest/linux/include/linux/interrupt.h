/* There are no soft interrupts. */
#define local_softirq_pending() 0
#define do_softirq_post_smp_call_flush(was) ((void)(was))
#define do_softirq() ((void)0)
