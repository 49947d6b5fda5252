/*
 * Columns of slices that are stepped by scalars of their own: learning rates by column.
 *
 * The table of a slice's scalars has the lines of one set of columns after those of the other. A
 * kernel is run on columns of the same set that lie side by side; where such runs are short, one
 * that takes rates, decays and gains for each element, from where they are laid out.
 */
#pragma once
#include "api.h"

enum { MOST_OWN = 512 }; /* columns that are laid out for a row by itself */

/* Room of a thread for what a line has for each column: its rates, decays and gains. */
typedef struct {
    _Alignas(64) double values[3 * MOST_OWN];
    int64_t line; /* that they are of; -1: of none yet */
} columns_room;

/* A run of columns of the same set, and the first element of its slice. */
typedef struct {
    int64_t run, from;
} run_of_columns;

/* The run that an element is in. */
static inline run_of_columns run_at(const fs_slices *slices, int64_t element) {
    run_of_columns found = {0, element - element % slices->width};
    while (slices->ends[found.run] <= element - found.from)
        found.run++;
    return found;
}

static inline int64_t end_of_run(const fs_slices *slices, run_of_columns at, int64_t end) {
    const int64_t stop = at.from + slices->ends[at.run];
    return stop < end ? stop : end;
}

static inline run_of_columns next_run(const fs_slices *slices, run_of_columns at) {
    if (slices->ends[at.run] < slices->width)
        return (run_of_columns){at.run + 1, at.from};
    return (run_of_columns){0, at.from + slices->width};
}

/* A line of a set in the table. */
static inline char *line_of(const fs_slices *slices, const fs_job *job, int64_t set, int64_t line) {
    return (char *)slices->table + (set * slices->lines + line) * job->nscalars * job->itemsize;
}

/* The line by which the next step of slices is that have none of their own. */
static inline int64_t next_line(const fs_slices *slices) {
    return slices->entries ? slices->entries[0] : slices->t + 1 - slices->first;
}

/* The scalars of a line, in `own`. What a step is asked for is the same for all slices. */
const void *with_asked(const fs_job *job, const void *line, void *own);

/* Before a step of slices whose columns have scalars of their own: puts what it is asked for into
 * these, and lays them out. */
void begin_columns(const fs_row *row, const fs_job *job);

/* Steps elements [begin, end) of slices by these scalars; where columns have their own, by what
 * they have in common, and the rates in a line. */
void step_columns(const fs_row *row, const fs_job *job, int64_t begin, int64_t end,
                  const void *scalars, int64_t line, columns_room *room);
