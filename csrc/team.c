/*
 * The choice of helpers for a step: a framework's OpenMP team if it is awake, else the pool; and
 * with either kind, whether the caller goes with them or alone.
 *
 * Nothing tells beforehand what a helper is worth. Steps that follow one another closely take
 * half the time with one. Between matrix products of OpenBLAS, whose threads spin on the cores,
 * a step of 100,000 elements took 140 us with a helper and 110 without. Between torch's products
 * its awake team halves a step; but where other programs compete for the cores, the step waits
 * for a thread of the team that has none: 8 ms where the caller alone took 0.2. So each table
 * times its steps both ways, with each kind of helper, and goes the faster way. Now and then it
 * tries the other for a few steps, and the longer this brings nothing, the more rarely.
 */
#include "clock.h"
#include "team.h"

enum {
    TRIAL = 6,      /* steps of a trial */
    COUNTED = 3,    /* of these, the last so many are timed, when the helpers are warm */
    SHORTEST = 32,  /* steps between two trials, at least */
    LONGEST = 2048, /* and at most */
};

enum { ALONE, SHARED };     /* the ways that steps can go: fs_pace.shared */
enum { SETTLED, ON_TRIAL }; /* the states of a phase: fs_pace.trial */

static _Thread_local const char *last = "caller";

/* A moving mean in which one outlier counts no more than twice the mean. */
static int64_t blend(int64_t mean, int64_t sample) {
    if (mean == 0)
        return sample;
    return (mean + (sample < 2 * mean ? sample : 2 * mean)) / 2;
}

/* A phase: a number of steps that all go one way. */
typedef struct {
    int shared, trial, left, interval; /* as in fs_pace */
} phase;

/* The phase that follows: the first row whose condition holds. */
static phase phase_after(const fs_pace *pace) {
    const int way = pace->shared, other = way == ALONE ? SHARED : ALONE;
    const int settled = pace->trial == SETTLED;             /* it is time for a trial */
    const int untimed = pace->mean[other] == 0;             /* nothing to compare with yet */
    const int faster = pace->mean[way] < pace->mean[other]; /* so the trial has paid */
    const int interval = pace->interval;
    const int longer = 2 * interval < LONGEST ? 2 * interval : LONGEST;
    // clang-format off
    return             /* way    state     steps     interval */
        settled ? (phase){other, ON_TRIAL, TRIAL,    interval} :
        untimed ? (phase){way,   SETTLED,  1,        SHORTEST} : /* and then a trial of the other */
        faster  ? (phase){way,   SETTLED,  SHORTEST, SHORTEST} :
                  (phase){other, SETTLED,  longer,   longer};
    // clang-format on
}

static void next_phase(fs_pace *pace) {
    const phase next = phase_after(pace);
    pace->shared = next.shared;
    pace->trial = next.trial;
    pace->left = next.left;
    pace->interval = next.interval;
    if (pace->trial == ON_TRIAL)
        pace->mean[pace->shared] = 0; /* a trial times its way anew */
}

typedef struct {
    const char *name;
    void (*run)(team_task task, void *arg, int threads, int soon);
} helpers;

static const helpers pool = {"pool", pool_run}, openmp = {"openmp", openmp_run};

static void run_at_pace(const helpers *with, team_task task, void *arg, int threads, fs_pace *pace,
                        int soon) {
    if (pace->left <= 0)
        next_phase(pace);
    pace->left--;
    int64_t began = clock_now();
    if (pace->shared == SHARED)
        with->run(task, arg, threads, soon);
    else
        task(arg, 0);
    if (pace->trial == SETTLED || pace->left < COUNTED)
        pace->mean[pace->shared] = blend(pace->mean[pace->shared], clock_now() - began);
    last = pace->shared == SHARED ? with->name : "caller";
}

void team_run(team_task task, void *arg, int threads, fs_paces *paces, int soon) {
    if (threads < 2) {
        last = "caller";
        task(arg, 0);
    } else if (openmp_is_awake()) {
        run_at_pace(&openmp, task, arg, threads, &paces->openmp, soon);
    } else {
        run_at_pace(&pool, task, arg, threads, &paces->pool, soon);
        openmp_begin_gap();
    }
}

const char *fs_team(void) { return last; }
