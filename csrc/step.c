/*
 * One step of a table, and the sums of squares that may go before it.
 *
 * The total work is cut into chunks that fit the cache and may span or divide tensors. Threads
 * take them from atomic counters, however many come. Each thread has a part of the whole, the
 * same at each step, because its cache may still hold it; when that is done it takes chunks of
 * the other parts.
 *
 * A thread's part of a large tensor is the piece that frameworks give it, too: of two threads each
 * has a half of every such tensor. Its gradient was written by halves then, and a core may have to
 * fetch what another one wrote from the other's cache. Small tensors, which frameworks leave to one
 * thread, are dealt out in their order.
 */
#include "columns.h"
#include "norm.h"
#include "rounding.h"
#include "slices.h"
#include "team.h"
#include "tiles.h"

#include <stdatomic.h>
#include <string.h>

/* In elements, unless said otherwise. A float32 AdamW step takes some 3 us over 10,000. */
enum {
    WORTH_SUMMING = 60000, /* smaller sums of squares are done before a helper is awake */
    SHARES = 8,            /* chunks for each thread, so that none waits long for another's last */
    LEAST = 2048,          /* in a chunk: to take a smaller one costs as much as to step it */
    MOST = 16384,          /* in a chunk: four float32 arrays of this fill a quarter of an L2 */
    LONG = 1024,           /* a run from which an aligned start is worth a call of its own */
    LINE = 64,             /* bytes of a cache line, and of the longest vector */
    MOST_BLOCKS = 64,      /* blocks in a chunk of sums of squares */
    ZEROED = 4096,         /* bytes of a gradient that are written together, while in the L1 */
    MOST_PARTS = 64,       /* threads with a part of their own */
    AHEAD = 16,            /* cells that are fetched into the cache before they are written */
};

/* The work of a thread on units [begin, end) of a row: elements of a step, or blocks of sums. */
typedef void (*row_task)(const fs_table *table, const fs_row *row, int64_t begin, int64_t end);

typedef struct {
    const fs_table *table;
    const int64_t *starts; /* units before each row, and in all */
    const int64_t *large;  /* the same of rows that are cut into pieces; NULL: none is */
    row_task run;
    int64_t pieces;                   /* units of a part's pieces of large rows */
    int64_t dealt;                    /* units of all small rows */
    int64_t chunk;                    /* units of a chunk */
    int parts;                        /* parts of the whole, one for each thread */
    _Atomic int64_t next[MOST_PARTS]; /* where each part's next chunk begins */
} work;

/* Units of small rows before a row. */
static int64_t small_before(const work *w, int64_t row) {
    return w->starts[row] - (w->large ? w->large[row] : 0);
}

/* Units of a part's pieces before a row. */
static int64_t pieces_before(const work *w, int64_t row) { return w->large[row] / w->parts; }

