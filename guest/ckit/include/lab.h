/* The lab, for guests in C: docs/guests-in-c.md shows how a C file becomes one.
 *
 * What a file says of its guest (LAB_GUEST, LAB_DEED, LAB_ORACLE, …) stands at file level; the macros make a
 * record of the image's manifest of it (shared/src/manifest.rs), and enter functions in the table by which the
 * runtime finds them. Texts must fit into a record: names 32 bytes, sentences 256. Names are made of small
 * letters, digits and `-`; of counters `_`. The functions can be called by deeds, handlers and judges. */
#ifndef LAB_H
#define LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CPUs of the largest machine that LAB_PER_CPU has room for. vmm takes up to 1024; `races` up to 64. */
#ifndef LAB_CPUS
#define LAB_CPUS 64
#endif

/* ---- The manifest ---- */

struct lab_record {
    uint32_t version, kind, number, role, flags;
    uint8_t arguments[4];
    uint32_t total, whole;
    char name[32], group[32], key[32], metric[48], phrase[80], text[256];
} __attribute__((aligned(8)));

_Static_assert(sizeof(struct lab_record) == 512, "shared/src/manifest.rs");

struct lab_entry {
    uint64_t kind, number;
    const void *first, *second;
};

#define LAB_JOIN_(a, b) a##b
#define LAB_JOIN(a, b) LAB_JOIN_(a, b)
#define LAB_UNIQUE(name) LAB_JOIN(name, __COUNTER__)
#define LAB_RECORD_(...)                                                           \
    __attribute__((used, section(".manifest"))) static const struct lab_record     \
        LAB_UNIQUE(lab_record_) = {.version = 1, __VA_ARGS__}
#define LAB_ENTRY_(...)                                                            \
    __attribute__((used, section("lab_entries"))) static const struct lab_entry    \
        LAB_UNIQUE(lab_entry_) = {__VA_ARGS__}

/* The guest itself. Exactly once. */
#define LAB_GUEST(its_name, its_version, what_it_is)                               \
    LAB_RECORD_(.kind = 1, .name = its_name, .key = its_version, .text = what_it_is); \
    LAB_RECORD_(.kind = 9, .role = 1, .text = "guest-in-c/")

/* ---- Deeds: what a CPU can be told ---- */

/* What an argument is. */
enum { LAB_CPU = 1, LAB_CPU_SET = 2, LAB_NUMBER = 3, LAB_CHOICE = 4 };

struct lab_command {
    uint64_t arguments[4]; /* by position; a set of CPUs is in `cpus` */
    uint64_t cpus[16];     /* 64 to a word */
    uint32_t waits;
    uint32_t program; /* the number of what stood in braces behind it, or 0 */
};

/* LAB_DEED(function, 1, "name", "Does this.", LAB_NUMBER) { … return 0; }
 * The number is the guest's own, from 1 to 65535, each once. A case, a script and `vmm ctl` tell a CPU the deed
 * by its name.  The body finds `command`; a result below zero refuses the command. It says why, if it is -5, -6, -12, -16, -22
 * or -95, as Linux numbers errors. */
#define LAB_DEED(function, its_number, its_name, what_it_does, ...)                \
    LAB_DEED_WITH(function, its_number, its_name, "", 0, what_it_does, __VA_ARGS__)

/* The same, with another name too, and with what more is to be known of it, or 0: that its command can say `wait`
 * (LAB_MAY_WAIT, in `command->waits`); that it makes a call to just the CPUs that it is told, and enters it in the
 * ledger (LAB_ENTERS_CALL); that deeds can stand in braces behind it (LAB_TAKES_PROGRAM, in `command->program`), for
 * lab_do_program() to do, and that it can stand in braces itself (LAB_IN_HANDLER). */
enum { LAB_MAY_WAIT = 1, LAB_IN_HANDLER = 2, LAB_TAKES_PROGRAM = 32, LAB_ENTERS_CALL = 64 };

#define LAB_DEED_WITH(function, its_number, its_name, other_name, its_flags, what_it_does, ...) \
    LAB_RECORD_(.kind = 6, .number = its_number, .flags = 8 /* in cases */ | (its_flags), \
                .arguments = {__VA_ARGS__}, .name = its_name, .key = other_name,   \
                .text = what_it_does);                                             \
    static int64_t function(const struct lab_command *command);                    \
    LAB_ENTRY_(1, its_number, (const void *)function, 0);                          \
    static int64_t function(const struct lab_command *command __attribute__((unused)))

