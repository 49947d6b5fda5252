/*
 * The boundary between Python and C: the compiler reads this file, and so does cffi after
 * ffi_build.py has resolved the directives.
 */
#pragma once
#include <stdint.h>

#define real double
typedef struct {
#include "scalars.h"
} fs_scalars;
#undef real

#define IN_PYTHON extern

enum {
    FS_STATES = 8,     /* the most state arrays of a rule, and the bound of loops over them */
    FS_BLOCK = 4096,   /* elements of a gradient whose squares are summed together */
    FS_SUMS = 3,       /* sums of a block: of small, middle and large elements, see squares.h */
    FS_SHARED = 30000, /* elements from which a step is shared between threads: a smaller one is
                          done before a helper is awake */
    FS_LARGE = 32768,  /* elements from which each thread has a piece of a tensor, as torch's do */
    FS_TILE = 256,   /* elements that are decoded, stepped and encoded together: a block of codes */
    FS_WORDS = 64,   /* words of a tile's 8-bit codes */
    FS_FORMATS = 10, /* storage formats, see storage.inc */
    FS_STREAMS = 9,  /* the most streams of random bits of a job: p's, and each state's */
};

/* What a row has besides, if its job has operands in fewer bytes than float32: the second array of
 * each, as its format needs it, and what keeps its random bits apart from those of other rows. */
typedef struct {
    void *p;
    void *s[FS_STATES];
    uint64_t ordinal;
} fs_rest;

/* What the scalars of past steps have in common, from one step on: all are finite where they have
 * to be, nothing but g itself enters the gradient, and they differ in the rate and in what t
 * decides. */
typedef struct {
    int64_t from;       /* t of the first of these steps; past the last one: there is none */
    double growth;      /* the most by which lr / r grew from one of them to the next */
    double least_decay; /* the least factor by which p decays */
    double least_eps;
} fs_calm;

/* The slices p[i] of a tensor that a step touches: see slices.c. */
typedef struct {
    int64_t n;             /* how many */
    int64_t width;         /* elements of each */
    const int64_t *ids;    /* which ones, ascending; NULL: all */
    const int64_t *starts; /* n + 1: where in `order` the gradients of each begin; NULL: one each */
    const int64_t *order;  /* which slices of g they are; NULL: those of the same numbers */
    int64_t *counts;       /* the steps that each slice has taken; NULL: as many as its tensor */
    const void *table;     /* rounded scalars of several steps; NULL: those of the job alone */
    const int32_t *entries; /* of each t of a slice the entry in the table that steps it, of 0 if
                               none has a t of its own; NULL: slices have missed steps, and the
                               table has those, and where columns differ the next one */
    int64_t first;          /* t of the first entry */
    int64_t t;              /* the last step that is over */
    fs_calm calm;
    int64_t cost;        /* units of work that each is counted as */
    int64_t measured;    /* 1: the sums of squares are there already */
    int64_t nentries;    /* how many t have an entry, or -1 in its place */
    const int64_t *ends; /* where each run of columns ends that is stepped by the same scalars;
                            NULL: all are, and the table has one line for each entry */
    const int64_t *sets; /* the set of scalars of each run: the table has the lines of one set
                            after those of the other */
    int64_t nruns, nsets, lines; /* how many of each, and how many lines a set has */
    void *rates;    /* room for what kernels take by column, of rows one after the other; or NULL */
    int64_t period; /* columns of several whole rows */
    int64_t apart;  /* a row more: elements from the rates to the decays, and to the gains */
    int64_t taken;  /* 1: gradients are taken here, if they are like the one before */
    int64_t *room;  /* for 3 (capacity + 1) numbers, of gradients that are taken here; NULL: Python
                       looks at each */
    int64_t capacity;
} fs_slices;

/* One tensor. All arrays hold `n` elements, contiguous and in the same order; g only as many as
 * its slices say, if there are some. */
