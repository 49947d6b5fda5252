/*
 * The kernels of the memory's limit: a step's reads and writes without its arithmetic, run by
 * the step's own runner on the step's own arrays, to time steps against.
 *
 * They read g, and they combine each element of all other arrays of the row with zero, so no
 * value changes. The zero is volatile: a compiler that knew it would leave out the loads.
 */
#pragma once
#include "common.h"

/* The bits of a stored number; may_alias lets them be read where numbers are written. */
typedef uint32_t __attribute__((may_alias)) bits_f32;
typedef uint64_t __attribute__((may_alias)) bits_f64;

static volatile uint64_t always_zero;

/* How many arrays a row may have for a step to write: a loop for each, for the compiler to
 * unroll. */
#define COUNTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10)
_Static_assert(MOST_WRITTEN == 10, "COUNTS has a loop for each number of arrays");
