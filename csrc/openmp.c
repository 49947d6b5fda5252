/*
 * The OpenMP team of a framework that shares the process.
 *
 * Between two steps of a torch loop the team of torch's matrix products spins,
 * ready for more: work handed to it starts at once, while threads of our own
 * find the cores taken. In a NumPy loop the opposite holds: there OpenBLAS has
 * the cores, and waiting for an OpenMP thread costs a hundred steps. So the team
 * is borrowed only after it was seen at work: its second thread must have used
 * the CPU through most of the gap between two steps that did not borrow it.
 *
 * GNU's runtime is called through dlsym, so the extension needs no OpenMP to
 * build or to load. A forked child must not touch it: its threads are gone, and
 * the runtime would wait for them forever.
 */
#define _GNU_SOURCE
#include "team.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

enum {
    LOOK_EVERY = 64, /* steps between two looks for the runtime */
    TRUST = 64,      /* steps that borrow the team before it is judged again */
};

static void (*gomp_parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
static int (*omp_get_thread_num)(void);
static int (*omp_get_max_threads)(void);
static _Atomic int found, forked;

/* Each thread that opens parallel regions has an OpenMP team of its own. */
static _Thread_local struct {
    unsigned steps;
    int acquainted;  /* `second` is known */
    clockid_t second; /* CPU clock of the team's second thread */
    int trust;       /* steps that may still borrow */
    int64_t wall;    /* when the last step that did not borrow ended; 0 if it did */
    int64_t cpu;     /* what `second` read then */
} team;

static void mark_forked(void) { forked = 1; }

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(NULL, NULL, mark_forked);
}

/* RTLD_NOLOAD: only a runtime that somebody else has loaded. */
static void look_for_runtime(void) {
    void *runtime = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!runtime)
        return;
    gomp_parallel = dlsym(runtime, "GOMP_parallel");
    omp_get_thread_num = dlsym(runtime, "omp_get_thread_num");
    omp_get_max_threads = dlsym(runtime, "omp_get_max_threads");
    found = gomp_parallel && omp_get_thread_num && omp_get_max_threads;
}

static void introduce(void *second) {
    if (omp_get_thread_num() == 1)
        pthread_getcpuclockid(pthread_self(), second);
}

static int available(void) {
    if (!found && team.steps++ % LOOK_EVERY == 0)
        look_for_runtime();
    return found && !forked && omp_get_max_threads() > 1;
}

int openmp_is_awake(void) {
    if (!available())
        return 0;
    if (!team.acquainted) {
        gomp_parallel(introduce, &team.second, 0, 0);
        team.acquainted = 1;
        return 0;
    }
    if (team.trust > 0) {
        team.trust--;
        team.wall = 0;
        return 1;
    }
    if (team.wall == 0)
        return 0;
    int64_t gap = team_clock() - team.wall;
    int64_t used = clock_read(team.second) - team.cpu;
    team.trust = 2 * used > gap ? TRUST : 0;
    return team.trust > 0;
}

void openmp_begin_gap(void) {
    if (team.acquainted) {
        team.cpu = clock_read(team.second);
        team.wall = team_clock();
    }
}

typedef struct {
    team_task task;
    void *arg;
    int threads;
} share;

static void run_share(void *arg) {
    const share *s = arg;
    if (omp_get_thread_num() < s->threads)
        s->task(s->arg);
}

/* The team keeps the size that its owner gave it: another would have it torn
 * down and built again, here and at the owner's next product. Threads past our
 * own limit find nothing to do. */
void openmp_run(team_task task, void *arg, int threads) {
    share s = {task, arg, threads};
    gomp_parallel(run_share, &s, 0, 0);
}
