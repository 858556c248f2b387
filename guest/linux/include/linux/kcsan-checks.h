#ifndef LAB_KCSAN_CHECKS_H
#define LAB_KCSAN_CHECKS_H

#include_next <linux/kcsan-checks.h>

/* For data_race(). */
void lab_data_race_begin(void);
void lab_data_race_end(void);
#undef __kcsan_disable_current
#undef __kcsan_enable_current
#define __kcsan_disable_current() lab_data_race_begin()
#define __kcsan_enable_current() lab_data_race_end()

#endif
