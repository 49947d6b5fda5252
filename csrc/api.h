/*
 * The boundary between Python and C: read by the compiler and, with its
 * directives resolved by ffi_build.py, by cffi.
 */
#define real double
typedef struct {
#include "scalars.h"
} fs_scalars;
#undef real

enum { FS_STATES = 3 }; /* the most state arrays that a rule has */

/* One tensor. All arrays hold `n` elements, contiguous and in the same order. */
typedef struct {
    void *p;
    const void *g;
    void *s[FS_STATES]; /* in the order of the rule's letters; unused ones NULL */
    int64_t n;
    int64_t start; /* elements in the rows before this one */
    int64_t job;   /* index of its kernel and scalars */
} fs_row;

/* Elements [begin, end) of one tensor. A kernel may also come from elsewhere:
 * any C callback of this type will do. */
typedef void (*fs_kernel)(const fs_row *row, int64_t begin, int64_t end, const fs_scalars *scalars);

/* What rows of the same hyperparameters and step count share. */
typedef struct {
    fs_kernel kernel;
    fs_scalars scalars;
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

/* One step of everything: rows in order of `start`, their work cut into chunks
 * for up to `threads` threads. */
void fs_step(const fs_row *rows, int64_t nrows, const fs_job *jobs, fs_pace *pace, int threads);

/* The kernel of a rule in the instruction set in force, or NULL. Bit k of `has`
 * says that state array k is there; `inside` puts eps under the root. */
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
