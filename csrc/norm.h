/*
 * The norm of all gradients together, from the sums of squares of their blocks. norm.py defines
 * it, operation by operation.
 */
#pragma once
#include "api.h"

void measure(const fs_table *table, double scale, double max_norm, fs_measured *to);
