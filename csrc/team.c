/*
 * Who shares a step's work: nobody, if it is done before a helper is up; a
 * framework's OpenMP team, if that is awake; else our own pool.
 */
#include "team.h"

/* Traffic below which the caller alone is faster: about what one core moves
 * through its caches while a sleeping thread wakes. */
enum { ALONE = 1 << 20 };

static _Thread_local const char *last = "caller";

void team_run(team_task task, void *arg, int threads, int64_t bytes) {
    if (threads < 2 || bytes < ALONE) {
        last = "caller";
        task(arg);
    } else if (openmp_is_awake()) {
        last = "openmp";
        openmp_run(task, arg, threads);
    } else {
        last = "pool";
        pool_run(task, arg, threads);
        openmp_begin_gap();
    }
}

const char *fs_team(void) { return last; }
