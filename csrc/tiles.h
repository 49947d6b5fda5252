/* Steps and sums of squares of rows whose operands are kept in fewer bytes: see tiles.c. */
#pragma once
#include "api.h"

/* Runs the job's kernel on elements [begin, end), where begin is a tile's first; `zero` leaves
 * zeros in the gradient. */
void run_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end, int zero);

/* The same of its `squares`, where begin is a block's first. */
void sum_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end);
