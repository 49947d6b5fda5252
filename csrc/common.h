/*
 * What the kernels of every instruction set share: the boundary's types, a
 * table's entry, and the macros that build names.
 */
#pragma once
#include <stddef.h>

#include "api.h"

enum {
    RULE_STATES = 3, /* the most state arrays that one of rules.h has */
    BARE,
    NO_L1,
    WHOLE,      /* prologues: nothing, all but L1, all */
    LANES = 32, /* of a sum */
};

#define ALWAYS_INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* `run` over n elements from `begin` on: whole vectors, and then a half, a quarter and the
 * rest of one. Their counts the compiler knows, and makes vectors of them as well; through
 * the rest of a loop it would go one by one. */
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
        run(i_, n_ &(v_ / 4 - 1));                                                                 \
    } while (0)

typedef struct {
    const char *rule;
    const char *dtype;
    int has;
    int inside;
    fs_kernel kernel;
} fs_entry;
