/*
 * Steps inside of programs that JAX compiles: handlers of XLA's foreign function interface.
 *
 * A step of an optimizer is one call of the first handler, and then some of another. The first
 * writes an fs_xla_job, the kernels and scalars of step t, into a buffer of bytes: Python computes
 * them, as for every other step. `fs_xla_step_handler` reads that buffer and steps arrays in place;
 * `fs_xla_update_handler` steps the state alone, and leaves updates in place of the gradients. So
 * no step but the first handler's few numbers waits for Python, and no address of this process
 * stands in a compiled program, which JAX may keep for another process.
 *
 * XLA calls handlers from threads of its own, and several at a time.
 */
#include "objects.h" /* Python's header comes before all others */

#include "api.h"
#include "rounding.h"
#include "xla.h"

#include <stdatomic.h>

enum {
    MOST_VALUES = 64,   /* numbers that reach the scalars from the program */
    MOST_MESSAGE = 512, /* characters of an error's message, with the zero behind them */
    SITE_BITS = 6,      /* paces that are kept are 1 << SITE_BITS */
};

static xla_error *refuse(const xla_call *call, int code, const char *message) {
    xla_error_args args = {.size = sizeof args, .message = message, .code = code};
    return call->api->create_error(&args);
}

/* 1 if XLA asks what this handler was made for, which is answered here. An older XLA is told its
 * own version, because what is used here is the same in all of them; the oldest does not say which
 * it is. */
static int is_asked(const xla_call *call) {
    for (xla_extension *each = call->extensions; each; each = each->next)
        if (each->type == XLA_METADATA) {
            xla_metadata *metadata = ((xla_metadata_extension *)each)->metadata;
            int theirs = call->api ? call->api->version.minor : XLA_OLDEST;
            metadata->version.major = XLA_MAJOR;
            metadata->version.minor = theirs < XLA_MINOR ? theirs : XLA_MINOR;
            metadata->traits = 0;
            return 1;
        }
    return 0;
}

static int is_known(const xla_call *call) {
    return call->size >= sizeof *call && call->api->version.major == XLA_MAJOR &&
           call->stage == XLA_EXECUTE;
}

static const char unknown_version[] =
    "fusedstep does not know the version of XLA's foreign function interface that this jaxlib has; "
    "install a newer fusedstep";

static int64_t elements_of(const xla_buffer *buffer) {
    int64_t n = 1;
    for (int64_t k = 0; k < buffer->rank; k++)
        n *= buffer->dims[k];
    return n;
}

/* ---- the job of step t ---- */

static int64_t integer(const xla_buffer *buffer) {
    return buffer->dtype == XLA_S64 ? *(int64_t *)buffer->data : *(int32_t *)buffer->data;
}

static double number(const xla_buffer *buffer) {
    return buffer->dtype == XLA_F64 ? *(double *)buffer->data : *(float *)buffer->data;
}

void *fs_xla_job_handler(void *of) {
    const xla_call *call = of;
    if (is_asked(call))
        return NULL;
    if (!is_known(call))
        return refuse(call, XLA_FAILED_PRECONDITION, unknown_version);
    const xla_buffers *args = &call->args;
    const xla_attributes *attributes = &call->attributes;
    if (args->n < 1 || args->n > 1 + MOST_VALUES || call->results.n != 1 || attributes->n != 1 ||
        attributes->types[0] != XLA_STRING)
        return refuse(call, XLA_INVALID_ARGUMENT, "fusedstep: this is no call for a job");
    double values[MOST_VALUES];
    char message[MOST_MESSAGE] = "";
    /* XLA's threads flush subnormals, and Python's numbers keep them. */
    rounding callers = rounding_begin();
    for (int64_t k = 1; k < args->n; k++)
        values[k - 1] = number(args->buffers[k]);
    const xla_string *name = attributes->values[0];
    const xla_buffer *result = call->results.buffers[0];
    int status, interrupted = -1;
    do {
        interrupted++;
        status =
            fs_write_job(name->text, (int64_t)name->length, integer(args->buffers[0]), values,
                         args->n - 1, result->data, elements_of(result), message, sizeof message);
    } while (status == FS_INTERRUPTED);
    rounding_end(callers);
    if (interrupted) /* Python raises it when XLA has returned, and not as an error of XLA's */
        PyErr_SetInterrupt();
    if (status)
        return refuse(call, XLA_INVALID_ARGUMENT, *message ? message : "fusedstep: no job");
    return NULL;
}

/* ---- a step ---- */

/* The paces of steps, by the number of their elements: calls have no memory of their own. One that
 * finds its place taken, by a call at the same time, goes without. */
static struct {
    atomic_flag taken;
    int64_t elements;
    fs_paces paces;
} sites[1 << SITE_BITS];

