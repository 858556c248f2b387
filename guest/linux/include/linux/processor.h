#ifndef LAB_LINUX_PROCESSOR_H
#define LAB_LINUX_PROCESSOR_H
#include <lab_machine.h>
#define cpu_relax() lab_relax()
#endif
