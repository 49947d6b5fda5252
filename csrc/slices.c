/*
 * Steps of single slices of a tensor, p[i], with gradients for these alone: rows of an embedding.
 *
 * The kernels are those of all steps: a slice is elements [width * i, width * (i + 1)) of its row.
 * What differs is where its gradient lies, by which scalars it is stepped, and what comes before.
 *
 * - A slice with a t of its own has the scalars of its own next step.
 * - A slice that has missed steps takes these first, with gradients of 0, by the scalars that they
 *   had. So it ends with the bits that it would have if it had been stepped each time.
 * - Several gradients of one slice are added up in the order in which they stand.
 *
 * Slices come in ascending order. Memory is fetched some slices ahead: they lie apart, and
 * the processor cannot guess where.
 */
#include "slices.h"

#include <string.h>

#include "columns.h"
#include "common.h"
#include "squares.h"

enum {
    LINE = 64,      /* bytes of a cache line */
    AHEAD = 4096,   /* bytes of operands that are fetched ahead, at most */
    MOST_AHEAD = 8, /* slices, at most */
    PIECE = 1024,   /* elements that are stepped together where gradients are added up */
    RANDOM = 4,     /* times as long as one that is read in a row takes an element anywhere */
    CAPPED = 128,   /* missed steps that take time; most are over once p stands still */
    MANY = 2048,    /* numbers from which they are ordered by more bits at a time */
    RADIX = 11,     /* that many, and for fewer numbers 8 */
};

int is_whole(const fs_slices *slices) {
    return !slices->ids && !slices->starts && !slices->order && !slices->measured;
}

static int64_t id_of(const fs_slices *slices, int64_t j) {
    return slices->ids ? slices->ids[j] : j;
}

/* ---- the order of slices ---- */

/* Numbers are ordered bit group by bit group, the lowest first, each time keeping the order of
 * equal ones. So places of equal numbers end in the order in which they stood. */
int64_t fs_order(const int64_t *index, int64_t k, int64_t limit, int64_t *order, int64_t *ids,
                 int64_t *starts) {
    int64_t ascending = 1, before = -1;
    for (int64_t j = 0; j < k; j++) {
        if (index[j] < 0 || index[j] >= limit)
            return -1 - j;
        ascending &= index[j] >= before;
        before = index[j];
    }
    const int bits = k < MANY ? 8 : RADIX, digits = 1 << bits;
    int64_t *from = order, *to = ids;
    for (int64_t j = 0; j < k; j++)
        from[j] = j;
    for (int shift = 0; !ascending && shift < 63 && (limit - 1) >> shift; shift += bits) {
        int64_t counts[1 << RADIX], sum = 0;
        memset(counts, 0, (size_t)digits * sizeof *counts);
        for (int64_t j = 0; j < k; j++)
            counts[index[j] >> shift & (digits - 1)]++;
        for (int digit = 0; digit < digits; digit++) {
            const int64_t count = counts[digit];
            counts[digit] = sum;
            sum += count;
        }
        for (int64_t j = 0; j < k; j++)
            to[counts[index[from[j]] >> shift & (digits - 1)]++] = from[j];
        int64_t *other = from;
        from = to;
        to = other;
    }
    if (from != order)
        memcpy(order, from, (size_t)k * sizeof *order);
    int64_t n = 0;
    for (int64_t j = 0; j < k; j++) {
        const int64_t id = index[order[j]];
        if (n == 0 || ids[n - 1] != id) {
            starts[n] = j;
            ids[n++] = id;
        }
    }
    starts[n] = k;
    return n;
}

/* ---- units of work ---- */

static int64_t cost_of(const fs_slices *slices) {
    int64_t steps = 0;
    if (slices->counts && !slices->entries) {
        for (int64_t j = 0; j < slices->n; j++) {
            const int64_t missed = slices->t - slices->counts[id_of(slices, j)];
            steps += missed < CAPPED ? missed : CAPPED;
        }
        steps /= slices->n;
    }
    return slices->width * (RANDOM + steps) + 1; /* one without elements is counted, too */
}

void count_units(const fs_table *table) {
    int64_t sum = 0;
    for (int64_t k = 0; k < table->nrows; k++) {
        const fs_row *row = table->rows + k;
        fs_slices *slices = row->slices;
        table->units[k] = sum;
        if (!slices)
            sum += row->n;
        else if (slices->n > 0) {
            slices->cost = cost_of(slices);
            sum += slices->n * slices->cost;
        }
    }
    table->units[table->nrows] = sum;
}

/* The first slice whose work begins at a unit or after it. */
static int64_t slice_at(const fs_slices *slices, int64_t unit) {
    return (unit + slices->cost - 1) / slices->cost;
}

/* ---- a step ---- */

/* Inline, or GCC takes a call for one without effect. */
static ALWAYS_INLINE void fetch_part(const void *array, int64_t begin, int64_t bytes) {
    if (!array)
        return;
    const char *at = (const char *)array + begin * bytes;
    for (int64_t k = 0; k < bytes; k += LINE)
        __builtin_prefetch(at + k, 1);
    __builtin_prefetch(at + bytes - 1, 1);
}

