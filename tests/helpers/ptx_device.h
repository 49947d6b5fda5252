/*
 * A device without a device: which host memory its kernels may touch, and what is checked.
 *
 * A kernel that ptx_in_c.py has translated exports the three functions below. Addresses are
 * those of host memory. A launch changes nothing in these tables, and launches may be
 * concurrent.
 */
#ifndef PTX_DEVICE_H
#define PTX_DEVICE_H

#include <stddef.h>
#include <stdint.h>

enum {
    /* Two threads of a launch that touch the same byte of global memory are an error, if one of
     * them writes it. So is a write of what is read by ld.global.nc, by the same thread, too.
     * Shared memory is always checked. */
    CHECK_RACES = 1,
};

enum {
    /* A store there is an error. */
    READ_ONLY = 1,
};

/* Bytes from `low` to below `high`. */
struct allocation {
    uint64_t low, high;
    uint32_t flags; /* READ_ONLY, or 0 */
};

struct device {
    const struct allocation *allocations; /* in the order of `low`; none overlap */
    uint32_t count;
    uint32_t flags; /* CHECK_RACES, or 0 */
};

/* Runs all threads of a launch, in an order that the seed decides. `arguments` are the addresses
 * of the parameters, as cuLaunchKernel has them. Returns 0; or 1 with a message in `error`, of
 * which `room` bytes may be written. The launch ends there, with what it has stored until then. */
int32_t run(const struct device *device, const uint32_t grid[3], const uint32_t block[3],
            uint64_t seed, void **arguments, char *error, size_t room);

/* The name of the kernel. */
const char *kernel_name(void);

/* The number of parameters, 256 at most; their sizes in bytes are written in their order. */
uint32_t parameters(uint32_t *sizes);

#endif