/* Does what stood in braces, one deed after the other, on this CPU: in the function of a call, or the handler of an
 * interrupt. `refused` is told each result below zero. */
void lab_do_program(uint32_t program, void (*refused)(int64_t result));

/* LAB_JUDGE(function) { … lab_report(…); }
 * Is called once at the end, when nothing is in flight. */
#define LAB_JUDGE(function)                                                        \
    static void function(void);                                                    \
    LAB_ENTRY_(6, 0, (const void *)function, 0);                                   \
    static void function(void)

/* ---- CPUs that leave and come ---- */

struct lab_hotplug {
    void (*starts)(void);              /* this CPU has started, with interrupts off */
    bool (*between)(void);             /* between two commands, interrupts on: whether this CPU has gone offline, and
                                          has its interrupts off. It then returns only to `starts` */
    bool (*is_wanted)(void);           /* whether `between` has something to do, so that this CPU must not sleep */
    uint64_t (*online)(uint32_t word); /* the CPUs that are online, 64 to a word */
};

/* LAB_HOTPLUG(starts, between, is_wanted, online): CPUs of this guest can go offline and come back. Once at most. The
 * guest then takes the word maxcpus=, and only so many CPUs start at boot. */
#define LAB_HOTPLUG(...)                                                           \
    LAB_RECORD_(.kind = 4, .role = 1, .name = "maxcpus",                           \
                .text = "How many CPUs are started at boot. The others can be brought online."); \
    LAB_RECORD_(.kind = 7, .number = 62, .role = 7, .flags = 1, .total = 1, .name = "cpus_taken_down", \
                .group = "hotplug", .key = "taken_down", .metric = "cpus_taken_down_total", \
                .phrase = "{} times down", .text = "Times a CPU was taken offline.");  \
    LAB_RECORD_(.kind = 7, .number = 63, .role = 1, .flags = 1, .total = 1, .name = "cpus_brought_up", \
                .group = "hotplug", .key = "brought_up", .metric = "cpus_brought_up_total", \
                .phrase = "{} times up", .text = "Times a CPU was brought online, after the boot."); \
    static const struct lab_hotplug lab_hotplug = {__VA_ARGS__};                   \
    LAB_ENTRY_(7, 0, &lab_hotplug, 0)

uint32_t lab_cpus_at_boot(void);  /* how many CPUs are started at boot */
bool lab_start_cpu(uint32_t cpu); /* starts one that is offline, by INIT and start-up IPI: whether it has started */
void lab_wake(uint32_t cpu);      /* has it look at `is_wanted`, if it sleeps */

/* ---- Oracles: what the guest watches ---- */

/* LAB_ORACLE(NAME, 1, "name", "left this broken"): a property, with a number from 1 to 27, and what went wrong
 * if it is reported, as a clause without a subject. */
#define LAB_ORACLE(name_in_c, its_number, its_name, what_went_wrong)               \
    enum { name_in_c = its_number };                                               \
    LAB_RECORD_(.kind = 8, .number = its_number, .name = its_name, .text = what_went_wrong)

/* Reports that the property does not hold, of a call or 0, with a number that says what was seen. */
void lab_report(uint32_t oracle, uint64_t call, uint64_t seen);

/* ---- Counters ---- */

/* LAB_COUNTER(NAME, 0, "name", "What is counted."): a counter that each CPU has, 0 to 29. */
#define LAB_COUNTER(name_in_c, its_number, its_name, what_it_counts)               \
    LAB_COUNTER_OF(name_in_c, its_number, 1, its_name, what_it_counts)

/* One by which vmm tells how far a workload is: LAB_PLANNED, to which each CPU adds its share when it begins, and
 * LAB_DONE, what it has done of it. */
enum { LAB_PLANNED = 8, LAB_DONE = 9 };

#define LAB_COUNTER_OF(name_in_c, its_number, its_role, its_name, what_it_counts)  \
    enum { name_in_c = 32 + its_number };                                          \
    LAB_RECORD_(.kind = 7, .number = 32 + its_number, .role = its_role, .total = 1, \
                .name = its_name, .text = what_it_counts)

void lab_count(uint32_t counter, uint64_t amount);

/* ---- Words of the command line ---- */

/* LAB_WORD(variable, "key", "What it decides."): the key, and a variable with the number of the value that was
 * chosen; 0 unless the command line says otherwise. */