typedef struct {
    void *p;
    void *g;             /* read; written only by a step that leaves something else there */
    void *s[FS_STATES];  /* state arrays in the order of the rule's letters; NULL where absent */
    void *ema;           /* the moving average of p, or NULL */
    double *sums;        /* FS_SUMS sums of squares for each block of g */
    int64_t n;           /* elements */
    int64_t job;         /* index of the table's job with its kernels and scalars */
    const fs_rest *rest; /* NULL: all operands are as the kernel reads them */
    fs_slices *slices;   /* NULL: all of the tensor is stepped by all of g */
} fs_row;

/* A kernel steps elements [begin, end) of one row. `scalars` points to an fs_scalars in the
 * compute dtype for kernels of this library; a callback compiled elsewhere reads its own. */
typedef void (*fs_kernel)(const fs_row *row, int64_t begin, int64_t end, const void *scalars);

/* Steps elements [begin, end) of a row n times with gradients of 0, by scalars of the kernel that
 * are calm and follow one another in `table`: see replay.inc. */
typedef void (*fs_replay)(const fs_row *row, int64_t begin, int64_t end, const void *table,
                          int64_t n, const fs_calm *calm);

/* Steps elements [begin, end) of a row, of which each has a rate, a decay and a gain of its own in
 * `rates`: three arrays in the dtype of the kernel, so many elements `apart`. */
typedef void (*fs_by_column)(const fs_row *row, int64_t begin, int64_t end, const void *scalars,
                             const void *rates, int64_t apart);

/* Decodes n elements of an operand from element `at` on, into `tile` unless they lie in memory as
 * they are, and returns where the values are. */
typedef float *(*fs_load)(void *first, void *second, int64_t at, int64_t n, float *tile);

/* Encodes n elements from there, and what lies there may change; `random` has 16 bits for each. */
typedef void (*fs_store)(float *tile, void *first, void *second, int64_t at, int64_t n,
                         const void *random);

/* Puts random bits for the FS_TILE elements from `at` on into `near`, and other ones into `far`. */
typedef void (*fs_randomize)(int64_t at, uint64_t key, uint32_t *near, uint32_t *far);

/* A format in which float32 values are kept: see storage.h. */
typedef struct {
    const char *name;
    fs_load load;
    fs_store store;          /* to the nearest */
    fs_store store_randomly; /* NULL: there is no other way */
    int64_t width;           /* bytes of an element in the first of its arrays */
} fs_storage;

/* How the rows of a job hold an operand. */
typedef struct {
    const fs_storage *format; /* NULL: as the kernel reads it */
    int64_t random; /* twice the stream of the bits by which it is rounded, 1 more for the far ones;
                       -1: to the nearest */
} fs_operand;

/* Steps the whole tile at `at` at once: see pairs.inc and codes.inc. `keys` are those of the
 * streams of random bits. Returns 0, and has done nothing, if the scalars ask for more than it
 * does. */
typedef int (*fs_whole)(const fs_row *row, int64_t at, const uint64_t *keys, const void *scalars);

/* How they hold all of them. */
typedef struct {
    fs_operand p, g, s[FS_STATES];
    int64_t streams; /* of random bits */
    fs_randomize randomize;
    const uint64_t *key; /* of the random bits of this step */
    fs_whole whole;      /* NULL: there is none for the kernel and these formats */
} fs_operands;

/* The kernels and scalars that rows of the same hyperparameters and step count share. */
typedef struct {
    fs_kernel kernel;
    fs_kernel squares;      /* writes the sums of squares of g; `begin` is where a block begins */
    fs_replay replay;       /* NULL: the kernel steps as often as it has to */
    fs_by_column by_column; /* NULL: it steps columns of the same scalars at a time */
    const double *float64;  /* the scalars as Python computes them */
    void *scalars;          /* room for the same, rounded to the kernels' dtype, for them to read */
    int64_t nscalars;       /* how many there are */
    int64_t unscale, clip, most; /* indices among them of what a single step is asked for */
    int64_t itemsize;            /* bytes of what the kernels compute in */
    const fs_operands *operands; /* NULL: all are as the kernels read them */
} fs_job;

