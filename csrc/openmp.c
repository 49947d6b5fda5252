/*
 * The OpenMP team of a framework in the same process, borrowed for a step.
 *
 * Between two steps of a torch loop the team of torch's matrix products spins, ready for more.
 * Work given to it starts at once, while the pool's helpers would find the cores taken. In a
 * NumPy loop the opposite holds: OpenBLAS has the cores, and to wait for an OpenMP thread costs
 * a hundred steps. So a step borrows the team only after it was seen awake: its second thread
 * must have used the CPU for at least half of the gap between two steps that did not borrow it.
 *
 * GNU's runtime is called through dlsym, so the extension needs no OpenMP to build or to load. A
 * forked child must not call it: the team's threads are gone, and the runtime would wait for
 * them forever. For the same reason no team may stay that was made here, where there was none, or
 * children that use OpenMP would hang. Whether there is one cannot be asked: the CPU that passes for
 * its work may be that of the pool's helpers, or of OpenBLAS. So a team is dismissed at once if the
 * process has more threads after its first call than before.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "team.h"

#ifdef __linux__
#include <dlfcn.h>
#include <pthread.h>
#include <sys/stat.h>

enum {
    LOOK_EVERY = 64,  /* steps between two looks for the runtime */
    LONG_NS = 200000, /* a gap that the pool's helpers do not spin through */
    TRUST = 64,       /* steps that borrow the team before it is judged again */
    SOFT = 1,         /* omp_pause_soft: threads go, settings stay */
    SOONEST = 64,     /* steps that seem to find a team awake, from one that was none to the next */
    LATEST = 1 << 20, /* try, at least, and at most */
};

static void (*_Atomic gomp_parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
static int (*_Atomic omp_get_thread_num)(void);
static int (*_Atomic omp_get_max_threads)(void);
static int (*_Atomic omp_in_parallel)(void);
static int (*_Atomic omp_pause_resource_all)(int kind);
static _Atomic int found, forked;

/* A calling thread's knowledge of the OpenMP team that its parallel regions get. */
typedef struct {
    unsigned steps;   /* steps so far without a runtime */
    int trust;        /* steps that may still borrow the team */
    int acquainted;   /* 1: `second` is known */
    int interval;     /* steps that seem to find a team awake from one try to the next */
    int left;         /* and how many of them are left */
    clockid_t second; /* CPU clock of the team's second thread */
    int64_t wall;     /* when the last step ended, in ns; 0: it borrowed, or there was none */
    int64_t cpu;      /* cpu_of_team() at that moment */
} acquaintance;

static _Thread_local acquaintance team;

static void mark_forked(void) { forked = 1; }

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(NULL, NULL, mark_forked);
}

/* RTLD_NOLOAD finds only a runtime that another library has loaded. */
static void look_for_runtime(void) {
    void *runtime = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!runtime)
        return;
    gomp_parallel = dlsym(runtime, "GOMP_parallel");
    omp_get_thread_num = dlsym(runtime, "omp_get_thread_num");
    omp_get_max_threads = dlsym(runtime, "omp_get_max_threads");
    omp_in_parallel = dlsym(runtime, "omp_in_parallel");
    omp_pause_resource_all = dlsym(runtime, "omp_pause_resource_all");
    found = gomp_parallel && omp_get_thread_num && omp_get_max_threads && omp_in_parallel &&
            omp_pause_resource_all;
}

static int available(void) {
    if (!found && team.steps++ % LOOK_EVERY == 0)
        look_for_runtime();
    return found && !forked && omp_get_max_threads() > 1 && !omp_in_parallel();
}

/* Nanoseconds of CPU that the team's second thread has used. Until that thread is known, those
 * of the whole process but the caller stand for it. */
static int64_t cpu_of_team(void) {
    if (team.acquainted)
        return clock_read(team.second);
    return clock_read(CLOCK_PROCESS_CPUTIME_ID) - clock_read(CLOCK_THREAD_CPUTIME_ID);
}

static void introduce(void *caller) {
    acquaintance *known = caller;
    if (omp_get_thread_num() == 1)
        known->acquainted = pthread_getcpuclockid(pthread_self(), &known->second) == 0;
}

/* How many threads the process has, and a constant; 0 if that cannot be known. */
static uint64_t threads_of_process(void) {
    struct stat tasks;
    return stat("/proc/self/task", &tasks) == 0 ? tasks.st_nlink : 0;
}

static void get_acquainted(void) {
    uint64_t before = threads_of_process();
    if (!before)
        return;
    gomp_parallel(introduce, &team, 0, 0);
    if (threads_of_process() > before) {
        omp_pause_resource_all(SOFT);
        team.acquainted = 0;
    }
    if (!team.acquainted) {
        int later = 2 * team.interval < LATEST ? 2 * team.interval : LATEST;
        team.interval = later > SOONEST ? later : SOONEST;
        team.left = team.interval;
    }
}

int openmp_is_awake(void) {
    if (!available())
        return 0;
    if (team.trust > 0) {
        team.trust--;
        return 1;
    }
    int64_t gap = clock_now() - team.wall;
    if (team.wall == 0 || 2 * (cpu_of_team() - team.cpu) < gap)
        return 0;
    team.wall = 0;
    if (team.acquainted)
        team.trust = TRUST;
    else if (gap > LONG_NS && --team.left < 0)
        get_acquainted();
    return team.trust > 0;
}

void openmp_begin_gap(void) {
    if (found && !forked) {
        team.cpu = cpu_of_team();
        team.wall = clock_now();
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
        s->task(s->arg, omp_get_thread_num());
}

/* The team keeps the size that its owner gave it: for any other size the runtime would tear it
 * down and build it again, here and at the owner's next product. Its threads beyond `threads`
 * do nothing. */
void openmp_run(team_task task, void *arg, int threads, int soon) {
    (void)soon; /* the owner has set how long the team stays awake */
    share s = {task, arg, threads};
    gomp_parallel(run_share, &s, 0, 0);
}
#else
/* Other systems have neither this runtime nor a clock of another thread. */
int openmp_is_awake(void) { return 0; }

void openmp_begin_gap(void) {}

void openmp_run(team_task task, void *arg, int threads, int soon) {
    (void)threads, (void)soon;
    task(arg, 0);
}
#endif
