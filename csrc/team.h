/*
 * The threads of a step: one way to run a task on several of them.
 *
 * `team_run` calls `task(arg, 0)` on the caller's thread and `task(arg, k)`, k from 1 on, on up
 * to threads - 1 helpers. It returns when every call that began has returned. A task takes work
 * until none is left, so the number of helpers that come decides the time, never the result.
 */
#pragma once
#include "api.h"

typedef void (*team_task)(void *arg, int thread);

/* `soon` says that another task follows at once. */
void team_run(team_task task, void *arg, int threads, fs_paces *paces, int soon);

/* The library's own helpers, which sleep between steps (pool.c). */
void pool_run(team_task task, void *arg, int threads, int soon);

/* The OpenMP team of a framework in the same process (openmp.c). `begin_gap` marks the end of a
 * step that did not borrow it; `is_awake` judges by the time since then. */
int openmp_is_awake(void);
void openmp_begin_gap(void);
void openmp_run(team_task task, void *arg, int threads, int soon);