/* The pace of a table with one kind of helper: how long its steps take with helpers and
 * without, and which way they go now. All zero at first; team.c alone reads and writes it. */
typedef struct {
    int64_t mean[2]; /* nanoseconds of a step: [0] alone, [1] with helpers; 0: not timed yet */
    int shared;      /* the way steps go now: 1 with helpers, 0 alone */
    int trial;       /* 1: on trial, 0: settled */
    int left;        /* steps until the phase ends and team.c chooses the next */
    int interval;    /* steps between the end of a trial and the next one */
} fs_pace;

typedef struct {
    fs_pace pool, openmp; /* one for each kind of helper */
} fs_paces;

/* The ways in which array objects are read here. */
enum {
    FS_AS_NUMPYS = 0, /* as they lie in memory */
    FS_BY_DLPACK = 1, /* by the function that their type's DLPack exchange interface has for it */
    FS_BY_ATTRIBUTE = 2, /* by `__cuda_array_interface__` */
    FS_BY_MEMORY = 3,    /* not at all: each is remembered from when Python looked at it */
    FS_BY_NUMBAS = 4,    /* by the attributes of Numba's arrays */
    FS_BY_CUPYS = 5,     /* by those of CuPy's */
};

/* A library whose array objects are read here. */
typedef struct {
    uintptr_t type;     /* address of the type object of its arrays */
    uintptr_t read;     /* the function of DLPack's interface; of CuPy's arrays 1 where there are
                           several devices, so that each array has to be on the right one */
    uintptr_t deferred; /* address of a method that returns False for an array whose memory holds
                           its values, as all do but those negated lazily; 0: there is none */
    int32_t way;        /* in which they are read */
    int32_t device;     /* where they have to be, by DLPack's number of a kind of device; */
    int32_t ordinal;    /* and of those which one; -1: any */
} fs_library;

/* How a parameter's gradient is laid out: at first as the parameter is, which most are, and then
 * as the array that Python checked last. It fits into a cache line. */
typedef struct {
    fs_row *row;      /* NULL: the parameter is skipped and its gradient is None */
    intptr_t data;    /* address of its first element; 0: none was taken yet */
    intptr_t *layout; /* its shape, then its strides, in the unit of its library */
    intptr_t below;   /* bytes from `data` to the lowest byte; 0 or negative */
    int64_t bytes;    /* bytes from the lowest to past the highest */
    uintptr_t dtype;  /* its dtype, as its library tells it: see describe() in gradients.c */
    int32_t ndim;     /* dimensions */
    int8_t itemsize;  /* bytes of an element */
    int8_t scratch;   /* 1: the row reads a copy, made from the array at `data` */
    int8_t writeable; /* 1: a step may put zeros into the array */
    int8_t library;   /* index of its library in the table; -1: Python checks it every time */
} fs_header;

/* Gradients of one parameter that are remembered: loops that take turns with a few sets of arrays
 * bring them again and again. */
enum { FS_MEMORIES = 4 };

/* Gradients of one parameter that were looked at, each in a slot of its own. One that came twice is
 * known for as long as its object is there, since its memory stays as it is until then; before, it
 * is read anew. */
typedef struct {
    uintptr_t keys[FS_MEMORIES];    /* addresses of the arrays, or of the dicts that tell of them */
    uintptr_t marks[FS_MEMORIES];   /* of a dict what changes if it does; of an array 0 */
    intptr_t data[FS_MEMORIES];     /* where their memory is */
    uintptr_t holders[FS_MEMORIES]; /* of a dict, which is held, too, its item "data"; of an array a
                                       weak reference to it; 0: it came once, and may be gone */
    int64_t next;                   /* the slot that is used next */
} fs_memory;

