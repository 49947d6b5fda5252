/*
 * Clocks, read in nanoseconds.
 */
#pragma once
#include <stdint.h>
#include <time.h>

static inline int64_t clock_read(clockid_t clock) {
    struct timespec now = {0, 0};
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The time since some fixed moment; setting the system's date does not change it. */
static inline int64_t clock_now(void) { return clock_read(CLOCK_MONOTONIC); }
