/*
 * One step of a table, and the sums of squares that may go before it.
 *
 * The total work is cut into chunks that fit the cache and may span or divide tensors. Threads
 * take them from atomic counters, however many come. Each thread has a part of the whole, the
 * same at each step, because its cache may still hold it; when that is done it takes chunks of
 * the other parts.
 */
#include "norm.h"
#include "rounding.h"
#include "team.h"

#include <stdatomic.h>
#include <string.h>

/* In elements, unless said otherwise. A float32 AdamW step takes some 3 us over 10,000. */
enum {
    WORTH_SHARING = 30000, /* a smaller step is done before a helper is awake */
    WORTH_SUMMING = 60000, /* and so are smaller sums of squares */
    SHARES = 8,            /* chunks for each thread, so that none waits long for another's last */
    LEAST = 2048,          /* in a chunk: to take a smaller one costs as much as to step it */
    MOST = 16384,          /* in a chunk: four float32 arrays of this fill a quarter of an L2 */
    LONG = 1024,           /* a run from which an aligned start is worth a call of its own */
    LINE = 64,             /* bytes of a cache line, and of the longest vector */
    MOST_BLOCKS = 64,      /* blocks in a chunk of sums of squares */
    ZEROED = 4096,         /* bytes of a gradient that are zeroed together, while in the L1 */
    MOST_PARTS = 64,       /* threads with a part of their own */
    AHEAD = 16,            /* cells that are fetched into the cache before they are written */
};

/* The work of a thread on units [begin, end) of a row: elements of a step, or blocks of sums. */
typedef void (*row_task)(const fs_table *table, const fs_row *row, int64_t begin, int64_t end);

typedef struct {
    const fs_table *table;
    const int64_t *starts; /* units before each row, and in all */
    row_task run;
    int64_t total;                    /* units of the whole */
    int64_t chunk;                    /* units of a chunk */
    int parts;                        /* parts of the whole, one for each thread */
    _Atomic int64_t next[MOST_PARTS]; /* where each part's next chunk begins */
} work;

/* The row that holds unit `at` of the whole: the last one that starts at or before it. */
static int64_t row_at(const work *w, int64_t at) {
    int64_t low = 0, high = w->table->nrows;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (w->starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Runs units [from, to) of the whole. */
static void run_chunk(const work *w, int64_t from, int64_t to) {
    for (int64_t row = row_at(w, from); from < to; row++) {
        int64_t start = w->starts[row], end = w->starts[row + 1];
        int64_t stop = end < to ? end : to;
        w->run(w->table, w->table->rows + row, from - start, stop - start);
        from = stop;
    }
}

static int64_t start_of(const work *w, int part) { return w->total / w->parts * part; }

static void run_part(work *w, int part) {
    int64_t end = part + 1 < w->parts ? start_of(w, part + 1) : w->total;
    for (;;) {
        int64_t from = atomic_fetch_add_explicit(w->next + part, w->chunk, memory_order_relaxed);
        if (from >= end)
            break;
        run_chunk(w, from, from + w->chunk < end ? from + w->chunk : end);
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
    w->total = w->starts[w->table->nrows];
    w->parts = threads < MOST_PARTS ? threads : MOST_PARTS;
    w->chunk = w->total / ((int64_t)threads * SHARES);
    w->chunk = w->chunk < least ? least : w->chunk > most ? most : w->chunk;
    for (int part = 0; part < w->parts; part++)
        w->next[part] = start_of(w, part);
    team_run(run_parts, w, threads, paces, soon);
}

/* The number of `threads` that are worth their waking: all from so many `elements` on, else one. */
static int worth(const fs_table *table, int64_t elements, int threads) {
    return table->elements[table->nrows] < elements ? 1 : threads;
}

/* ---- a step ---- */

/* Moves a cut before element `at` of a row to the next element whose p begins a cache line, so
 * that no vector of a long run straddles two. Two chunks that meet at `at` agree on it. */
static int64_t cut(const fs_row *row, int64_t at, int64_t itemsize) {
    if (at <= 0 || at >= row->n)
        return at;
    uintptr_t past = ((uintptr_t)row->p + (uintptr_t)(at * itemsize)) % LINE;
    at += past ? (int64_t)(LINE - past) / itemsize : 0;
    return at < row->n ? at : row->n;
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

static void step_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    const fs_job *job = table->jobs + row->job;
    void (*run)(const fs_job *, const fs_row *, int64_t, int64_t) =
        table->zeroes ? run_kernel_and_zero : run_kernel;
    begin = cut(row, begin, job->itemsize);
    end = cut(row, end, job->itemsize);
    if (begin == 0 && end > LONG) {
        begin = cut(row, 1, job->itemsize);
        run(job, row, 0, begin);
    }
    if (begin < end)
        run(job, row, begin, end);
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
        __builtin_prefetch((cell + (cell + AHEAD < table->cells + table->ncells ? AHEAD : 0))->at, 1);
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

int fs_step(fs_table *table, int threads, int zeroes) {
    if (!rounding_is_to_nearest())
        return FS_REFUSED;
    table->zeroes = zeroes;
    round_scalars(table);
    work w = {.table = table, .starts = table->elements, .run = step_row};
    share(&w, LEAST, MOST, worth(table, WORTH_SHARING, threads), &table->paces, 0);
    write_cells(table);
    ++*table->steps;
    return 0;
}

int64_t fs_take_and_step(fs_table *table, uintptr_t list, int threads) {
    int64_t taken = fs_take(table, list, 0, 0);
    if (taken == table->nheaders && fs_step(table, threads, 0) == FS_REFUSED)
        return FS_REFUSED;
    return taken;
}

/* ---- sums of squares ---- */

static void sum_row(const fs_table *table, const fs_row *row, int64_t begin, int64_t end) {
    const fs_job *job = table->jobs + row->job;
    end = end * FS_BLOCK < row->n ? end * FS_BLOCK : row->n;
    job->squares(row, begin * FS_BLOCK, end, job->scalars);
}

void fs_measure(fs_table *table, int threads, double scale, double max_norm, fs_measured *to) {
    work w = {.table = table, .starts = table->blocks, .run = sum_row};
    share(&w, 1, MOST_BLOCKS, worth(table, WORTH_SUMMING, threads), &table->squares_paces, 1);
    measure(table, scale, max_norm, to);
}
