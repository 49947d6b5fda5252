/*
 * The common ground of the kernels of all instruction sets: the types of the boundary, an entry
 * of a set's table, and macros for names and loops.
 */
#pragma once
#include <stddef.h>
#include <string.h>

#include "api.h"

enum {
    MOST_WRITTEN = FS_STATES + 2, /* arrays of a row that a step writes: p, the states, ema */
    LANES = 32,                   /* partial sums of a block, folded into one at its end */
    LINE_OF_CACHE = 64,           /* bytes, and those of the longest vector */
};

/* The part of `gradient` in rules.h that a loop has: nothing, all but L1, all. */
enum { BARE, NO_L1, WHOLE };

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNUSED __attribute__((unused))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* INDEPENDENT, before a loop over elements: no iteration reads what another writes. UNROLLED,
 * before a loop over the arrays of a row: the array's index becomes a constant, so that an array
 * that is absent costs nothing. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#define UNROLLED _Pragma("GCC unroll MOST_WRITTEN")
#endif

/* `run(i, n)` over n elements from `begin` on: whole vectors, then a half, a quarter and the
 * rest of one. The compiler knows the counts of the half and the quarter and makes vectors of
 * them too; it would take the rest of a plain loop element by element. */
#define IN_VECTORS(run, begin, n, vector)                                                          \
    do {                                                                                           \
        const int64_t v_ = (vector), n_ = (n), whole_ = n_ & -v_;                                  \
        int64_t i_ = (begin);                                                                      \
        run(i_, whole_);                                                                           \
        i_ += whole_;                                                                              \
        if (n_ & v_ / 2) {                                                                         \
            run(i_, v_ / 2);                                                                       \
            i_ += v_ / 2;                                                                          \
        }                                                                                          \
        if (n_ & v_ / 4) {                                                                         \
            run(i_, v_ / 4);                                                                       \
            i_ += v_ / 4;                                                                          \
        }                                                                                          \
        run(i_, (v_ / 4 - 1) & n_);                                                                \
    } while (0)

typedef struct {
    const char *rule;  /* the name that fs_find_kernel looks for */
    const char *dtype; /* of p: "float32" or "float64" */
    int has;           /* bit k: the kernel reads and writes state[k] */
    int inside;        /* 1: eps stands under the root */
    fs_kernel kernel;
} fs_entry;

/* A kernel, and what stands for it where rows are stepped by themselves. */
typedef struct {
    fs_kernel kernel;
    fs_replay replay;
    fs_by_column by_column;
} fs_rows_entry;

/* What a rule has to it that its proofs in replay.inc depend on. */
typedef struct {
    int eps, m, v, decays;
} traits;

/* The storage formats of an instruction set: their random bits, and each by its name. */
typedef struct {
    fs_randomize randomize;
    fs_storage formats[FS_FORMATS];
} fs_storages;

/* The random bits by which an operand is rounded: those of its kind that are left. */
typedef enum { NO_BITS, NEAR_BITS, FAR_BITS } fs_bits;

typedef struct {
    const char *format; /* NULL: as the kernel reads it */
    fs_bits bits;
} fs_held;

/* What steps a whole tile at once, and the kernel and the formats for which it stands. */
typedef struct {
    fs_kernel kernel;
    fs_whole run;
    fs_held p, g, s[FS_STATES];
} fs_whole_entry;
