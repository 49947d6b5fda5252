/*
 * The boundary between Python and C: read by the compiler and, with its
 * directives resolved by ffi_build.py, by cffi.
 */
#pragma once
#include <stdint.h>

#define real double
typedef struct {
#include "scalars.h"
} fs_scalars;
#undef real

enum {
    FS_STATES = 8,   /* the most state arrays that a rule may have */
    FS_BLOCK = 4096, /* elements whose squares are summed together */
    FS_SUMS = 3,     /* sums of a block: see squares in loops.inc */
};

/* One tensor. All arrays hold `n` elements, contiguous and in the same order. */
typedef struct {
    void *p;
    void *g;            /* written only to zero it */
    void *s[FS_STATES]; /* in the order of the rule's letters; unused ones NULL */
    void *ema;          /* the moving average of p, or NULL */
    double *sums;       /* FS_SUMS for each block of g */
    int64_t n;
    int64_t job; /* index of its kernels and scalars */
} fs_row;

/* Elements [begin, end) of one tensor. A kernel may also come from elsewhere:
 * any C callback of this type will do, and the scalars are then what it reads. */
typedef void (*fs_kernel)(const fs_row *row, int64_t begin, int64_t end, const void *scalars);

/* What rows of the same hyperparameters and step count share. */
typedef struct {
    fs_kernel kernel;
    fs_kernel squares;  /* sums the squares of g into the row's sums; begins with a block */
    const double *wide; /* scalars, for the kernels of this library an fs_scalars */
    void *scalars;      /* those rounded to the dtype of p, which the kernels read: room for them */
    int64_t nscalars;
    int64_t itemsize; /* of p, in bytes */
} fs_job;

/* How fast a table's steps go with helpers and without: see team.c, which alone
 * reads and writes it. All zero at first. */
typedef struct {
    int64_t mean[2]; /* nanoseconds of a step: alone, shared */
    int shared;      /* which way steps go now */
    int trial;       /* to try it, or because it is the faster */
    int left;        /* steps until that is decided anew */
    int interval;    /* steps between two trials */
} fs_pace;

typedef struct {
    fs_pace pool, openmp; /* the helpers */
} fs_paces;

/* What is known of a parameter's gradient: how the array was laid out that Python
 * checked last, and where in its row it goes. A cache line. */
typedef struct {
    int64_t row;      /* -1: this parameter is skipped, None is expected */
    intptr_t data;    /* address of its first element */
    intptr_t *layout; /* its shape, then its strides in bytes */
    intptr_t below;   /* from `data` to the lowest byte, 0 or negative */
    int64_t bytes;    /* from the lowest byte to past the highest */
    uintptr_t dtype;  /* its dtype object */
    int32_t ndim;
    int8_t itemsize;
    int8_t scratch;   /* the row reads a copy of it, made from this very address */
    int8_t writeable; /* so Python may put zeros back through the array that it checked */
} fs_header;

/* One step of everything: rows, how much there is before each and in all, a header
 * for each parameter, and the memory that the step writes: range i begins at lows[i],
 * which ascend, and highs[i] is the farthest end of those up to i. */
typedef struct {
    const fs_job *jobs;
    int64_t njobs;
    fs_row *rows;
    int64_t nrows;
    const int64_t *elements, *blocks; /* before each row, and at the end of all */
    double *folded;                   /* room for half of the blocks' sums */
    int zeroes;                       /* whether this step leaves zeros in place of gradients */
    int64_t moves;                    /* how often a gradient was found at another address */
    fs_header *headers;
    int64_t nheaders;
    uintptr_t ndarray; /* the type of the gradients */
    const intptr_t *lows, *highs;
    int64_t nranges;
    fs_paces paces, squares_paces;
} fs_table;

/* Sum the squares of the gradients, block by block, on up to `threads` threads, and
 * then those of all blocks into `total`. */
void fs_squares(fs_table *table, int threads, double total[FS_SUMS]);

/* Run the table on up to `threads` threads. */
void fs_step(fs_table *table, int threads, int zeroes);

/* Take over the gradients in `list`, the address of a Python list, from the one at
 * `start` on. Returns the index of the first that is not as its header says, for
 * Python to look at, or nheaders. */
int64_t fs_take(fs_table *table, uintptr_t list, int64_t start, int zeroes);

/* Take over all of `list` and run, without zeroes; nothing is run if the index returned is not
 * nheaders. */
int64_t fs_take_and_step(fs_table *table, uintptr_t list, int threads);

/* The kernel of a rule, or "squares", in the instruction set in force, or NULL. Bit k
 * of `has` says that state array k is there; `inside` puts eps under the root. "limit"
 * and "limit_squares" have the same traffic without arithmetic. */
fs_kernel fs_find_kernel(const char *rule, const char *dtype, int has, int inside);

/* Instruction sets: the names compiled in (NULL past the last), whether this
 * CPU runs one, the one in force, and a switch that returns 0 on success. */
const char *fs_isa_name(int index);
int fs_isa_supported(int index);
const char *fs_isa(void);
int fs_isa_select(const char *name);

/* Whose threads ran the last step of the calling thread: "caller", "pool" or
 * "openmp". */
const char *fs_team(void);
