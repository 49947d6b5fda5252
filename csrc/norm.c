#include "norm.h"
#include "rounding.h"

#include <math.h>
#include <string.h>

/* The powers of two that small and large elements were scaled by, see squares.h. */
enum { UP = 600, DOWN = -560 };

/* Folds the sums of all blocks in halves until one is left. */
static void fold(const fs_table *table, double total[FS_SUMS]) {
    int64_t n = table->blocks[table->nrows];
    const double *sums = n ? table->rows->sums : NULL;
    memset(total, 0, FS_SUMS * sizeof *total);
    for (; n > 1; sums = table->folded) {
        int64_t half = (n + 1) / 2, upper = n - half;
        for (int64_t i = 0; i < half * FS_SUMS; i++)
            table->folded[i] = i < upper * FS_SUMS ? sums[i] + sums[half * FS_SUMS + i] : sums[i];
        n = half;
    }
    if (n)
        memcpy(total, sums, FS_SUMS * sizeof *total);
}

static double norm(double small, double middle, double large) {
    if (large > 0)
        return sqrt(large + ldexp(middle, 2 * DOWN)) * ldexp(1, -DOWN);
    if (middle == 0)
        return sqrt(small) * ldexp(1, -UP);
    return sqrt(middle + ldexp(small, -2 * UP));
}

void measure(const fs_table *table, double scale, double max_norm, fs_measured *to) {
    double total[FS_SUMS];
    rounding callers = rounding_begin(); /* also, no exception of arithmetic traps here */
    fold(table, total);
    to->norm = norm(total[0], total[1], total[2]) / scale;
    to->clip = to->norm <= max_norm || isinf(max_norm) ? 1 : max_norm / to->norm;
    to->finite = isfinite(total[0] + total[1] + total[2]) != 0;
    rounding_end(callers);
}
