/*
 * One step of everything: the table's total work, cut into chunks that fit the
 * cache and may span or divide tensors, taken from an atomic counter by however
 * many threads turn up.
 */
#include "team.h"

#include <fenv.h>
#include <stdatomic.h>

enum { CHUNK = 16384 }; /* elements: four float32 arrays of it take 256 KiB, a quarter of an L2 */

typedef struct {
    const fs_row *rows;
    int64_t nrows;
    const fs_job *jobs;
    int64_t total; /* elements */
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

static void run_chunk(const step *s, int64_t from, int64_t to) {
    const fs_row *row = s->rows + row_at(s, from);
    for (; from < to; row++) {
        int64_t begin = from - row->start;
        int64_t end = to - row->start < row->n ? to - row->start : row->n;
        const fs_job *job = s->jobs + row->job;
        if (begin < end) {
            job->kernel(row, begin, end, &job->scalars);
            from = row->start + end;
        }
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
        int64_t from = atomic_fetch_add_explicit(&s->next, CHUNK, memory_order_relaxed);
        if (from >= s->total)
            break;
        run_chunk(s, from, from + CHUNK < s->total ? from + CHUNK : s->total);
    }
    fesetenv(&environment);
}

void fs_step(const fs_row *rows, int64_t nrows, const fs_job *jobs, int64_t bytes, int threads) {
    if (nrows == 0)
        return;
    const fs_row *last = rows + nrows - 1;
    step s = {.rows = rows, .nrows = nrows, .jobs = jobs, .total = last->start + last->n};
    int64_t chunks = (s.total + CHUNK - 1) / CHUNK;
    team_run(run_chunks, &s, threads < chunks ? threads : (int)chunks, bytes);
}
