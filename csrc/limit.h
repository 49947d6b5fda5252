/*
 * What a step's traffic costs without its arithmetic: the same operands read and written, as
 * kernels for the same runner, to time steps against. They combine each element with nothing,
 * which is zero, and which no compiler can know to be: no load is dropped and no value changes,
 * so the limit is timed on the very arrays that a step is.
 */
#pragma once
#include "common.h"

/* Storage as bits, which may lie where numbers do. */
typedef uint32_t __attribute__((may_alias)) bits_f32;
typedef uint64_t __attribute__((may_alias)) bits_f64;

static volatile uint64_t always_zero;

/* The state arrays that a rule of rules.h may have. */
#define LIMITS(X) X(limit_0, 0) X(limit_1, 1) X(limit_3, 3) X(limit_5, 5) X(limit_7, 7)