#define LAB_WORD(variable, its_key, what_it_decides)                               \
    static uint32_t variable;                                                      \
    LAB_WORD_(variable, its_key, what_it_decides)

/* The same, where LAB_DEFAULTS chooses unless the command line says it: the number is LAB_UNSET_WORD until then. */
#define LAB_UNSET_WORD UINT32_MAX

#define LAB_WORD_BY_DEFAULTS(variable, its_key, what_it_decides)                   \
    static uint32_t variable = LAB_UNSET_WORD;                                     \
    LAB_WORD_(variable, its_key, what_it_decides)

#define LAB_WORD_(variable, its_key, what_it_decides)                              \
    LAB_RECORD_(.kind = 4, .role = 1, .name = its_key, .text = what_it_decides);   \
    LAB_ENTRY_(3, 0, its_key, &variable)

/* A value of such a key, and its number: 0, 1, … */
#define LAB_VALUE(its_key, its_number, its_name)                                   \
    LAB_RECORD_(.kind = 5, .number = its_number, .name = its_name, .group = its_key); \
    LAB_ENTRY_(4, its_number, its_key, its_name)

/* One that is broken on purpose. */
#define LAB_BROKEN_VALUE(its_key, its_number, its_name)                            \
    LAB_RECORD_(.kind = 5, .number = its_number, .flags = 1, .name = its_name, .group = its_key); \
    LAB_ENTRY_(5, its_number, its_key, its_name)

/* ---- Workloads: what CPUs do by themselves, instead of what they are told ---- */

/* LAB_WORKLOADS(2, ""): once, in a guest that has any: it takes `workload=`, of which `puppet`, with this number, has
 * its CPUs do what they are told. A search sets that; `vmm bench` sets what is named last, if it is not "". The value
 * 0 is taken unless the command line says otherwise. */
#define LAB_WORKLOADS(puppet, bench)                                               \
    static uint32_t lab_workload;                                                  \
    LAB_RECORD_(.kind = 4, .number = sizeof(bench) > 1, .role = 2, .name = "workload", .group = bench, \
                .key = "puppet", .phrase = "in which the case says what each CPU does (workload=puppet)", \
                .text = "What the CPUs do.");                                      \
    LAB_ENTRY_(3, 0, "workload", &lab_workload);                                   \
    LAB_VALUE("workload", puppet, "puppet")

/* LAB_WORKLOAD(function, 0, "selftest") { … }
 * A value of it. Each CPU calls the function once, with interrupts enabled. When all have returned and all interrupts
 * have been taken, the judges look, and the run is over. */
#define LAB_WORKLOAD(function, its_number, its_name)                               \
    LAB_WORKLOAD_(11, function, its_number, its_name)

/* The same, but that the run is over, and what is counted ends, as soon as CPU 0 has returned, which it may only do when
 * nothing is under way. */
#define LAB_BENCH(function, its_number, its_name)                                  \
    LAB_WORKLOAD_(12, function, its_number, its_name)

#define LAB_WORKLOAD_(entry, function, its_number, its_name)                       \
    LAB_VALUE("workload", its_number, its_name);                                   \
    static void function(void);                                                    \
    LAB_ENTRY_(entry, its_number, (const void *)function, 0);                      \
    static void function(void)

/* A word that decides something in these workloads only, LAB_IN(0) | LAB_IN(2), and nothing in a search; otherwise as
 * LAB_WORD. What a bench does with it is a number of docs/manifest.md (Words in a bench), or 0. */
#define LAB_IN(workload) (1u << (workload))

#define LAB_WORKLOAD_KEY_(its_key, measure, what_it_decides)                       \
    LAB_RECORD_(.kind = 4, .number = measure, .role = 3, .name = its_key,          \
                .phrase = "in which the case says what each CPU does and how often", .text = what_it_decides)

#define LAB_WORKLOAD_WORD(variable, workloads, measure, its_key, what_it_decides)  \
    static uint32_t variable;                                                      \
    LAB_WORKLOAD_KEY_(its_key, measure, what_it_decides);                          \
    LAB_ENTRY_(3, workloads, its_key, &variable)

/* One whose value is a number, which is LAB_UNSET until somebody says it; and one whose value is a time, such as 3s,
 * in milliseconds. */
#define LAB_UNSET UINT64_MAX

#define LAB_WORKLOAD_NUMBER(variable, workloads, measure, its_key, what_it_decides) \
    static uint64_t variable = LAB_UNSET;                                          \
    LAB_WORKLOAD_KEY_(its_key, measure, what_it_decides);                          \
    LAB_ENTRY_(13, workloads, its_key, &variable)

