#ifndef LAB_LINUX_ARRAY_SIZE_H
#define LAB_LINUX_ARRAY_SIZE_H
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#endif
