/*
 * The run time of a kernel that ptx_in_c.py has translated: memory that is checked, threads in a
 * random order, and what they wait for. The text before it has the kernel's tables.
 */
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED __attribute__((unused))
#define RARELY(condition) __builtin_expect(!!(condition), 0)

enum { WARP = 32, MOST_THREADS = 1024, MOST_TURNS = 1 << 24, MOST_BARRIERS = 1 << 16 };

#define ENDED UINT32_MAX /* where a thread is that has ended */

/* ---- the state of a launch ---- */

/* What an access does to the bytes it touches. */
enum access { READS, READS_CONSTANT, WRITES };

/* Who has accessed a byte. Blocks run one after another here, and so do the intervals of a block
 * between barriers; threads of one interval, and blocks, know nothing of each other's order. */
union shadow {
    struct {
        u32 interval; /* the number of that in which it was accessed last; 0: it was not */
        u16 thread;   /* the only thread that has done so, from 1 on; 0: several, which read it */
        u8 writes;    /* whether that thread wrote it then */
        u8 history;   /* of the whole launch */
    };
    u64 whole;
};

/* Whether this block has written it, several blocks have read it, or one has as a constant. */
enum { WRITTEN = 1, BLOCKS = 2, CONSTANT = 4 };

/* Where an instruction has found its memory last: addresses from `low` on, `count` of them. */
struct hit {
    u64 low, count;
    union shadow *shadow; /* of the byte at `low`; NULL: races are not checked */
};

/* Where a thread is, and what it gives the others of its warp and gets from them. */
struct thread {
    u32 where; /* the number of a place in its function, 0 for the beginning; or ENDED */
    pred ready;
    u32 site; /* the instruction at which it waits */
    enum { BARRIER, UP, DOWN, BUTTERFLY, INDEX } waits;
    u32 given, lane, clamp, members; /* the operands of shfl.sync */
    u32 result;
    pred found;
};

struct launch {
    const struct device *device;
    u32 tid, ntid, ctaid, nctaid;
    u64 random;
    struct hit hits[SITES + 1];
    u32 interval, block_began; /* the number of this interval, and of the block's first */
    union shadow **shadows;    /* of each allocation, once it is touched */
    u32 *blocks;               /* in the order in which they run */
    u32 order[MOST_THREADS];
    struct thread threads[MOST_THREADS];
    struct registers *registers;
    u8 arguments[ARGUMENTS + 1] __attribute__((aligned(16)));
    u8 shared[SHARED + 1] __attribute__((aligned(16)));
    u8 stored[SHARED + 1]; /* whether a byte has been written in this block */
    union shadow shared_shadow[SHARED + 1];
    char *error;
    size_t room;
    jmp_buf end;
};

/* Runs a thread until it ends or waits; returns where it is then. */
static u32 thread(struct launch *l, struct thread *t, struct registers *r);

static __attribute__((noreturn, format(printf, 3, 4), noinline)) void
fail(struct launch *l, u32 site, const char *format, ...) {
    va_list values;
    int begun = snprintf(l->error, l->room, "%s, line %u (%s), block %u, thread %u: ", NAME,
                         sites[site].line, sites[site].text, l->ctaid, l->tid);
    va_start(values, format);
    if (begun >= 0 && (size_t)begun < l->room)
        vsnprintf(l->error + begun, l->room - (size_t)begun, format, values);
    va_end(values);
    longjmp(l->end, 1);
}

/* Ends a launch in which a thread goes round in circles. */
#define TURN(site)                                                                                 \
    do {                                                                                           \
        if (RARELY(++turns == MOST_TURNS))                                                         \
            fail(l, site, "a loop without an end");                                                \
    } while (0)

/* ---- races ---- */

