/* Nobody sleeps: what would wait spins, in a loop that a search knows. */
#include_next <linux/rcuwait.h>
#ifndef LAB_LINUX_RCUWAIT_H
#define LAB_LINUX_RCUWAIT_H
#define rcuwait_wake_up(waits) ((void)(waits))
#undef rcuwait_wait_event
#define rcuwait_wait_event(waits, condition, state)                                \
    do {                                                                           \
        lab_wait_begin();                                                          \
        while (!(condition))                                                       \
            lab_relax();                                                           \
        lab_wait_end();                                                            \
    } while (0)
#endif
