/*
 * One step of everything: the table's total work, cut into chunks that fit the
 * cache and may span or divide tensors, taken from an atomic counter by however
 * many threads turn up.
 */
#include "team.h"

#include <fenv.h>
#include <stdatomic.h>

/* In elements, but for the last. A float32 AdamW step takes some 3 us over 10,000. */
enum {
    WORTH_SHARING = 30000, /* a step below is done before a helper is up */
    SHARES = 8,            /* chunks for each thread: none waits long for another's last */
    LEAST = 2048,          /* a chunk: below, taking it costs as much as doing it */
    MOST = 16384,          /* and four float32 arrays of this many fill a quarter of an L2 */
    LONG = 1024,           /* a run from which an aligned start is worth a call of its own */
    LINE = 64,             /* bytes of a cache line, and of the widest vector */
};

typedef struct {
    const fs_row *rows;
    int64_t nrows;
    const fs_job *jobs;
    int64_t total, chunk; /* elements */
    _Atomic int64_t next;
} step;

/* The row that holds element `at` of the whole: the last that starts at or before it. */
static int64_t row_at(const step *s, int64_t at) {
    int64_t low = 0, high = s->nrows;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (s->rows[middle].start <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Where a cut before element `at` of a row really falls: where p enters a new
 * cache line, so that no vector of a long run straddles two. Any two chunks that
 * meet at `at` agree on it. */
static int64_t cut(const fs_row *row, int64_t at, int64_t itemsize) {
    if (at <= 0)
        return 0;
    uintptr_t past = ((uintptr_t)row->p + (uintptr_t)(at * itemsize)) % LINE;
    at += past ? (int64_t)(LINE - past) / itemsize : 0;
    return at < row->n ? at : row->n;
}

static void run_row(const fs_row *row, int64_t begin, int64_t end, const fs_job *job) {
    int64_t first = cut(row, 1, job->itemsize);
    begin = cut(row, begin, job->itemsize);
    end = cut(row, end, job->itemsize);
    if (begin == 0 && end > LONG) {
        job->kernel(row, 0, first, job->scalars);
        begin = first;
    }
    if (begin < end)
        job->kernel(row, begin, end, job->scalars);
}

/* Elements [from, to) of the whole. */
static void run_chunk(const step *s, int64_t from, int64_t to) {
    for (const fs_row *row = s->rows + row_at(s, from); from < to; row++) {
        int64_t stop = row->start + row->n < to ? row->start + row->n : to;
        run_row(row, from - row->start, stop - row->start, s->jobs + row->job);
        from = stop;
    }
}

/* Every thread of the team runs this until no chunk is left. The caller may have
 * set another rounding or flush subnormals; the contract does neither. */
static void run_chunks(void *arg) {
    step *s = arg;
    fenv_t environment;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    for (;;) {
        int64_t from = atomic_fetch_add_explicit(&s->next, s->chunk, memory_order_relaxed);
        if (from >= s->total)
            break;
        run_chunk(s, from, from + s->chunk < s->total ? from + s->chunk : s->total);
    }
    fesetenv(&environment);
}

void fs_step(fs_table *table, int threads) {
    if (table->nrows == 0)
        return;
    const fs_row *last = table->rows + table->nrows - 1;
    step s = {.rows = table->rows, .nrows = table->nrows, .jobs = table->jobs};
    s.total = last->start + last->n;
    s.chunk = s.total / ((int64_t)threads * SHARES);
    s.chunk = s.chunk < LEAST ? LEAST : s.chunk > MOST ? MOST : s.chunk;
    team_run(run_chunks, &s, s.total < WORTH_SHARING ? 1 : threads, &table->pace);
}

int64_t fs_take_and_step(fs_table *table, uintptr_t list, int threads) {
    int64_t taken = fs_take(table, list, 0);
    if (taken == table->nheaders)
        fs_step(table, threads);
    return taken;
}