static __attribute__((noreturn, noinline)) void race(struct launch *l, u32 site, u64 address,
                                                     union shadow s, const char *does) {
    const char *did = s.history & WRITTEN ? "wrote" : "read";
    char other[40];
    if (s.history & CONSTANT)
        snprintf(other, sizeof other, "is read as a constant");
    else if (s.history & BLOCKS || s.interval < l->block_began)
        snprintf(other, sizeof other, "another block %s", did);
    else if (s.interval < l->interval || s.thread == l->tid + 1)
        snprintf(other, sizeof other, "its block %s", did);
    else if (!s.thread)
        snprintf(other, sizeof other, "several threads read");
    else
        snprintf(other, sizeof other, "thread %u %s", s.thread - 1u, s.writes ? "wrote" : "read");
    fail(l, site, "a race at 0x%llx: it %s what %s", (long long)address, does, other);
}

/* What an access makes of a byte's shadow; `same`: a write leaves the byte as it was. Several
 * threads may write what one of them has written: whichever is the last, the result is the same. */
static union shadow shadow_after(struct launch *l, u32 site, u64 address, union shadow s,
                                 enum access access, pred same) {
    pred elsewhere = s.interval && s.interval < l->block_began;
    pred now = s.interval == l->interval, own = now && s.thread == l->tid + 1;
    if (access == WRITES) {
        same = same && s.writes;
        if (RARELY(elsewhere || s.history & (CONSTANT | BLOCKS) || (now && !own && !same)))
            race(l, site, address, s, "writes");
        return now && !own ? s : (union shadow){{l->interval, (u16)(l->tid + 1), 1, WRITTEN}};
    }
    if (RARELY(s.history & WRITTEN && (elsewhere || access == READS_CONSTANT)) ||
        RARELY(now && !own && s.writes))
        race(l, site, address, s, access == READS ? "reads" : "reads as a constant");
    s.history |= (elsewhere ? BLOCKS : 0) | (access == READS_CONSTANT ? CONSTANT : 0);
    if (!now)
        s.thread = (u16)(l->tid + 1), s.writes = 0, s.interval = l->interval;
    else if (!own)
        s.thread = 0;
    return s;
}

/* Notes an access to bytes, which nearly always have the same shadow. */
static __attribute__((noinline)) UNUSED void touch(struct launch *l, u32 site, u64 address,
                                                   union shadow *shadows, u64 width,
                                                   enum access access) {
    union shadow before = shadows[0], after = shadow_after(l, site, address, before, access, 0);
    for (u64 k = 0; k < width; k++)
        if (shadows[k].whole == before.whole)
            shadows[k] = after;
        else
            shadows[k] = shadow_after(l, site, address + k, shadows[k], access, 0);
}

/* ---- global memory ---- */

static __attribute__((noinline)) UNUSED void find(struct launch *l, u32 site, u64 address,
                                                  u64 width, enum access access) {
    const struct allocation *all = l->device->allocations, *found;
    struct hit *hit = &l->hits[site];
    u32 below = 0, above = l->device->count;
    if (address % width)
        fail(l, site, "0x%llx is no multiple of %llu", (long long)address, (long long)width);
    while (below < above) {
        u32 middle = below + (above - below) / 2;
        if (all[middle].low <= address)
            below = middle + 1;
        else
            above = middle;
    }
    if (!below)
        fail(l, site, "0x%llx is below every allocation", (long long)address);
    found = &all[below - 1];
    if (found->high - found->low < width || address - found->low > found->high - found->low - width)
        fail(l, site, "%llu bytes at 0x%llx are not inside [0x%llx, 0x%llx)", (long long)width,
             (long long)address, (long long)found->low, (long long)found->high);
    if (access == WRITES && found->flags & READ_ONLY)
        fail(l, site, "0x%llx is read only", (long long)address);
    if (l->shadows) {
        union shadow **shadow = &l->shadows[below - 1];
        if (!*shadow && !(*shadow = calloc(found->high - found->low, sizeof **shadow)))
            fail(l, site, "no memory for the shadow of [0x%llx, 0x%llx)", (long long)found->low,
                 (long long)found->high);
        hit->shadow = *shadow;
    }
    hit->low = found->low;
    hit->count = found->high - found->low - width + 1;
}

/* The memory of an access, whose width is a power of two. */
static inline UNUSED void *global_at(struct launch *l, u32 site, u64 address, u64 width,
                                     enum access access) {
    const struct hit *hit = &l->hits[site];
    if (RARELY(address - hit->low >= hit->count || address & (width - 1)))
        find(l, site, address, width, access);
    if (RARELY(hit->shadow))
        touch(l, site, address, hit->shadow + (address - hit->low), width, access);
    return (void *)(uintptr_t)address;
}