/* An array of the user's as it was found. C holds its address alone; its table holds it. */
typedef struct {
    uintptr_t array;    /* address of the array object; 0: it is not looked at */
    intptr_t data;      /* address of its first element */
    int64_t elements;   /* how many it has */
    int64_t library;    /* index of its library in the table; -1: Python looks at it every time */
    uintptr_t parts[2]; /* addresses of what the object consists of, to be fetched ahead; or 0 */
    intptr_t *layout;   /* its shape, then its strides; NULL: these are not looked at */
    uintptr_t dtype;    /* its dtype, see describe() in gradients.c */
    int64_t ndim;       /* its dimensions */
} fs_array;

/* An array that the row of a table writes, where it is another one at each step. */
typedef struct {
    void **at;        /* where the row has its address; NULL: the row has a copy */
    intptr_t *layout; /* its shape, then its strides, in the unit of its library */
    uintptr_t dtype;  /* as its library tells it */
    int64_t ndim;     /* dimensions */
    int64_t itemsize; /* bytes of an element */
    int64_t library;  /* index of its library in the table */
    intptr_t below;   /* bytes from its first element to its lowest byte; 0 or negative */
    int64_t bytes;    /* bytes from its lowest to past its highest */
} fs_target;

/* A number that the user can read, and that a step leaves beside the arrays, such as the count of
 * a parameter's steps. */
typedef struct {
    void *at;
    double known;     /* what it held when the table was made, or after the last step */
    int64_t number;   /* index of the table's number that the next step leaves there; -1: none */
    int64_t itemsize; /* bytes: that of a float or of a double */
} fs_cell;

/* Everything that one step needs. */
typedef struct {
    const fs_job *jobs;
    int64_t njobs;
    fs_row *rows;
    int64_t nrows;
    int64_t *elements;     /* nrows + 1 counts: elements before each row, and in all */
    const int64_t *large;  /* the same of large rows alone, of which each thread has a piece */
    const int64_t *blocks; /* the same in blocks of FS_BLOCK elements, each row's last partial */
    int64_t *units;        /* NULL, or room for the units of work before each row: it has slices */
    double *folded;        /* room for the sums of half of the blocks */
    double *clips;         /* the factor that clips each row's gradient, as fs_clip_each left it */
    int leaves;            /* what this step leaves in place of the gradients: see fs_step */
    int64_t moves;         /* how often a gradient came at another address than before */
    fs_header *headers;    /* one for each parameter */
    fs_array *parameters;  /* the same: gradients pass only while these are as they were found */
    int64_t nheaders;
    fs_array *watched; /* further arrays that fs_stands looks at: the exposed ones first */
    int64_t nexposed;  /* how many of them anybody may change at any time */
    int64_t nwatched;
    fs_cell *cells;
    int64_t ncells;
    const double *numbers;       /* what the cells hold after the next step */
    const fs_library *libraries; /* NumPy first */
    intptr_t *lows;  /* where the ranges of memory that the step writes begin, ascending */
    intptr_t *highs; /* highs[i] is the farthest end of ranges 0 to i */
    int64_t nranges;
    int64_t gap;     /* how many of them begin below the gradient that moved last */
    fs_target *aims; /* the arrays that fs_aim looks for: as many as there are ranges, or none */
    int64_t naims;
    int any_shape; /* 1: these are C-contiguous, of any one shape of fewer than FS_SHARED elements */
    uintptr_t of_rows;      /* type of gradients of rows; 0: none has come yet */
    uintptr_t index;        /* and the names of their attributes: the numbers of rows, */
    uintptr_t values;       /* their gradients, */
    uintptr_t mask;         /* and None */
    uintptr_t integers;     /* the dtype of numbers that are taken here, int64 */
    int64_t *steps;         /* how many steps were run: it rises with what they write */
    fs_memory *memories;    /* one for each parameter; NULL: there are none on a device */
    fs_paces paces;         /* of steps */
    fs_paces squares_paces; /* of sums of squares */
} fs_table;

