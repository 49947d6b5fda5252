#include "columns.h"

#include <stddef.h>
#include <string.h>

enum {
    LINE = 64,  /* bytes of a cache line */
    SHORT = 64, /* columns of a run that are few for a kernel of its own */
};

const void *with_asked(const fs_job *job, const void *line, void *own) {
    const int64_t asked[] = {job->unscale, job->clip, job->most};
    if (own != line)
        memcpy(own, line, (size_t)(job->nscalars * job->itemsize));
    if (job->itemsize == sizeof(float))
        for (int k = 0; k < 3; k++)
            ((float *)own)[asked[k]] = ((const float *)job->scalars)[asked[k]];
    else
        for (int k = 0; k < 3; k++)
            ((double *)own)[asked[k]] = ((const double *)job->scalars)[asked[k]];
    return own;
}

/* What a line has for each column, as it is laid out. */
typedef struct {
    const void *values;
    int64_t period; /* columns from any one on; 0: to the end of the row */
    int64_t apart;
} laid;

/* Whether kernels take rates by column: short runs are slow, one kernel for each. */
static int takes_rates(const fs_slices *slices, const fs_job *job) {
    return job->by_column && slices->width < SHORT * slices->nruns;
}

/* Lays out the rates, decays and gains of a line: n columns of each. */
static void lay_out(const fs_slices *slices, const fs_job *job, int64_t line, void *to, int64_t n) {
    const size_t rated[] = {offsetof(fs_scalars, lr), offsetof(fs_scalars, decay),
                            offsetof(fs_scalars, gain)};
    for (int which = 0; which < 3; which++) {
        const int64_t place = (int64_t)(rated[which] / sizeof(double)), first = which * n;
        int64_t column = 0;
        for (int64_t run = 0; run < slices->nruns; run++) {
            const char *of_set = line_of(slices, job, slices->sets[run], line);
            for (; column < slices->ends[run]; column++)
                if (job->itemsize == sizeof(float))
                    ((float *)to)[first + column] = ((const float *)of_set)[place];
                else
                    ((double *)to)[first + column] = ((const double *)of_set)[place];
        }
        char *begin = (char *)to + first * job->itemsize;
        for (int64_t more; column < n; column += more) {
            more = column < n - column ? column : n - column;
            memcpy(begin + column * job->itemsize, begin, (size_t)(more * job->itemsize));
        }
    }
}

/* Steps elements [begin, end), whose columns are laid out, by scalars that they have in common. */
static void step_laid(const fs_row *row, const fs_job *job, int64_t begin, int64_t end,
                      const void *scalars, laid rates) {
    const int64_t width = row->slices->width, itemsize = job->itemsize;
    for (int64_t at = begin, stop; at < end; at = stop) {
        const int64_t column = at % width;
        stop = at + (rates.period ? rates.period : width - column);
        const int64_t past = (int64_t)((uintptr_t)row->p + (uintptr_t)(at * itemsize)) % LINE;
        if (rates.period && past && stop < end) /* so that no vector straddles two lines */
            stop = at + (LINE - past) / itemsize;
        stop = stop < end ? stop : end;
        const char *values = (const char *)rates.values + column * itemsize;
        job->by_column(row, at, stop, scalars, values, rates.apart);
    }
}

/* Whether all columns of a step can be laid out at once. */
static int can_lay_out(const fs_slices *slices, const fs_job *job, int is_own) {
    return takes_rates(slices, job) && (is_own ? slices->width <= MOST_OWN : slices->rates != NULL);
}

void step_columns(const fs_row *row, const fs_job *job, int64_t begin, int64_t end,
                  const void *scalars, int64_t line, columns_room *room) {
    const fs_slices *slices = row->slices;
    if (!slices->ends) {
        job->kernel(row, begin, end, scalars);
        return;
    }
    const int is_own = slices->entries && slices->counts;
    double own[job->nscalars];
    if (can_lay_out(slices, job, is_own)) {
        laid rates = {slices->rates, slices->period, slices->apart};
        if (is_own) {
            if (room->line != line)
                lay_out(slices, job, line, room->values, slices->width);
            room->line = line;
            rates = (laid){room->values, 0, slices->width};
        }
        step_laid(row, job, begin, end, scalars, rates);
        return;
    }
    run_of_columns at = run_at(slices, begin);
    for (int64_t stop; begin < end; begin = stop, at = next_run(slices, at)) {
        stop = end_of_run(slices, at, end);
        const void *of_set = line_of(slices, job, slices->sets[at.run], line);
        if (is_own)
            of_set = with_asked(job, of_set, own);
        job->kernel(row, begin, stop, of_set);
    }
}

void begin_columns(const fs_row *row, const fs_job *job) {
    const fs_slices *slices = row->slices;
    if (!slices->ends || (slices->entries && slices->counts))
        return;
    const int64_t next = next_line(slices);
    for (int64_t set = 0; slices->entries && set < slices->nsets; set++) {
        char *line = line_of(slices, job, set, next);
        with_asked(job, line, line);
    }
    if (can_lay_out(slices, job, 0))
        lay_out(slices, job, next, slices->rates, slices->apart);
}