/* The last row that begins at or before unit `at`, which `before` counts up to each row. */
static int64_t row_at(const work *w, int64_t (*before)(const work *, int64_t), int64_t at) {
    int64_t low = 0, high = w->table->nrows;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (before(w, middle) <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Runs units [from, to) of the small rows. */
static void run_small(const work *w, int64_t from, int64_t to) {
    for (int64_t row = row_at(w, small_before, from); from < to; row++) {
        int64_t start = small_before(w, row), end = small_before(w, row + 1);
        int64_t stop = end < to ? end : to;
        if (from < stop)
            w->run(w->table, w->table->rows + row, from - start, stop - start);
        from = stop;
    }
}

/* Where a part's piece of n elements begins. */
static int64_t piece(const work *w, int part, int64_t n) {
    int64_t begin = (n + w->parts - 1) / w->parts * part;
    return begin < n ? begin : n;
}

/* Runs units [from, to) of a part's pieces of large rows. A piece has about as many elements as
 * units, so where a chunk ends within it is that far from its begin, and a little more. */
static void run_pieces(const work *w, int part, int64_t from, int64_t to) {
    for (int64_t row = row_at(w, pieces_before, from); from < to; row++) {
        int64_t start = pieces_before(w, row), units = pieces_before(w, row + 1) - start;
        int64_t stop = start + units < to ? start + units : to;
        if (from < stop) {
            const fs_row *of = w->table->rows + row;
            int64_t begin = piece(w, part, of->n);
            int64_t more = piece(w, part + 1, of->n) - begin - units;
            int64_t first = from - start, last = stop - start;
            w->run(w->table, of, begin + first + more * first / units,
                   begin + last + more * last / units);
        }
        from = stop;
    }
}

static int64_t start_of(const work *w, int part) {
    return part < w->parts ? w->dealt / w->parts * part : w->dealt;
}

static void run_part(work *w, int part) {
    const int64_t pieces = w->pieces, start = start_of(w, part) - pieces;
    const int64_t end = start_of(w, part + 1) - start;
    for (;;) {
        int64_t from = atomic_fetch_add_explicit(w->next + part, w->chunk, memory_order_relaxed);
        if (from >= end)
            break;
        int64_t to = from + w->chunk < end ? from + w->chunk : end;
        if (from < pieces)
            run_pieces(w, part, from, to < pieces ? to : pieces);
        if (to > pieces)
            run_small(w, start + (from > pieces ? from : pieces), start + to);
    }
}

/* Every thread of the team runs this until no chunk is left. */
static void run_parts(void *arg, int thread) {
    work *w = arg;
    rounding callers = rounding_begin();
    for (int k = 0; k < w->parts; k++)
        run_part(w, (thread + k) % w->parts);
    rounding_end(callers);
}

static void share(work *w, int64_t least, int64_t most, int threads, fs_paces *paces, int soon) {
    const int64_t rows = w->table->nrows;
    w->parts = threads < MOST_PARTS ? threads : MOST_PARTS;
    w->pieces = w->large ? pieces_before(w, rows) : 0;
    w->dealt = small_before(w, rows);
    w->chunk = w->starts[rows] / ((int64_t)threads * SHARES);
    w->chunk = w->chunk < least ? least : w->chunk > most ? most : w->chunk;
    for (int part = 0; part < w->parts; part++)
        w->next[part] = 0;
    team_run(run_parts, w, threads, paces, soon);
}

/* The number of `threads` that are worth their waking: all from so many `elements` on, else one. */
static int worth(const fs_table *table, const int64_t *starts, int64_t elements, int threads) {
    return starts[table->nrows] < elements ? 1 : threads;
}

/* ---- a step ---- */

/* Moves a cut before element `at` of a row to the next element whose p begins a cache line, so
 * that no vector of a long run straddles two; or to the next tile, where tiles are encoded. Two
 * chunks that meet at `at` agree on it. */
static int64_t cut(const fs_row *row, int64_t at, const fs_job *job) {
    if (at <= 0 || at >= row->n)
        return at;
    if (job->operands) {
        at = (at + FS_TILE - 1) / FS_TILE * FS_TILE;
        return at < row->n ? at : row->n;
    }
    const int64_t itemsize = job->itemsize;
    uintptr_t past = ((uintptr_t)row->p + (uintptr_t)(at * itemsize)) % LINE;
    at += past ? (int64_t)(LINE - past) / itemsize : 0;
    return at < row->n ? at : row->n;
}

/* A job with the row's own factor of clipping in place of the one that its rows share. `scalars` is
 * room for those of the job. */
static fs_job clipped(const fs_job *job, double clip, void *scalars) {
    fs_job own = *job;
    memcpy(scalars, job->scalars, (size_t)(job->nscalars * job->itemsize));
    if (job->itemsize == sizeof(float))
        ((float *)scalars)[job->clip] = (float)clip;
    else
        ((double *)scalars)[job->clip] = clip;
    own.scalars = scalars;
    return own;
}

static void run_kernel(const fs_job *job, const fs_row *row, int64_t begin, int64_t end) {
    job->kernel(row, begin, end, job->scalars);
}

/* The gradient is zeroed piece by piece while it is still in the cache. So memory is passed over
 * once, and this is faster than stores in the kernel's own loop. */
static void run_kernel_and_zero(const fs_job *job, const fs_row *row, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
        stop = begin + ZEROED / job->itemsize < end ? begin + ZEROED / job->itemsize : end;
        run_kernel(job, row, begin, stop);
        memset((char *)row->g + begin * job->itemsize, 0, (size_t)((stop - begin) * job->itemsize));
    }
}

/* p is stepped in a copy, and the gradient becomes the difference, piece by piece as above. */
static void run_kernel_for_updates(const fs_job *job, const fs_row *row, int64_t begin,
                                   int64_t end) {
    _Alignas(LINE) char stepped[ZEROED];
    for (int64_t stop; begin < end; begin = stop) {
        stop = begin + ZEROED / job->itemsize < end ? begin + ZEROED / job->itemsize : end;
        const int64_t at = begin * job->itemsize, n = stop - begin;
        fs_row beside = *row;
        beside.p = (void *)((uintptr_t)stepped - (uintptr_t)at);
        memcpy(stepped, (char *)row->p + at, (size_t)(n * job->itemsize));
        run_kernel(job, &beside, begin, stop);
        if (job->itemsize == sizeof(float))
            for (int64_t i = 0; i < n; i++)
                ((float *)row->g)[begin + i] = ((float *)stepped)[i] - ((float *)row->p)[begin + i];
        else
            for (int64_t i = 0; i < n; i++)
                ((double *)row->g)[begin + i] =
                    ((double *)stepped)[i] - ((double *)row->p)[begin + i];
    }
}

static void step_job(const fs_table *table, const fs_row *row, const fs_job *job, int64_t begin,
                     int64_t end) {
    static void (*const runs[])(const fs_job *, const fs_row *, int64_t, int64_t) = {
        [FS_GRADIENTS] = run_kernel,
        [FS_ZEROS] = run_kernel_and_zero,
        [FS_UPDATES] = run_kernel_for_updates,
    };
    void (*run)(const fs_job *, const fs_row *, int64_t, int64_t) = runs[table->leaves];
    if (row->slices) {
        run_slices(row, job, begin, end);
        return;
    }
    begin = cut(row, begin, job);
    end = cut(row, end, job);
    if (job->operands) {
        run_tiles(job, row, begin, end, table->leaves == FS_ZEROS);
        return;
    }
    if (begin == 0 && end > LONG) {
        begin = cut(row, 1, job);
        run(job, row, 0, begin);
    }
    if (begin < end)
        run(job, row, begin, end);
}

static void step_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    const fs_job *job = table->jobs + row->job;
    step_job(table, row, job, begin, end);
}

