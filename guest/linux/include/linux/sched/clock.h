#include <lab_machine.h>
#define sched_clock() lab_timestamp()
