/*
 * The threads of a step. `team_run` calls `task(arg, 0)` on the caller's thread and
 * `task(arg, k)` on up to threads - 1 others, whose k from 1 on tell them apart, and
 * returns when all that began have returned.
 * A task takes work until none is left, so it is no matter how many threads
 * there are: which of them turn up decides the time, never the result.
 */
#pragma once
#include "api.h"

typedef void (*team_task)(void *arg, int thread);

/* `soon` says that another task will follow at once. */
void team_run(team_task task, void *arg, int threads, fs_paces *paces, int soon);

/* Our own helpers, asleep between steps (pool.c). */
void pool_run(team_task task, void *arg, int threads, int soon);

/* The OpenMP team that a framework keeps awake (openmp.c). `begin_gap` marks the
 * end of a step that did not borrow it; `is_awake` judges the gap since then. */
int openmp_is_awake(void);
void openmp_begin_gap(void);
void openmp_run(team_task task, void *arg, int threads, int soon);
