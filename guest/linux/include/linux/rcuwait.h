/* Nobody sleeps: what would wait spins, in a loop that a search knows. */
#include_next <linux/rcuwait.h>
#ifndef LAB_LINUX_RCUWAIT_H
#define LAB_LINUX_RCUWAIT_H
#define rcuwait_wake_up(waits) ((void)(waits))
#undef rcuwait_wait_event
#define rcuwait_wait_event(waits, condition, state) lab_wait_until(condition)
#endif