/* What norm.py calls the same: the norm over `scale`, the factor that brings it down to
 * `max_norm`, and whether all elements are finite. */
typedef struct {
    double norm;
    double clip;
    int finite;
} fs_measured;

/* Sum the squares of each block of the gradients on up to `threads` threads, and measure the
 * sum of all of them. */
void fs_measure(fs_table *table, int threads, double scale, double max_norm, fs_measured *to);

/* Find the factor that brings the norm of each row's gradient over `scale` down to `max_norm`, by
 * the sums that fs_measure left. Returns the smallest; NaN if one is; 1 if there is no row. */
double fs_clip_each(fs_table *table, double scale, double max_norm);

/* The first row, from `row` on, whose gradient was not finite when it was measured, or would not be
 * when it is multiplied by `unscale`; nrows if there is none. */
int64_t fs_unfit(const fs_table *table, int64_t row, double unscale);

/* Of the first two nothing is written. The last is a number for which Python needs no memory, as it
 * may for a count: what is done must not end in an error. */
enum {
    FS_REFUSED = -1, /* the caller's arithmetic does not round to nearest */
    FS_MISSED = -2,  /* the arrays do not lie as those that the table was made for */
    FS_STEPPED = -3, /* the step is done */
};

/* Note the layout and dtype of all watched arrays, as they are now. */
void fs_learn(fs_table *table);

/* 1 if all watched arrays are as they were found, and all cells hold what the last step left;
 * unless `all`, the exposed arrays and the cells alone are looked at. */
int fs_stands(const fs_table *table, int all);

/* What a step leaves in place of the gradients: themselves; zeros; or what it would add to the
 * parameters, the difference between new and old ones, and then it leaves these as they are. */
enum { FS_GRADIENTS = 0, FS_ZEROS = 1, FS_UPDATES = 2 };

/* Step all rows on up to `threads` threads, and count the step: 0, or FS_REFUSED. `each` says that
 * gradients are clipped by the factors that fs_clip_each found, and not by that of their job. */
int fs_step(fs_table *table, int threads, int leaves, int each);

/* Order the k numbers in `index`, each at least 0 and below `limit`: `order` gets their places,
 * `ids` the different ones, ascending, and `starts` where in `order` each begins. All have room for
 * k + 1. Returns how many are different; or -1 - j if the number at j is out of range. */
int64_t fs_order(const int64_t *index, int64_t k, int64_t limit, int64_t *order, int64_t *ids,
                 int64_t *starts);

/* Take the steps that the slices of all rows have missed. Returns 0, or FS_REFUSED. */
int fs_catch_up(fs_table *table, int threads);

/* Put the gradients in `list`, the address of a Python list, into the rows, from index `start`
 * on. Returns the index of the first that does not match its header, or whose parameter is not
 * as it was found, for Python to check, or nheaders. */
int64_t fs_take(fs_table *table, uintptr_t list, int64_t start, int zeroes);

/* The same without putting them anywhere, while another thread may run a step of the table: it stops
 * at gradients of rows, too, and where zeros would be written to another address than before. */
int64_t fs_fits(const fs_table *table, uintptr_t list, int64_t start, int zeroes);

/* Take a gradient, an array whose memory is at `data`, and that lies as the one before, as Python
 * has found: 1, or 0 if it cannot be read there. */
int fs_look(fs_table *table, int64_t index, uintptr_t array, intptr_t data);

/* Remember where the memory of a gradient is that was checked or looked at last, an array; or
 * forget all of that parameter, or of a whole table. */
void fs_remember(fs_table *table, int64_t index, uintptr_t array);
void fs_forget(fs_table *table, int64_t index);
void fs_forget_all(fs_table *table);

/* Take all of `list`, and step without zeroing if every gradient matches. Returns FS_STEPPED, or
 * what fs_take does, or FS_REFUSED. */
