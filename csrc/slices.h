/* Steps of single slices of a tensor: see slices.c. */
#pragma once
#include "api.h"

/* Counts the units of work before each row, in all of a table that has slices. */
void count_units(const fs_table *table);

/* Returns 1 if a row's slices are all of its tensor, with one gradient each, in their order. */
int is_whole(const fs_slices *slices);

/* Steps those slices of a row that units [begin, end) of its work stand for. */
void run_slices(const fs_row *row, const fs_job *job, int64_t begin, int64_t end);

/* Takes the steps that those slices have missed. */
void replay_slices(const fs_row *row, const fs_job *job, int64_t begin, int64_t end);

/* Sums the squares of the gradient of a row with slices, as if all others had gradients of 0. */
void sum_slices(const fs_row *row, const fs_job *job);
