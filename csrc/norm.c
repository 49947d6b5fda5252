#include "norm.h"
#include "rounding.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The powers of two that small and large elements were scaled by, see squares.h. */
enum { UP = 600, DOWN = -560 };

/* Folds the sums of n blocks in halves until one is left. */
static void fold(const fs_table *table, const double *sums, int64_t n, double total[FS_SUMS]) {
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

static double norm(const double total[FS_SUMS]) {
    const double small = total[0], middle = total[1], large = total[2];
    if (large > 0)
        return sqrt(large + ldexp(middle, 2 * DOWN)) * ldexp(1, -DOWN);
    if (middle == 0)
        return sqrt(small) * ldexp(1, -UP);
    return sqrt(middle + ldexp(small, -2 * UP));
}

/* The factor that cuts a norm to `max_norm`: NaN if the norm is NaN. */
static double factor(double norm, double max_norm) {
    return norm <= max_norm || isinf(max_norm) ? 1 : max_norm / norm;
}

static int is_finite(const double total[FS_SUMS]) {
    return isfinite(total[0] + total[1] + total[2]) != 0;
}

void measure(const fs_table *table, double scale, double max_norm, fs_measured *to) {
    double total[FS_SUMS];
    rounding callers = rounding_begin(); /* also, no exception of arithmetic traps here */
    fold(table, table->nrows ? table->rows->sums : NULL, table->blocks[table->nrows], total);
    to->norm = norm(total) / scale;
    to->clip = factor(to->norm, max_norm);
    to->finite = is_finite(total);
    rounding_end(callers);
}

double fs_clip_each(fs_table *table, double scale, double max_norm) {
    double smallest = 1;
    rounding callers = rounding_begin();
    for (int64_t row = 0; row < table->nrows; row++) {
        double total[FS_SUMS];
        fold(table, table->rows[row].sums, table->blocks[row + 1] - table->blocks[row], total);
        const double clip = factor(norm(total) / scale, max_norm);
        table->clips[row] = clip;
        smallest = clip < smallest || isnan(clip) ? clip : smallest;
    }
    rounding_end(callers);
    return smallest;
}

static int fits(const double total[FS_SUMS], double unscale, int64_t itemsize) {
    if (!is_finite(total) || unscale <= 1)
        return is_finite(total);
    const int is_float = itemsize == sizeof(float);
    return norm(total) * (is_float ? (float)unscale : unscale) <= (is_float ? FLT_MAX : DBL_MAX);
}

int64_t fs_unfit(const fs_table *table, int64_t row, double unscale) {
    rounding callers = rounding_begin();
    for (; row < table->nrows; row++) {
        double total[FS_SUMS];
        const int64_t blocks = table->blocks[row + 1] - table->blocks[row];
        if (blocks == 0) /* also of a row that does not step, and may have no job */
            continue;
        fold(table, table->rows[row].sums, blocks, total);
        if (!fits(total, unscale, table->jobs[table->rows[row].job].itemsize))
            break;
    }
    rounding_end(callers);
    return row;
}