/* ---- shared memory ---- */

/* Each array has addresses of its own, 2^24 of them, and is aligned there as declared, no better.
 */
#define SHARED_ADDRESS(array) ((((u64)(array) + 1) << 24) + shared_arrays[array].align)

/* Where an address is in l->shared. */
static u64 shared_offset(struct launch *l, u32 site, u64 address, u64 width) {
    u64 number = address >> 24, array = number - 1, offset;
    if (address & (width - 1))
        fail(l, site, "0x%llx is no multiple of %llu", (long long)address, (long long)width);
    if (!number || number > SHARED_ARRAYS)
        fail(l, site, "0x%llx is in no shared array", (long long)address);
    offset = address - SHARED_ADDRESS(array);
    if (offset > shared_arrays[array].size || shared_arrays[array].size - offset < width)
        fail(l, site, "%llu bytes at %lld are not inside of the %u of %s", (long long)width,
             (long long)offset, shared_arrays[array].size, shared_arrays[array].name);
    return shared_arrays[array].start + offset;
}

static __attribute__((noinline)) UNUSED const u8 *shared_get(struct launch *l, u32 site,
                                                             u64 address, u64 width) {
    u64 at = shared_offset(l, site, address, width);
    touch(l, site, address, l->shared_shadow + at, width, READS);
    for (u64 k = 0; k < width; k++)
        if (!l->stored[at + k])
            fail(l, site, "0x%llx has not been written", (long long)(address + k));
    return l->shared + at;
}

static __attribute__((noinline)) UNUSED void shared_put(struct launch *l, u32 site, u64 address,
                                                        u64 width, const u8 *from) {
    u64 at = shared_offset(l, site, address, width);
    for (u64 k = at; k < at + width; k++)
        l->shared_shadow[k] = shadow_after(l, site, address + (k - at), l->shared_shadow[k], WRITES,
                                           l->shared[k] == from[k - at]);
    memcpy(l->shared + at, from, width);
    memset(l->stored + at, 1, width);
}

/* ---- values ---- */

#define BITS_AND_BACK(F, B)                                                                        \
    static inline UNUSED F F##_of_##B(B x) {                                                       \
        F y;                                                                                       \
        memcpy(&y, &x, sizeof y);                                                                  \
        return y;                                                                                  \
    }                                                                                              \
    static inline UNUSED B B##_of_##F(F x) {                                                       \
        B y;                                                                                       \
        memcpy(&y, &x, sizeof y);                                                                  \
        return y;                                                                                  \
    }
BITS_AND_BACK(f32, b32)
BITS_AND_BACK(f64, b64)

#define GET(T, at)                                                                                 \
    ({                                                                                             \
        T got_;                                                                                    \
        memcpy(&got_, at, sizeof got_);                                                            \
        got_;                                                                                      \
    })
#define PUT(T, at, value)                                                                          \
    do {                                                                                           \
        T put_ = value;                                                                            \
        memcpy(at, &put_, sizeof put_);                                                            \
    } while (0)

/* An operation on x, y, z that is not rounded to nearest: no compiler moves it past the calls. */
#define DIRECTED(MODE, RESULT, OPERAND, OPERATION, A, B, C)                                        \
    ({                                                                                             \
        volatile OPERAND x = A, y UNUSED = B, z UNUSED = C;                                        \
        fesetround(MODE);                                                                          \
        volatile RESULT rounded_ = OPERATION;                                                      \
        fesetround(FE_TONEAREST);                                                                  \
        rounded_;                                                                                  \
    })

/* A whole float64 as an integer: the nearest that there is, beyond the bounds. */
#define INTEGER(T, WHOLE, LEAST, MOST, BOUND, OF_NAN)                                              \
    ({                                                                                             \
        f64 whole_ = WHOLE;                                                                        \
        whole_ != whole_        ? (T)(OF_NAN)                                                      \
        : whole_ < (f64)(LEAST) ? (T)(LEAST)                                                       \
        : whole_ >= (BOUND)     ? (T)(MOST)                                                        \
                                : (T)whole_;                                                           \
    })

