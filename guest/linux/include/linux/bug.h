#ifndef LAB_LINUX_BUG_H
#define LAB_LINUX_BUG_H
#include <linux/compiler.h>
#include <linux/build_bug.h>
#include <lab_machine.h>
#define WARN_ON(condition)                                                         \
    ({                                                                             \
        int lab_holds = !!(condition);                                             \
        if (unlikely(lab_holds))                                                   \
            lab_warned(__FILE_NAME__, __LINE__);                                   \
        unlikely(lab_holds);                                                       \
    })
#define WARN_ON_ONCE WARN_ON
#define WARN(condition, ...) WARN_ON(condition)
#define WARN_ONCE(condition, ...) WARN_ON(condition)
#define BUG_ON(condition) ((void)WARN_ON(condition))
#define BUG() lab_warned(__FILE_NAME__, __LINE__)
#endif
