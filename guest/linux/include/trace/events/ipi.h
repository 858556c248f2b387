#ifndef LAB_TRACE_IPI_H
#define LAB_TRACE_IPI_H
#define trace_ipi_send_cpu(...) ((void)0)
#define trace_ipi_send_cpu_enabled() 0
#define trace_ipi_send_cpumask(...) ((void)0)
#define trace_ipi_raise(...) ((void)0)
#endif
