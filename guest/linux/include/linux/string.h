#ifndef LAB_LINUX_STRING_H
#define LAB_LINUX_STRING_H
#include <linux/types.h>
void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int strcmp(const char *left, const char *right);
int memcmp(const void *left, const void *right, size_t length);
#endif
