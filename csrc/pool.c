/*
 * The library's own helpers: threads that sleep on a futex between steps.
 *
 * `invited` counts the helpers that may still join the present task, `working` those that have
 * joined. A caller opens a task by inviting helpers and closes it by taking back the unused
 * invitations. Then it waits only for the helpers at work: one that wakes late finds no
 * invitation and costs nothing. Both counts live in one word, so joining and closing cannot
 * cross.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum { WORKING = 1, INVITED = 1 << 16, MOST_HELPERS = 1023 };

static _Atomic uint32_t seats;              /* invited * INVITED + working * WORKING */
static _Atomic int sleepers;                /* helpers in the futex, or about to be */
static _Atomic int eager;                   /* 1: steps follow closely, helpers spin a while */
static atomic_flag busy = ATOMIC_FLAG_INIT; /* set while a caller has the helpers */
static int helpers;                         /* how many have started; guarded by `busy` */
static team_task current_task;              /* guarded by `seats` */
static void *current_arg;

enum {
    CLOSE_NS = 50000, /* the longest gap between steps that helpers bridge by spinning */
    SPIN_NS = 100000, /* how long they spin before they sleep */
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static void sleep_while_equal(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word, int threads) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

static void reset_sleep(void) {}
#else
/* Where there is no futex, a mutex and a condition do the same. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void sleep_while_equal(_Atomic uint32_t *word, uint32_t value) {
    pthread_mutex_lock(&mutex);
    while (atomic_load(word) == value)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void wake(_Atomic uint32_t *word, int threads) {
    (void)word, (void)threads;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static void reset_sleep(void) {
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&changed, NULL);
}
#endif

static void await_invitation(void) {
    if (atomic_load(&eager)) {
        int64_t until = clock_now() + SPIN_NS;
        while (atomic_load(&seats) < INVITED && clock_now() < until)
            for (int i = 0; i < 16; i++)
                relax();
    }
    atomic_fetch_add(&sleepers, 1);
    uint32_t seen;
    while ((seen = atomic_load(&seats)) < INVITED)
        sleep_while_equal(&seats, seen);
    atomic_fetch_sub(&sleepers, 1);
}

static void *helper(void *number) {
    for (;;) {
        uint32_t seen = atomic_load(&seats);
        if (seen < INVITED)
            await_invitation();
        else if (atomic_compare_exchange_weak(&seats, &seen, seen - INVITED + WORKING)) {
            current_task(current_arg, (int)(intptr_t)number);
            atomic_fetch_sub(&seats, WORKING);
        }
    }
    return NULL;
}

/* A forked child has none of the helpers, and perhaps the counts of a step cut short. */
static void reset_in_child(void) {
    atomic_store(&seats, 0);
    atomic_store(&sleepers, 0);
    helpers = 0;
    reset_sleep();
    atomic_flag_clear(&busy);
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(NULL, NULL, reset_in_child);
}

/* Python's signal handlers belong to Python's threads, so helpers block all signals but those
 * that a fault raises in the thread itself. */
static void start_helpers(int wanted) {
    static int refused; /* 1: the system gave no more threads, and is not asked again */
    if (helpers >= wanted || refused)
        return;
    sigset_t blocked, before;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    while (helpers < wanted && !refused) {
        pthread_t thread;
        refused = pthread_create(&thread, NULL, helper, (void *)(intptr_t)(helpers + 1)) != 0;
        if (!refused) {
            pthread_detach(thread);
            helpers++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pool_run(team_task task, void *arg, int threads, int soon) {
    static int64_t ended; /* when the last task ended, in ns; guarded by `busy` */
    int wanted = threads - 1 < MOST_HELPERS ? threads - 1 : MOST_HELPERS;
    if (atomic_flag_test_and_set(&busy)) {
        task(arg, 0); /* a step of another thread has the helpers */
        return;
    }
    start_helpers(wanted);
    atomic_store(&eager, soon || clock_now() - ended < CLOSE_NS);
    current_task = task;
    current_arg = arg;
    atomic_fetch_add(&seats, (uint32_t)wanted * INVITED);
    if (atomic_load(&sleepers) > 0)
        wake(&seats, wanted);

    task(arg, 0);

    atomic_fetch_and(&seats, INVITED - 1);
    for (int spins = 0; atomic_load(&seats) != 0; spins++)
        if (spins < 1000)
            relax();
        else
            sched_yield();
    ended = clock_now();
    atomic_flag_clear(&busy);
}
