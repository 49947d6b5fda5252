/*
 * What the kernels of every instruction set share: the boundary's types, a
 * table's entry, and the macros that build names.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

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

typedef struct {
    const char *rule;
    const char *dtype;
    int has;
    int inside;
    fs_kernel kernel;
} fs_entry;
