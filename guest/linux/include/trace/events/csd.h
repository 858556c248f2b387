#ifndef LAB_TRACE_CSD_H
#define LAB_TRACE_CSD_H
#define trace_csd_queue_cpu(...) ((void)0)
#define trace_csd_queue_cpu_enabled() 0
#define trace_csd_function_entry(...) ((void)0)
#define trace_csd_function_exit(...) ((void)0)
#endif