int64_t fs_take_and_step(fs_table *table, uintptr_t list, int threads);

/* Put into the list `into`, as its first item, bytes that tell how the arrays in `list` lie: the
 * same for arrays of the same types, dtypes, shapes and strides. Of small C-contiguous arrays, see
 * `any_shape`, the shape counts by its number of axes alone. 0 if C cannot read one of them. */
int fs_layout(const fs_library *libraries, int64_t nlibraries, uintptr_t list, uintptr_t into);

/* Aim the row of a table at the arrays in `list`, whose aims it has: 1, or 0 if they do not lie as
 * they have to, or overlap one another. */
int fs_aim(fs_table *table, uintptr_t list);

/* Aim at `list`, and step with the list of gradients `grads` if it matches: what fs_take_and_step
 * returns, or FS_MISSED. */
int64_t fs_aim_and_step(fs_table *table, uintptr_t list, uintptr_t grads, int threads);

/* Put the attribute `name` of each object in `list` into the list `into`, which has as many items,
 * all None; objects that are None stay None. `list`, `name` and `into` are addresses of Python
 * objects. Returns how many were put there: fewer than all after an exception, which Python finds
 * again when it reads the next one itself. */
int64_t fs_gather(uintptr_t list, uintptr_t name, uintptr_t into);

/* 1 if two Python lists have the same objects in the same order. */
int fs_same(uintptr_t list, uintptr_t other);

/* 1 if each object in a Python list has as many references as `counts`, its address, says. */
int fs_counts(uintptr_t list, const int64_t *counts);

/* Put None in the place of all items of a Python list. */
void fs_empty(uintptr_t list);

/* 1 if the values of a Python dict are the objects of the list `inner`, and the values of those of
 * them that are dicts together the objects of `list`, in the same order. */
int fs_holds(uintptr_t dict, uintptr_t inner, uintptr_t list);

/* The kernel of an update rule in the instruction set in force, or NULL. Bit k of `has` says
 * that the rule has state array k; `inside` says that eps stands under the root. Without these
 * two: "squares" sums squares, "limit" and "limit_squares" read and write what a step and its
 * sums do, without the arithmetic. */
fs_kernel fs_find_kernel(const char *rule, const char *dtype, int has, int inside);

/* A storage format in the instruction set in force, or NULL; and the random bits of all formats. */
const fs_storage *fs_find_storage(const char *name);
fs_randomize fs_find_randomize(void);

/* Puts what stands for a job's kernel where rows are stepped by themselves into the job; NULL if
 * there is nothing. */
void fs_find_for_rows(fs_job *job);

/* What steps a whole tile at once by a kernel, with operands in such formats, in the instruction
 * set in force; NULL if there is nothing. */
fs_whole fs_find_whole(fs_kernel kernel, const fs_operands *operands);

/* Instruction sets: the names compiled in (NULL past the last), whether this CPU runs one, the
 * one in force, and a switch that returns 0 on success. */
const char *fs_isa_name(int index);
int fs_isa_supported(int index);
const char *fs_isa(void);
int fs_isa_select(const char *name);

/* The threads that ran the last step of the calling thread: "caller", "pool" or "openmp". */
const char *fs_team(void);

/* ---- steps on a CUDA device: see cuda.c ---- */

enum { FS_ARGUMENTS = 64, FS_RING = 8 };

/* Functions of the driver, by their addresses. */
typedef struct {
    uintptr_t launch;    /* cuLaunchKernel */
    uintptr_t copy;      /* cuMemcpyHtoDAsync */
    uintptr_t record;    /* cuEventRecord */
    uintptr_t wait;      /* cuEventSynchronize */
    uintptr_t capturing; /* cuStreamIsCapturing */
    uintptr_t current;   /* cuCtxGetCurrent */
    uintptr_t push;      /* cuCtxPushCurrent */
    uintptr_t pop;       /* cuCtxPopCurrent */
} fs_driver;