#define LAB_WORKLOAD_TIME(variable, workloads, its_key, what_it_decides)           \
    static uint64_t variable = LAB_UNSET;                                          \
    LAB_WORKLOAD_KEY_(its_key, 0, what_it_decides);                                \
    LAB_ENTRY_(14, workloads, its_key, &variable)

/* LAB_DEFAULTS(function) { if (calls == LAB_UNSET) calls = 64 / cpus; return 0; }
 * Chooses for so many CPUs what the command line does not say, so that the report says it. Or it returns a sentence on
 * what is wrong with that line, and the run is refused. It can call no function of this file. */
#define LAB_DEFAULTS(function)                                                     \
    static const char *function(uint32_t cpus);                                    \
    LAB_ENTRY_(15, 0, (const void *)function, 0);                                  \
    static const char *function(uint32_t cpus __attribute__((unused)))

/* Waits until all CPUs that were started at boot have come here, asleep. Only in a workload, and only for those. */
void lab_barrier(void);

/* Whether this CPU has now gone offline, by `between` of LAB_HOTPLUG. A workload asks between two things that it does,
 * with interrupts enabled. If so, its function returns at once, and is called again when the CPU has come back. */
bool lab_goes_offline(void);

/* Sleeps until that is true, with interrupts enabled. It is looked at behind each interrupt. */
void lab_sleep_until(bool (*done)(void));

/* The next of numbers that look random, by a state that can begin with any number. */
uint64_t lab_random(uint64_t *state);

/* The warm-up is over: a bench counts from here on (docs/manifest.md, Words in a bench). */
void lab_warmed_up(void);

/* ---- CPUs, interrupts ---- */

uint32_t lab_cpu(void);    /* the CPU that runs this, from 0; constructors run on CPU 0 */
uint32_t lab_cpus(void);   /* how many there are */
bool lab_in_handler(void); /* whether an interrupt handler runs this */

/* A variable that each CPU has: LAB_PER_CPU(struct queue, queues). */
#define LAB_PER_CPU(type, name) type name[LAB_CPUS]

bool lab_irqs_enabled(void);
void lab_irqs_disable(void);
void lab_irqs_enable(void);

static inline bool lab_irqs_save(void)
{
    bool were_enabled = lab_irqs_enabled();
    lab_irqs_disable();
    return were_enabled;
}

static inline void lab_irqs_restore(bool were_enabled)
{
    if (were_enabled)
        lab_irqs_enable();
}

/* Takes every interrupt that is pending at this CPU, whose interrupts are enabled. */
void lab_take_pending(void);

/* LAB_VECTOR(NAME, 0xf2, "name", "What it is for.") { … }
 * A vector from 0xf2 to 0xf9, and its handler, which runs with interrupts disabled. */
#define LAB_VECTOR(name_in_c, its_number, its_name, what_it_is_for)                \
    LAB_VECTOR_OF(name_in_c, its_number, 1, its_name, what_it_is_for)

/* One that is sent only to measure what an IPI costs: LAB_VECTOR_OF(NAME, 0xf2, LAB_MEASURED, "name", "…") { … } */
enum { LAB_MEASURED = 4 };

#define LAB_VECTOR_OF(name_in_c, its_number, its_role, its_name, what_it_is_for)   \
    enum { name_in_c = its_number };                                               \
    LAB_RECORD_(.kind = 2, .number = its_number, .role = its_role, .name = its_name, .text = what_it_is_for); \
    static void LAB_JOIN(lab_handler_, name_in_c)(void);                           \
    LAB_ENTRY_(2, its_number, (const void *)LAB_JOIN(lab_handler_, name_in_c), 0); \
    static void LAB_JOIN(lab_handler_, name_in_c)(void)

/* Sends an IPI. Earlier stores are visible to its handler. */
void lab_send_ipi(uint32_t cpu, uint32_t vector);
/* The same, to these CPUs, 64 to a word, in as few operations as the transport has for them. */
void lab_send_ipis(const uint64_t *cpus, uint32_t vector);
/* The same, which tells of a call of the ledger. */
void lab_announce(uint32_t cpu, uint32_t vector, uint64_t call);

/* ---- Data races ---- */

/* The value of an expression whose plain accesses may race with others, as the kernel's data_race(): a search does not
 * report them (vmm explore --data-races). */