#define FLOATS(F, SUFFIX)                                                                          \
    static inline UNUSED F sqrt_##F(F x) { return sqrt##SUFFIX(x); }                               \
    static inline UNUSED F fabs_##F(F x) { return fabs##SUFFIX(x); }                               \
    static inline UNUSED F copysign_##F(F x, F y) { return copysign##SUFFIX(x, y); }               \
    static inline UNUSED F fma_##F(F x, F y, F z) { return fma##SUFFIX(x, y, z); }                 \
    static inline UNUSED F min_##F(F x, F y) {                                                     \
        return x != x ? y : y != y ? x : x == y ? (signbit(x) ? x : y) : x < y ? x : y;            \
    }                                                                                              \
    static inline UNUSED F max_##F(F x, F y) {                                                     \
        return x != x ? y : y != y ? x : x == y ? (signbit(x) ? y : x) : x < y ? y : x;            \
    }                                                                                              \
    static inline UNUSED F saturated_##F(F x) { return x > 0 ? x < 1 ? x : 1 : 0; }
FLOATS(f32, f)
FLOATS(f64, )

/* Zero, of the same sign, in place of a subnormal number. */
static inline UNUSED f32 flushed(f32 x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

/* A result that an approximation may have: off by one unit, where its last bit is 1. */
static inline UNUSED f32 coarse(f32 x) { return x != x ? x : f32_of_b32(b32_of_f32(x) & ~1u); }

/* ---- threads and blocks ---- */

static u64 next_random(struct launch *l) {
    u64 x = l->random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static void shuffle(struct launch *l, u32 *items, u32 count) {
    for (u32 k = count; k > 1; k--) {
        u32 other = (u32)((next_random(l) >> 32) * k >> 32), item = items[k - 1];
        items[k - 1] = items[other];
        items[other] = item;
    }
}

/* The lane from which a lane gets its value, as PTX defines it; `found`: it is in range. */
static u32 source_of(struct thread *t, u32 lane) {
    u32 segment = t->clamp >> 8 & 31, least = lane & segment, b = t->lane & 31, from = 0;
    u32 most = least | (t->clamp & 31 & ~segment);
    switch (t->waits) {
    case UP:
        from = lane - b, t->found = (s32)from >= (s32)most;
        break;
    case DOWN:
        from = lane + b, t->found = from <= most;
        break;
    case BUTTERFLY:
        from = lane ^ b, t->found = from <= most;
        break;
    default:
        from = least | (b & ~segment), t->found = from <= most;
    }
    return t->found ? from : lane;
}

/* Lets the lanes that wait for one another in a warp have each other's values; returns how many. */
static u32 exchange(struct launch *l, u32 first) {
    struct thread *warp = &l->threads[first];
    u32 lanes = l->ntid - first < WARP ? l->ntid - first : WARP, count = 0;
    for (u32 lane = 0; lane < lanes; lane++) {
        struct thread *t = &warp[lane];
        if (t->where == ENDED || t->waits == BARRIER)
            continue;
        l->tid = first + lane;
        if (!(t->members >> lane & 1))
            fail(l, t->site, "its own lane is not a member");
        for (u32 k = 0; k < lanes; k++)
            if (t->members >> k & 1 && (warp[k].where != t->where || warp[k].members != t->members))
                fail(l, t->site, "lane %u, a member, does not come here", k);
        u32 from = source_of(t, lane);
        if (from >= lanes || !(t->members >> from & 1))
            fail(l, t->site, "lane %u is not a member", from);
        t->result = warp[from].given;
        t->ready = 1;
        count++;
    }
    return count;
}

/* Lets all threads of a block go on from a barrier, which none may have missed. */
static void pass_barrier(struct launch *l) {
    for (u32 tid = 0; tid < l->ntid; tid++) {
        struct thread *t = &l->threads[tid], *first_of_warp = t - tid % WARP;
        if (t->where == ENDED) {
            for (l->tid = 0; l->threads[l->tid].where == ENDED;)
                l->tid++;
            fail(l, l->threads[l->tid].site, "a divergent barrier, which thread %u has not reached",
                 tid);
        }
        l->tid = tid;
        if (t->where != first_of_warp->where)
            fail(l, t->site, "a divergent barrier: the first thread of its warp waits at line %u",
                 sites[first_of_warp->site].line);
        t->ready = 1;
    }
    if (++l->interval - l->block_began == MOST_BARRIERS)
        fail(l, l->threads[0].site, "a loop without an end");
}

static void run_block(struct launch *l) {
    u32 ended = 0;
    l->block_began = ++l->interval;
    for (u32 tid = 0; tid < l->ntid; tid++)
        l->threads[tid].where = 0, l->threads[tid].ready = 1;
    memset(l->stored, 0, sizeof l->stored);
    memset(l->shared_shadow, 0, sizeof l->shared_shadow);
    for (;;) {
        shuffle(l, l->order, l->ntid);
        for (u32 k = 0; k < l->ntid; k++) {
            struct thread *t = &l->threads[l->tid = l->order[k]];
            if (t->ready) {
                t->where = thread(l, t, l->registers + l->tid);
                t->ready = 0;
                ended += t->where == ENDED;
            }
        }
        if (ended == l->ntid)
            return;
        u32 exchanged = 0;
        for (u32 first = 0; first < l->ntid; first += WARP)
            exchanged += exchange(l, first);
        if (!exchanged)
            pass_barrier(l);
    }
}

static void run_blocks(struct launch *l, const uint32_t grid[3], const uint32_t block[3],
                       void **arguments) {
    const char *wrong = NULL;
    if (grid[1] != 1 || grid[2] != 1 || block[1] != 1 || block[2] != 1)
        wrong = "the grid and its blocks have one dimension here";
    else if (!grid[0] || !block[0] || block[0] > MOST_THREADS)
        wrong = "a launch has at least a block, of 1 to 1024 threads";
    else if ((u64)grid[0] * block[0] >= 1u << 30)
        wrong = "a launch has fewer than 2^30 threads here";
    else if (!(l->blocks = calloc(grid[0], sizeof *l->blocks)) ||
             !(l->registers = calloc(block[0], sizeof *l->registers)) ||
             (l->device->flags & CHECK_RACES &&
              !(l->shadows = calloc(l->device->count + 1, sizeof *l->shadows))))
        wrong = "there is no memory for it";
    if (wrong) {
        snprintf(l->error, l->room, "%s: %s", NAME, wrong);
        longjmp(l->end, 1);
    }
    for (u32 k = 0; k < PARAMETERS; k++)
        memcpy(l->arguments + listed[k].start, arguments[k], listed[k].size);
    l->nctaid = grid[0];
    l->ntid = block[0];
    for (u32 k = 0; k < l->nctaid; k++)
        l->blocks[k] = k;
    for (u32 k = 0; k < l->ntid; k++)
        l->order[k] = k;
    shuffle(l, l->blocks, l->nctaid);
    for (u32 k = 0; k < l->nctaid; k++) {
        l->ctaid = l->blocks[k];
        run_block(l);
    }
}

int32_t run(const struct device *device, const uint32_t grid[3], const uint32_t block[3],
            uint64_t seed, void **arguments, char *error, size_t room) {
    struct launch *l = calloc(1, sizeof *l);
    volatile int32_t failed = 1;
    if (!l) {
        snprintf(error, room, "%s: there is no memory for it", NAME);
        return 1;
    }
    l->device = device;
    l->random = seed;
    l->error = error;
    l->room = room;
    if (!setjmp(l->end)) {
        run_blocks(l, grid, block, arguments);
        failed = 0;
    }
    for (u32 k = 0; l->shadows && k < device->count; k++)
        free(l->shadows[k]);
    free(l->shadows);
    free(l->blocks);
    free(l->registers);
    free(l);
    return failed;
}

const char *kernel_name(void) { return NAME; }

uint32_t parameters(uint32_t *sizes) {
    for (u32 k = 0; k < PARAMETERS; k++)
        sizes[k] = listed[k].size;
    return PARAMETERS;
}
