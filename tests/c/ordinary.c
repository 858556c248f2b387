/* Ordinary C, for the tests: none of it may be refused when it is built. */
#include <stdatomic.h>

#include "lab.h"

LAB_GUEST("ordinary", "1", "Bit fields, lists, arrays of any length, pointers to functions, and so on");

struct bits {
    unsigned a : 3, b : 7, c : 22;
    long long d : 40;
};
struct list {
    struct list *next;
    int value;
    char name[16];
};

static struct bits bits;
static int (*volatile operation)(int);
static int table[4][5];
static const int constants[] = {3, 1, 4, 1, 5, 9, 2, 6};
static struct list nodes[5], *head;
static long long wide;
static unsigned char bytes[11];

static int twice(int x)
{
    return 2 * x;
}

static int factorial(int n)
{
    return n < 2 ? 1 : n * factorial(n - 1);
}

static void swap(int *a, int *b)
{
    int t = *a;

    *a = *b;
    *b = t;
}

static void sort(int *a, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            if (a[j] < a[i])
                swap(&a[i], &a[j]);
}

static int choose(int x)
{
    switch (x) {
    case 0: return 5;
    case 1: return table[0][1];
    case 2: return 9;
    case 3: return 1;
    case 4: return table[1][1];
    case 5: return 7;
    default: return -1;
    }
}

__attribute__((noinline)) static int of_any_length(int n)
{
    int a[n];

    for (int i = 0; i < n; i++)
        a[i] = constants[i & 7];
    sort(a, n);
    return a[0];
}

LAB_DEED(all, 1, "all", "Does all of it.", LAB_NUMBER)
{
    int n = (int)command->arguments[0], local[8], seen = 0;

    bits.b = n;
    bits.d += 3;
    bits.c ^= bits.a;
    operation = twice;
    table[n & 3][n % 5] += operation(n);
    for (int i = 0; i < 8; i++)
        local[i] = constants[i] * n;
    sort(local, 8);
    nodes[n % 5].next = head;
    head = &nodes[n % 5];
    head->value = local[3];
    memset(head->name, 'a' + n, sizeof head->name);
    wide += choose(n) + factorial(n) + of_any_length(n + 1);
    for (int i = 0; i < 11; i++)
        bytes[i] ^= (unsigned char)(wide >> i);
    for (struct list *at = head; at && seen < 9; at = at->next, seen++)
        wide += at->value;
    asm volatile("" ::: "memory");
    __builtin_ia32_pause();
    return 0;
}