#if defined(__SANITIZE_THREAD__)
#define LAB_IS_EXPLORED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LAB_IS_EXPLORED 1
#endif
#endif

#ifdef LAB_IS_EXPLORED
#define LAB_DATA_RACE(expression)                                                  \
    ({                                                                             \
        lab_data_race_begin();                                                     \
        __auto_type lab_value = (expression);                                      \
        lab_data_race_end();                                                       \
        lab_value;                                                                 \
    })
#else
#define LAB_DATA_RACE(expression) (expression)
#endif

void lab_data_race_begin(void);
void lab_data_race_end(void);

/* ---- Waiting for other CPUs ---- */

#include "lab_wait.h"

/* A spin lock, free where it is zero. A search knows it as a lock: nothing else may write to it. */
struct lab_lock {
    uint32_t held;
};

void lab_lock(struct lab_lock *lock);
void lab_unlock(struct lab_lock *lock);

/* ---- The ledger of calls, which the VMM judges too ---- */

/* Enters a call from this CPU to these CPUs, 64 to a word, and returns its id. */
uint64_t lab_call_made(const uint64_t *cpus, bool waits);
/* The same, where its function does a program, which the id then carries. */
uint64_t lab_call_made_for(const uint64_t *cpus, bool waits, uint32_t program);
static inline uint32_t lab_program_of(uint64_t call)
{
    return call >> 40 & 0xff;
}
/* Corrects to which CPUs this CPU has made it, where that is known later. Before it returns. */
void lab_call_was_made_to(uint64_t call, const uint64_t *cpus);
void lab_call_ran(uint64_t call);      /* it runs on this CPU, now */
void lab_call_returned(uint64_t call); /* it has returned to its caller */

/* There are 64 records for each CPU's calls, and as many for those with interrupts disabled, which are used in turn. A
 * call that takes one whose call has not run everywhere reports that as lost. Who makes many and does not wait for
 * them waits before each: lab_wait_until(lab_call_has_room()). */
enum { LAB_CALL_SLOTS = 128 };
bool lab_call_has_room(void);
uint32_t lab_call_slot(uint64_t call); /* the place of its record among those of its caller */
uint32_t lab_call_cpu(uint64_t call);  /* its caller */

/* ---- Points, and what is printed ---- */

struct lab_point {
    char name[32], file[64];
    uint32_t line;
    volatile uint32_t armed;
    uint32_t reserved[6];
} __attribute__((aligned(128)));

void lab_reached(struct lab_point *point, uint64_t call, uint64_t detail);

/* A point at which CPUs can be held and traced (docs/probes.md): LAB_PROBE("stack.top-read", call or 0, detail). */
#define LAB_PROBE(its_name, call, detail)                                          \
    do {                                                                           \
        __attribute__((used, section(".probes"))) static struct lab_point point = { \
            .name = its_name, .file = __FILE_NAME__, .line = __LINE__};            \
        if (lab_is_armed(&point))                                                  \
            lab_reached(&point, call, detail);                                     \
    } while (0)

/* LAB_POINT("bench.start", 8): what points of this name mean in a trace, or in a bench, by the role of docs/manifest.md. */
#define LAB_POINT(its_name, its_role) LAB_RECORD_(.kind = 3, .role = its_role, .name = its_name)

/* LAB_STRETCH("queue.push", "queue.pushed", "queue"): two points that begin and end a stretch of time, and its lane. */
#define LAB_STRETCH(begins, ends, its_lane)                                        \
    LAB_RECORD_(.kind = 3, .role = 1, .name = begins, .group = its_lane);          \
    LAB_RECORD_(.kind = 3, .role = 2, .name = ends, .group = its_lane)

/* One in which the CPU only waits. Reports give its times by the key. */
#define LAB_WAITING_STRETCH(begins, ends, its_lane, its_key, what_it_is)           \
    LAB_RECORD_(.kind = 3, .role = 1, .flags = 1, .name = begins, .group = its_lane, .key = its_key, .text = what_it_is); \
    LAB_RECORD_(.kind = 3, .role = 2, .name = ends, .group = its_lane)

bool lab_is_armed(const struct lab_point *point);

void lab_print(const char *text);
void lab_print_number(const char *text, uint64_t number);

uint64_t lab_timestamp(void); /* cycles; stands still in a search */
uint64_t lab_cycles_per_second(void);

/* What C needs of a library; in an image to be explored each step of these is an access of its own. */
void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *left, const void *right, size_t length);

#endif