static void step_clipped_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    const fs_job *job = table->jobs + row->job;
    double scalars[job->nscalars];
    const fs_job own = clipped(job, table->clips[row - table->rows], scalars);
    step_job(table, row, &own, begin, end);
}

/* Rounds the scalars of all jobs, once, to the dtype in which their kernels compute. */
static void round_scalars(const fs_table *table) {
    rounding callers = rounding_begin();
    for (const fs_job *job = table->jobs; job < table->jobs + table->njobs; job++)
        if (job->itemsize == sizeof(float))
            for (int64_t k = 0; k < job->nscalars; k++)
                ((float *)job->scalars)[k] = (float)job->float64[k];
        else
            memcpy(job->scalars, job->float64, (size_t)job->nscalars * sizeof(double));
    rounding_end(callers);
}

/* Leaves in each cell the number of this step. */
static void write_cells(const fs_table *table) {
    rounding callers = rounding_begin();
    for (fs_cell *cell = table->cells; cell < table->cells + table->ncells; cell++) {
        __builtin_prefetch((cell + (cell + AHEAD < table->cells + table->ncells ? AHEAD : 0))->at,
                           1);
        if (cell->number < 0)
            continue;
        cell->known = table->numbers[cell->number];
        if (cell->itemsize == sizeof(float))
            *(float *)cell->at = (float)cell->known;
        else
            *(double *)cell->at = cell->known;
    }
    rounding_end(callers);
}

/* Makes ready the scalars of columns that have some of their own. */
static void begin_all_columns(const fs_table *table, int each) {
    for (const fs_row *row = table->rows; row < table->rows + table->nrows; row++) {
        const fs_job *job = table->jobs + row->job;
        if (!row->slices)
            continue;
        double scalars[job->nscalars];
        fs_job own = *job;
        if (each)
            own = clipped(job, table->clips[row - table->rows], scalars);
        begin_columns(row, &own);
    }
}

int fs_step(fs_table *table, int threads, int leaves, int each) {
    if (!rounding_is_to_nearest())
        return FS_REFUSED;
    table->leaves = leaves;
    round_scalars(table);
    work w = {.table = table, .starts = table->elements, .large = table->large};
    w.run = each ? step_clipped_row : step_row;
    if (table->units) {
        count_units(table);
        begin_all_columns(table, each);
        w.starts = table->units, w.large = NULL;
    }
    share(&w, LEAST, MOST, worth(table, w.starts, FS_SHARED, threads), &table->paces, 0);
    write_cells(table);
    ++*table->steps;
    return 0;
}

int64_t fs_take_and_step(fs_table *table, uintptr_t list, int threads) {
    int64_t taken = fs_take(table, list, 0, 0);
    if (taken < table->nheaders)
        return taken;
    return fs_step(table, threads, FS_GRADIENTS, 0) == FS_REFUSED ? FS_REFUSED : FS_STEPPED;
}

static void replay_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    replay_slices(row, table->jobs + row->job, begin, end);
}

int fs_catch_up(fs_table *table, int threads) {
    if (!rounding_is_to_nearest())
        return FS_REFUSED;
    count_units(table);
    work w = {.table = table, .starts = table->units, .run = replay_row};
    share(&w, LEAST, MOST, worth(table, w.starts, FS_SHARED, threads), &table->paces, 0);
    return 0;
}

/* ---- sums of squares ---- */

static void sum_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    const fs_job *job = table->jobs + row->job;
    if (row->slices && !is_whole(row->slices)) /* whose sums are there by now */
        return;
    end = end * FS_BLOCK < row->n ? end * FS_BLOCK : row->n;
    if (job->operands && job->operands->g.format)
        sum_tiles(job, row, begin * FS_BLOCK, end);
    else
        job->squares(row, begin * FS_BLOCK, end, job->scalars);
}

void fs_measure(fs_table *table, int threads, double scale, double max_norm, fs_measured *to) {
    work w = {.table = table, .starts = table->blocks, .run = sum_row};
    rounding callers = rounding_begin();
    for (const fs_row *row = table->rows; row < table->rows + table->nrows; row++)
        if (row->slices && !is_whole(row->slices))
            sum_slices(row, table->jobs + row->job);
    rounding_end(callers);
    const int enough = worth(table, table->elements, WORTH_SUMMING, threads);
    share(&w, 1, MOST_BLOCKS, enough, &table->squares_paces, 1);
    measure(table, scale, max_norm, to);
}
