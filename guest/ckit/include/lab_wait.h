/* Loops that wait for other CPUs: a part of lab.h that a file can have by itself. */
#ifndef LAB_WAIT_H
#define LAB_WAIT_H

/* Waits until the condition holds. A search that knows where a CPU waits skips turns that find nothing new. So
 * the condition may change nothing but memory, and may not count its turns. */
#define lab_wait_until(condition)                                                  \
    do {                                                                           \
        lab_wait_begin();                                                          \
        while (!(condition))                                                       \
            lab_relax();                                                           \
        lab_wait_end();                                                            \
    } while (0)

void lab_wait_begin(void);
void lab_relax(void); /* one turn; outside of such a loop: pause */
void lab_wait_end(void);

#endif
