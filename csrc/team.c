/*
 * Who shares a step's work: a framework's OpenMP team, if that is awake; else our
 * own pool, if that has proved worth its waking; else nobody.
 *
 * What a helper is worth nobody can tell beforehand. Steps that follow one another
 * closely take half the time with one. Between matrix products of OpenBLAS, whose
 * threads spin on the cores, a step of 100,000 elements took 140 us with a helper
 * and 110 without. Between torch's products its awake team halves a step, but on a
 * machine where others compete for the cores it waits for a thread of the team that
 * has none: 8 ms where the caller alone took 0.2. So each table of rows keeps its
 * pace either way, with each kind of helper, and goes the faster. Now and then it
 * tries the other for a few steps, the more rarely the more often that was in vain.
 */
#include "clock.h"
#include "team.h"

enum {
    TRIAL = 6,     /* steps of a trial */
    COUNTED = 3,   /* the last of them, with the helpers warm */
    SHORTEST = 32, /* steps between two trials */
    LONGEST = 2048,
};

static _Thread_local const char *last = "caller";

/* A moving mean in which one outlier counts no more than twice the mean. */
static int64_t blend(int64_t mean, int64_t sample) {
    if (mean == 0)
        return sample;
    return (mean + (sample < 2 * mean ? sample : 2 * mean)) / 2;
}

static void next_phase(fs_pace *pace) {
    int64_t mean = pace->mean[pace->shared], other = pace->mean[!pace->shared];
    if (!pace->trial) {
        pace->shared = !pace->shared;
        pace->mean[pace->shared] = 0;
        pace->left = TRIAL;
    } else if (other == 0) {
        pace->interval = SHORTEST;
        pace->left = 1; /* and then a trial of the other */
    } else if (mean < other) {
        pace->left = pace->interval = SHORTEST;
    } else {
        pace->shared = !pace->shared;
        pace->interval = 2 * pace->interval < LONGEST ? 2 * pace->interval : LONGEST;
        pace->left = pace->interval;
    }
    pace->trial = !pace->trial;
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
    if (pace->shared)
        with->run(task, arg, threads, soon);
    else
        task(arg, 0);
    if (!pace->trial || pace->left < COUNTED)
        pace->mean[pace->shared] = blend(pace->mean[pace->shared], clock_now() - began);
    last = pace->shared ? with->name : "caller";
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
