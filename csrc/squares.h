/*
 * One element's part in the norm of the gradients: a sum of squares in float64, which
 * src/fusedstep/_numerics/norm.py defines.
 *
 * In float64 the square of a float32 is exact and always fits. The square of a float64 may
 * overflow or underflow, so very small and very large elements are scaled by a power of two and
 * summed apart, as Blue (1978) does. NaN counts as middle, infinity as large.
 */
#pragma once
#include "dtypes.h"

/* The sums of a block. */
enum { SMALL, MIDDLE, LARGE };

/* The sums that a dtype has, from the first to the last; the others stay 0. */
enum { FIRST_f32 = MIDDLE, LAST_f32 = MIDDLE, FIRST_f64 = SMALL, LAST_f64 = LARGE };

static ALWAYS_INLINE void add_square_f32(double sums[FS_SUMS][LANES], int lane, real_f32 g) {
    sums[MIDDLE][lane] += (double)g * (double)g;
}

static ALWAYS_INLINE void add_square_f64(double sums[FS_SUMS][LANES], int lane, real_f64 g) {
    int is_small = fabs(g) < 0x1p-500;
    int is_large = fabs(g) > 0x1p480;
    double small = is_small ? g * 0x1p600 : 0;
    double middle = is_small || is_large ? 0 : g;
    double large = is_large ? g * 0x1p-560 : 0;
    sums[SMALL][lane] += small * small;
    sums[MIDDLE][lane] += middle * middle;
    sums[LARGE][lane] += large * large;
}
