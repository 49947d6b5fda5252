/*
 * The traffic of a step without its arithmetic, as kernels for the same runner:
 * every operand is read, and written where the step writes it. `zero` is zero,
 * which the compiler cannot know, so no load is dropped and no value changes:
 * the limit is timed on the very arrays that a step is. The sums of squares before a
 * step read its gradients.
 */
#include <stdint.h>

#include "api.h"

static volatile uint32_t always_zero;

#define LIMIT(states, touch_states)                                                                \
    void limit_##states(const fs_row *row, int64_t begin, int64_t end, const void *scalars) {      \
        const uint32_t zero = always_zero;                                                         \
        const uint32_t *restrict g = row->g;                                                       \
        uint32_t *restrict p = row->p, *restrict s0 = row->s[0];                                   \
        uint32_t *restrict s1 = row->s[1], *restrict s2 = row->s[2], *restrict ema = row->ema;     \
        (void)s0, (void)s1, (void)s2, (void)ema, (void)scalars;                                               \
        for (int64_t i = begin; i < end; i++) {                                                    \
            uint32_t nothing = g[i] & zero;                                                        \
            p[i] ^= nothing;                                                                       \
            touch_states                                                                           \
        }                                                                                          \
    }

LIMIT(0, )
LIMIT(1, s0[i] ^= nothing;)
LIMIT(2, s0[i] ^= nothing; s1[i] ^= nothing;)
LIMIT(3, s0[i] ^= nothing; s1[i] ^= nothing; s2[i] ^= nothing;)
LIMIT(0_ema, ema[i] ^= nothing;)
LIMIT(1_ema, s0[i] ^= nothing; ema[i] ^= nothing;)
LIMIT(2_ema, s0[i] ^= nothing; s1[i] ^= nothing; ema[i] ^= nothing;)
LIMIT(3_ema, s0[i] ^= nothing; s1[i] ^= nothing; s2[i] ^= nothing; ema[i] ^= nothing;)

void limit_squares(const fs_row *row, int64_t begin, int64_t end, const void *scalars) {
    const uint32_t *g = row->g;
    uint32_t read = 0;
    for (int64_t i = begin; i < end; i++)
        read |= g[i];
    row->sums[FS_SUMS * (begin / FS_BLOCK)] = read & always_zero;
    (void)scalars;
}