/* Fetches what a slice is stepped with, but for its gradient, which has just been written. */
static ALWAYS_INLINE void fetch_slice(const fs_row *row, int64_t id, int64_t bytes) {
    fetch_part(row->p, id, bytes);
    for (int k = 0; k < FS_STATES; k++)
        fetch_part(row->s[k], id, bytes);
    fetch_part(row->ema, id, bytes);
}

static int64_t slices_ahead(int64_t bytes) {
    const int64_t ahead = AHEAD / (3 * bytes + 1);
    return ahead < 1 ? 1 : ahead > MOST_AHEAD ? MOST_AHEAD : ahead;
}

static void add(void *sum, const void *g, int64_t n, int64_t itemsize) {
    if (itemsize == sizeof(float))
        for (int64_t i = 0; i < n; i++)
            ((float *)sum)[i] += ((const float *)g)[i];
    else
        for (int64_t i = 0; i < n; i++)
            ((double *)sum)[i] += ((const double *)g)[i];
}

/* Where the slice of g begins that stands at `place` in the order. */
static char *gradient_at(const fs_row *row, int64_t bytes, int64_t place) {
    const int64_t *order = row->slices->order;
    return (char *)row->g + (order ? order[place] : place) * bytes;
}

/* Puts the sum of gradients [first, last) in the order, n elements from `at` on, into `sum`. */
static void add_up(const fs_row *row, int64_t bytes, int64_t itemsize, int64_t first, int64_t last,
                   int64_t at, int64_t n, void *sum) {
    memcpy(sum, gradient_at(row, bytes, first) + at * itemsize, (size_t)(n * itemsize));
    for (int64_t place = first + 1; place < last; place++)
        add(sum, gradient_at(row, bytes, place) + at * itemsize, n, itemsize);
}

/* The row as the kernel sees it, so that it finds in g at element `begin` what lies at `g`. */
static fs_row with_gradient(const fs_row *row, const void *g, int64_t begin, int64_t itemsize) {
    fs_row beside = *row;
    beside.g = (void *)((uintptr_t)g - (uintptr_t)(begin * itemsize));
    return beside;
}

/* ---- missed steps ---- */

/* Takes the missed steps of elements [begin, end), which have taken `taken`, by a set. */
static void replay_set(const fs_row *row, const fs_job *job, int64_t taken, int64_t begin,
                       int64_t end, int64_t set) {
    static const _Alignas(LINE) double zeros[PIECE];
    const fs_slices *slices = row->slices;
    const int64_t size = job->nscalars * job->itemsize;
    const char *entry = line_of(slices, job, set, taken + 1 - slices->first);
    int64_t left = slices->t - taken, calm = 0;
    if (job->replay && !row->ema) {
        calm = slices->t - slices->calm.from + 1;
        calm = calm < 0 ? 0 : calm < left ? calm : left;
    }
    left -= calm;
    for (int64_t at = begin; left > 0 && at < end; at += PIECE) {
        const int64_t stop = at + PIECE < end ? at + PIECE : end;
        const fs_row beside = with_gradient(row, zeros, at, job->itemsize);
        for (int64_t k = 0; k < left; k++)
            job->kernel(&beside, at, stop, entry + k * size);
    }
    if (calm)
        job->replay(row, begin, end, entry + left * size, calm, &slices->calm);
}

static void replay(const fs_row *row, const fs_job *job, int64_t taken, int64_t begin,
                   int64_t end) {
    const fs_slices *slices = row->slices;
    if (!slices->ends) {
        replay_set(row, job, taken, begin, end, 0);
        return;
    }
    run_of_columns at = run_at(slices, begin);
    for (int64_t stop; begin < end; begin = stop, at = next_run(slices, at)) {
        stop = end_of_run(slices, at, end);
        replay_set(row, job, taken, begin, stop, slices->sets[at.run]);
    }
}

/* ---- a step of slices ---- */

/* The slices from j on that can be stepped in one go: they, and their gradients, follow one
 * another, and they are stepped by the same scalars. */
static int64_t run_from(const fs_slices *slices, int64_t j, int64_t last) {
    const int64_t *starts = slices->starts, *order = slices->order, *counts = slices->counts;
    const int64_t id = id_of(slices, j), place = starts ? starts[j] : j;
    const int64_t source = order ? order[place] : place;
    int64_t n = 1;
    for (; j + n < last && id_of(slices, j + n) == id + n; n++) {
        if (starts && starts[j + n + 1] != place + n + 1)
            break;
        if (order && order[place + n] != source + n)
            break;
        if (counts && counts[id + n] != counts[id])
            break;
    }
    return n;
}

