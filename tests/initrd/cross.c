/*
 * Work that crosses CPUs, for a Linux guest: system calls that send IPIs and wait for the answer, with a
 * thread of the same process on every other CPU.
 *
 *   cross membarrier N   N times a memory barrier on all CPUs that run this process
 *                        (kernel/sched/membarrier.c: smp_call_function_many_cond)
 *   cross tlb N          N times a page is unmapped that all have used (arch/x86/mm/tlb.c)
 *
 * Says how many interrupts of each kind every CPU took meanwhile, as the kernel counts them in
 * /proc/interrupts, and then "done".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPUS 1024
#define KINDS 2

static const char *const kinds[KINDS] = { "CAL:", "TLB:" };
static volatile int over;
static volatile int running;

static void die(const char *what)
{
	printf("cross: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void *spin(void *cpu)
{
	pin((int)(long)cpu);
	__atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
	while (!over)
		__builtin_ia32_pause();
	return NULL;
}

/* What the kernel has counted so far, of each kind on each CPU. */
static void count(long counts[KINDS][CPUS])
{
	static char line[16384];
	FILE *file = fopen("/proc/interrupts", "r");

	if (!file)
		die("/proc/interrupts");
	memset(counts, 0, sizeof(long) * KINDS * CPUS);
	while (fgets(line, sizeof(line), file)) {
		char *rest = line + strspn(line, " ");

		for (int kind = 0; kind < KINDS; kind++) {
			if (strncmp(rest, kinds[kind], 4))
				continue;
			rest += 4;
			for (int cpu = 0; cpu < CPUS; cpu++) {
				char *end;
				long value = strtol(rest, &end, 10);

				if (end == rest)
					break;
				counts[kind][cpu] = value;
				rest = end;
			}
		}
	}
	fclose(file);
}

static void membarrier(int command)
{
	if (syscall(SYS_membarrier, command, 0, 0))
		die("membarrier");
}

static void unmap(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		die("mmap");
	*page = 1;
	if (munmap(page, 4096))
		die("munmap");
}

int main(int argc, char **argv)
{
	static long before[KINDS][CPUS], after[KINDS][CPUS];
	static pthread_t threads[CPUS];
	int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	int is_barrier = argc == 3 && !strcmp(argv[1], "membarrier");
	long times = argc == 3 ? atol(argv[2]) : 0;

	if (times < 1 || cpus > CPUS || !(is_barrier || !strcmp(argv[1], "tlb"))) {
		printf("usage: cross membarrier|tlb N\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	pin(0);
	if (is_barrier)
		membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
	for (long cpu = 1; cpu < cpus; cpu++)
		if (pthread_create(&threads[cpu], NULL, spin, (void *)cpu))
			die("pthread_create");
	while (running < cpus - 1)
		sched_yield();
	printf("cross: begins\n");
	count(before);
	for (long time = 0; time < times; time++) {
		if (is_barrier)
			membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
		else
			unmap();
	}
	count(after);
	over = 1;
	for (int cpu = 1; cpu < cpus; cpu++)
		pthread_join(threads[cpu], NULL);
	for (int kind = 0; kind < KINDS; kind++) {
		printf("%s", kinds[kind]);
		for (int cpu = 0; cpu < cpus; cpu++)
			printf(" %ld", after[kind][cpu] - before[kind][cpu]);
		printf("\n");
	}
	printf("done\n");
	return 0;
}
