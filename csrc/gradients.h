/* Gradients that are taken: see gradients.c and asked.c. */
#pragma once
#include "describe.h"

/* Returns 1 if the array that a description is of is laid out as its header says. */
int is_alike(const fs_header *known, const description *found);

/* Lets a row read its gradient from there, if it is laid out as the one before: 1, or 0 if Python
 * has to look. */
int move(fs_table *table, fs_header *known, intptr_t data);

/* Returns 1 if gradients of that parameter are on a device and tell where by attributes alone. */
static inline int is_asked(const fs_table *table, const fs_header *known) {
    return known->row && known->library >= 0 && !known->row->slices &&
           table->libraries[known->library].way >= FS_BY_ATTRIBUTE;
}

/* Takes such gradients out of a list, as long as there are some, from index `at` to before `end`.
 * Returns the index of the first that is not taken. */
int64_t take_asked(fs_table *table, PyObject *list, int64_t at, int64_t end);