void run_slices(const fs_row *row, const fs_job *job, int64_t begin, int64_t end) {
    const fs_slices *slices = row->slices;
    int64_t *const counts = slices->counts;
    const int64_t width = slices->width, itemsize = job->itemsize, bytes = width * itemsize;
    const int64_t first = slice_at(slices, begin), last = slice_at(slices, end);
    const int64_t ahead = slices_ahead(bytes);
    const int missing = counts && !slices->entries;
    double own[slices->entries ? job->nscalars : 1];
    const void *scalars = job->scalars;
    int64_t line = next_line(slices);
    columns_room room;
    room.line = -1;
    if (slices->entries && !counts)
        scalars = with_asked(job, line_of(slices, job, 0, line), own);
    for (int64_t j = first; j < first + ahead && j < last; j++)
        fetch_slice(row, id_of(slices, j), bytes);
    for (int64_t j = first, n; j < last; j += n) {
        if (j + ahead < last)
            fetch_slice(row, id_of(slices, j + ahead), bytes);
        const int64_t id = id_of(slices, j), from = id * width;
        const int64_t place = slices->starts ? slices->starts[j] : j;
        const int64_t next = slices->starts ? slices->starts[j + 1] : j + 1;
        n = next - place == 1 ? run_from(slices, j, last) : 1;
        const int64_t to = from + n * width;
        if (missing && counts[id] < slices->t)
            replay(row, job, counts[id], from, to);
        if (slices->entries && counts) {
            line = slices->entries[counts[id] + 1];
            scalars = with_asked(job, line_of(slices, job, 0, line), own);
        }
        if (next - place == 1) {
            const fs_row beside =
                with_gradient(row, gradient_at(row, bytes, place), from, itemsize);
            step_columns(&beside, job, from, to, scalars, line, &room);
        } else
            for (int64_t at = 0; at < width; at += PIECE) {
                _Alignas(LINE) double sum[PIECE];
                const int64_t count = at + PIECE < width ? PIECE : width - at;
                add_up(row, bytes, itemsize, place, next, at, count, sum);
                const fs_row beside = with_gradient(row, sum, from + at, itemsize);
                step_columns(&beside, job, from + at, from + at + count, scalars, line, &room);
            }
        for (int64_t k = 0; counts && k < n; k++)
            counts[id + k] = missing ? slices->t + 1 : counts[id + k] + 1;
    }
}

void replay_slices(const fs_row *row, const fs_job *job, int64_t begin, int64_t end) {
    const fs_slices *slices = row->slices;
    const int64_t width = slices->width, bytes = width * job->itemsize;
    const int64_t first = slice_at(slices, begin), last = slice_at(slices, end);
    const int64_t ahead = slices_ahead(bytes);
    for (int64_t j = first; j < last; j++) {
        if (j + ahead < last)
            fetch_slice(row, id_of(slices, j + ahead), bytes);
        const int64_t id = id_of(slices, j);
        if (slices->counts[id] < slices->t)
            replay(row, job, slices->counts[id], id * width, (id + 1) * width);
        slices->counts[id] = slices->t;
    }
}

/* ---- sums of squares ---- */

/* The sums of the block that is being summed. */
typedef struct {
    double lanes[FS_SUMS][LANES];
    int64_t block; /* -1: none */
} partial;

static void close_block(partial *of, double *sums) {
    for (int size = 0; of->block >= 0 && size < FS_SUMS; size++) {
        for (int half = LANES / 2; half; half /= 2)
            for (int k = 0; k < half; k++)
                of->lanes[size][k] += of->lanes[size][k + half];
        sums[FS_SUMS * of->block + size] = of->lanes[size][0];
    }
    memset(of->lanes, 0, sizeof of->lanes);
}

static void add_squares(partial *to, double *sums, const void *g, int64_t at, int64_t n,
                        int64_t itemsize) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t element = at + i;
        if (element / FS_BLOCK != to->block) {
            close_block(to, sums);
            to->block = element / FS_BLOCK;
        }
        const int lane = (int)(element % FS_BLOCK % LANES);
        if (itemsize == sizeof(float))
            add_square_f32(to->lanes, lane, ((const float *)g)[i]);
        else
            add_square_f64(to->lanes, lane, ((const double *)g)[i]);
    }
}

/* The others would add zeros, which change no sum. */
void sum_slices(const fs_row *row, const fs_job *job) {
    const fs_slices *slices = row->slices;
    if (slices->measured)
        return;
    const int64_t width = slices->width, itemsize = job->itemsize, bytes = width * itemsize;
    partial sum = {.block = -1};
    memset(row->sums, 0, (size_t)((row->n + FS_BLOCK - 1) / FS_BLOCK * FS_SUMS) * sizeof(double));
    for (int64_t j = 0; j < slices->n; j++) {
        const int64_t place = slices->starts ? slices->starts[j] : j;
        const int64_t next = slices->starts ? slices->starts[j + 1] : j + 1;
        for (int64_t at = 0; at < width; at += PIECE) {
            _Alignas(LINE) double g[PIECE];
            const int64_t count = at + PIECE < width ? PIECE : width - at;
            add_up(row, bytes, itemsize, place, next, at, count, g);
            add_squares(&sum, row->sums, g, id_of(slices, j) * width + at, count, itemsize);
        }
    }
    close_block(&sum, row->sums);
}