/* A kernel that is launched: its integers come first among its arguments, and then its scalars, in
 * the dtype that it computes in. */
typedef struct {
    uintptr_t function;
    uint32_t blocks, threads;
    int64_t integers[FS_ARGUMENTS];
    int64_t nintegers;
    double scalars[FS_ARGUMENTS]; /* as Python computes them */
    int64_t nscalars;
    int64_t itemsize;
    double rounded[FS_ARGUMENTS];
    void *arguments[2 * FS_ARGUMENTS];
} fs_launch;

/* The host's part of a step on a device. */
typedef struct {
    const fs_driver *driver;
    uintptr_t context;
    fs_launch *launches;
    int64_t nlaunches;
    const fs_row *rows;    /* of which the gradients' addresses are sent */
    const int64_t *places; /* the place of each in the table on the device */
    int64_t nrows;
    int64_t *ring;     /* FS_RING times room for these addresses, in memory that the device reads */
    uintptr_t *events; /* one for each */
    int64_t turn;
    uintptr_t to;   /* where they are on the device */
    int64_t *moves; /* the count of the table whose rows these are */
    int64_t sent;   /* what it was when they were sent */
} fs_host;

/* Further results: the stream's work is not run, but recorded for a graph; Python has to look at
 * the gradient at FS_LOOK minus the result. */
enum { FS_CAPTURED = -5, FS_LOOK = -16 };

/* Send the addresses of gradients that are others than before, and launch all kernels, on a stream.
 * Returns 0; or FS_REFUSED, FS_CAPTURED, or, above 0, the error that the driver returned. */
int64_t fs_launch_all(fs_host *host, uintptr_t stream);

/* Send the addresses, make these launches, and record an event. Returns the same. */
int64_t fs_run(fs_host *host, fs_launch *launches, int64_t n, uintptr_t stream, uintptr_t event);

/* Take all of `list`, and launch if every gradient matches. Returns the same, or FS_LOOK or less. */
int64_t fs_take_and_launch(fs_table *table, uintptr_t list, fs_host *host, uintptr_t stream);

/* Send the addresses alone. Returns 0, or what the driver returned. */
int32_t fs_send(fs_host *host, uintptr_t stream);

/* ---- steps inside of programs that JAX compiles: see jax.c ---- */

enum {
    FS_XLA_MARK = 0x66757365, /* the first word of an fs_xla_job */
    FS_FAILED = 1,            /* what fs_write_job returns with a message */
    FS_INTERRUPTED = 2,       /* and where Ctrl-C has come: it can be called again */
    FS_XLA_ROWS = 64,         /* the most tensors of one call */
    FS_XLA_SCALARS = 256,     /* the most scalars of a rule */
};

/* What a call steps its tensors by, in a buffer of bytes between two calls. */
typedef struct {
    int64_t mark;
    fs_kernel kernels[2];     /* for float32 and for float64; NULL: no tensor is of that dtype */
    int64_t threads;          /* the most that may be used */
    int64_t nstates;          /* state arrays of a tensor */
    int64_t slots[FS_STATES]; /* and the place of each in a row */
    int64_t averaged;         /* 1: the moving average of p follows them */
    int64_t nscalars;
    double scalars[]; /* as Python computes them */
} fs_xla_job;

/* Handlers of XLA's foreign function interface: they take an xla_call, and return an xla_error. */
void *fs_xla_job_handler(void *call);
void *fs_xla_step_handler(void *call);
void *fs_xla_update_handler(void *call);

/* Write the job of the step after `count` others by the optimizer of that name, whose traced
 * hyperparameters have those values. Returns 0; or FS_FAILED, and puts what is wrong into
 * `message`, which is all zeros; or FS_INTERRUPTED. */
IN_PYTHON int fs_write_job(const char *name, int64_t length, int64_t count, const double *values,
                           int64_t nvalues, void *job, int64_t bytes, char *message, int64_t room);
