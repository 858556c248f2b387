#ifndef LAB_ASM_BITSPERLONG_H
#define LAB_ASM_BITSPERLONG_H
#define __BITS_PER_LONG 64
#include <asm-generic/bitsperlong.h>
#endif