static void step(fs_table *table, int threads, int leaves) {
    const int64_t elements = table->elements[table->nrows];
    fs_paces once = {0};
    int at = (int)((uint64_t)elements * 0x9e3779b97f4a7c15u >> (64 - SITE_BITS));
    int mine = !atomic_flag_test_and_set(&sites[at].taken);
    if (mine && sites[at].elements != elements) {
        sites[at].elements = elements;
        sites[at].paces = once;
    }
    table->paces = mine ? sites[at].paces : once;
    fs_step(table, threads, leaves, 0);
    if (mine) {
        sites[at].paces = table->paces;
        atomic_flag_clear(&sites[at].taken);
    }
}

/* Fills a row of the table from the buffers of one tensor: g, p, and the state. The results share
 * the memory of what is written: that of p, or of g where updates are left there, and that of the
 * state. Returns what is wrong, or NULL. */
static const char *fill(fs_row *row, const fs_xla_job *job, int leaves, xla_buffer *const *args,
                        xla_buffer *const *results) {
    const int64_t states = job->nstates + job->averaged, n = elements_of(args[0]);
    const int dtype = args[0]->dtype;
    if (dtype != XLA_F32 && dtype != XLA_F64)
        return "fusedstep: an array is neither float32 nor float64";
    for (int64_t k = 1; k < 2 + states; k++)
        if (args[k]->dtype != dtype || elements_of(args[k]) != n)
            return "fusedstep: the arrays of one tensor differ in dtype or size";
    for (int64_t k = 0; k < 1 + states; k++)
        if (results[k]->data != args[k ? k + 1 : leaves != FS_UPDATES]->data)
            return "fusedstep: XLA gave a result memory of its own";
    *row = (fs_row){.g = args[0]->data, .p = args[1]->data, .n = n, .job = dtype == XLA_F64};
    for (int64_t k = 0; k < job->nstates; k++)
        row->s[job->slots[k]] = args[2 + k]->data;
    if (job->averaged)
        row->ema = args[2 + job->nstates]->data;
    return NULL;
}

static xla_error *run(const xla_call *call, int leaves) {
    if (is_asked(call))
        return NULL;
    if (!is_known(call))
        return refuse(call, XLA_FAILED_PRECONDITION, unknown_version);
    const xla_buffers *args = &call->args;
    const fs_xla_job *job = args->n < 1 ? NULL : args->buffers[0]->data;
    if (!job || elements_of(args->buffers[0]) < (int64_t)sizeof *job || job->mark != FS_XLA_MARK)
        return refuse(call, XLA_INVALID_ARGUMENT, "fusedstep: this is no call for a step");
    const int64_t arrays = 2 + job->nstates + job->averaged, nrows = (args->n - 1) / arrays;
    if ((args->n - 1) % arrays || nrows > FS_XLA_ROWS || call->results.n != nrows * (arrays - 1))
        return refuse(call, XLA_INVALID_ARGUMENT, "fusedstep: this is no call for a step");

    fs_row rows[FS_XLA_ROWS];
    int64_t elements[FS_XLA_ROWS + 1] = {0}, large[FS_XLA_ROWS + 1] = {0};
    for (int64_t k = 0; k < nrows; k++) {
        const char *wrong = fill(rows + k, job, leaves, args->buffers + 1 + k * arrays,
                                 call->results.buffers + k * (arrays - 1));
        if (!wrong && rows[k].n && !job->kernels[rows[k].job])
            wrong = "fusedstep: there is no kernel for arrays of this dtype";
        if (wrong)
            return refuse(call, XLA_INTERNAL, wrong);
        elements[k + 1] = elements[k] + rows[k].n;
        large[k + 1] = large[k] + (rows[k].n < FS_LARGE ? 0 : rows[k].n);
    }
    double rounded[2][FS_XLA_SCALARS];
    fs_job jobs[2];
    for (int k = 0; k < 2; k++)
        jobs[k] = (fs_job){
            .kernel = job->kernels[k],
            .float64 = job->scalars,
            .scalars = rounded[k],
            .nscalars = job->nscalars,
            .itemsize = k ? sizeof(double) : sizeof(float),
        };
    int64_t steps = 0;
    fs_table table = {
        .jobs = jobs,
        .njobs = 2,
        .rows = rows,
        .nrows = nrows,
        .elements = elements,
        .large = large,
        .steps = &steps,
    };
    rounding callers = rounding_begin();
    step(&table, (int)job->threads, leaves);
    rounding_end(callers);
    return NULL;
}

void *fs_xla_step_handler(void *call) { return run(call, FS_GRADIENTS); }

void *fs_xla_update_handler(void *call) { return run(call, FS_UPDATES); }
