/*
 * The choice of kernels: the table of instruction sets, which of them this CPU supports, and
 * the set in force. A new set is one isa_*.c and one row here.
 */
#include "common.h"

#include <stdatomic.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

extern const fs_entry kernels_baseline[];
extern const fs_storages storages_baseline;
extern const fs_whole_entry wholes_baseline[];
extern const fs_rows_entry of_rows_baseline[];

static int always(void) { return 1; }

#ifdef __x86_64__
extern const fs_entry kernels_avx2[];
extern const fs_entry kernels_avx512[];
extern const fs_storages storages_avx2, storages_avx512;
extern const fs_whole_entry wholes_avx2[], wholes_avx512[];
extern const fs_rows_entry of_rows_avx2[], of_rows_avx512[];

/* Conversions to and from float16, for which Clang has no name before its version 15. */
static int has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static int has_avx2(void) { return __builtin_cpu_supports("avx2") && has_f16c(); }

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/* From the plainest to the one with the longest vectors. On arm64 the baseline is NEON, and
 * answers to that name too. */
static const struct {
    const char *name;
    int (*supported)(void);
    const fs_entry *kernels;
    const fs_storages *storages;
    const fs_whole_entry *wholes;
    const fs_rows_entry *of_rows;
} sets[] = {
    {"baseline", always, kernels_baseline, &storages_baseline, wholes_baseline, of_rows_baseline},
#ifdef __x86_64__
    {"avx2", has_avx2, kernels_avx2, &storages_avx2, wholes_avx2, of_rows_avx2},
    {"avx512", has_avx512, kernels_avx512, &storages_avx512, wholes_avx512, of_rows_avx512},
#endif
#ifdef __aarch64__
    {"neon", always, kernels_baseline, &storages_baseline, wholes_baseline, of_rows_baseline},
#endif
};

enum { SETS = sizeof sets / sizeof *sets };

static _Atomic int selected;

/* GCC reads an atomic index of an array as if it were not one. */
static int in_force(void) { return atomic_load(&selected); }

__attribute__((constructor)) static void select_last_supported(void) {
#ifdef __x86_64__
    __builtin_cpu_init();
#endif
    for (int i = 0; i < SETS; i++)
        if (sets[i].supported())
            selected = i;
}

const char *fs_isa_name(int index) { return index >= 0 && index < SETS ? sets[index].name : NULL; }

int fs_isa_supported(int index) { return index >= 0 && index < SETS && sets[index].supported(); }

const char *fs_isa(void) { return sets[in_force()].name; }

int fs_isa_select(const char *name) {
    for (int i = 0; i < SETS; i++)
        if (strcmp(sets[i].name, name) == 0 && sets[i].supported()) {
            selected = i;
            return 0;
        }
    return -1;
}

fs_kernel fs_find_kernel(const char *rule, const char *dtype, int has, int inside) {
    for (const fs_entry *entry = sets[in_force()].kernels; entry->rule; entry++)
        if (strcmp(entry->rule, rule) == 0 && strcmp(entry->dtype, dtype) == 0 &&
            entry->has == has && entry->inside == inside)
            return entry->kernel;
    return NULL;
}

const fs_storage *fs_find_storage(const char *name) {
    const fs_storages *all = sets[in_force()].storages;
    for (const fs_storage *format = all->formats; format < all->formats + FS_FORMATS; format++)
        if (strcmp(format->name, name) == 0)
            return format;
    return NULL;
}

fs_randomize fs_find_randomize(void) { return sets[in_force()].storages->randomize; }

/* Whether an operand is held so, when operands before it have taken so many streams of both kinds
 * of bits. */
static int is_held(const fs_operand *operand, fs_held held, int64_t taken[]) {
    if (!operand->format || !held.format)
        return !operand->format && !held.format;
    const int64_t random = held.bits ? 2 * taken[held.bits]++ + (held.bits == FAR_BITS) : -1;
    return strcmp(operand->format->name, held.format) == 0 && operand->random == random;
}

void fs_find_for_rows(fs_job *job) {
    job->replay = NULL, job->by_column = NULL;
    for (const fs_rows_entry *entry = sets[in_force()].of_rows; entry->kernel; entry++)
        if (entry->kernel == job->kernel)
            job->replay = entry->replay, job->by_column = entry->by_column;
}

fs_whole fs_find_whole(fs_kernel kernel, const fs_operands *operands) {
    for (const fs_whole_entry *entry = sets[in_force()].wholes; entry->kernel; entry++) {
        int64_t taken[] = {[NEAR_BITS] = 0, [FAR_BITS] = 0};
        int found = entry->kernel == kernel && is_held(&operands->p, entry->p, taken) &&
                    is_held(&operands->g, entry->g, taken);
        for (int k = 0; k < FS_STATES; k++)
            found = found && is_held(operands->s + k, entry->s[k], taken);
        if (found)
            return entry->run;
    }
    return NULL;
}
