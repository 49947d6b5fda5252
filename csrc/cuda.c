/*
 * The host's part of a step on a CUDA device: gradients that came at new addresses, and launches.
 *
 * All of it is done by functions of NVIDIA's driver, whose addresses Python has found: nothing here
 * is linked with it. A call of Python's for each launch takes microseconds, and a device is done
 * with a small step in fewer.
 */
#include "api.h"
#include "rounding.h"

typedef int32_t (*launcher)(uintptr_t function, uint32_t blocks, uint32_t, uint32_t,
                            uint32_t threads, uint32_t, uint32_t, uint32_t shared, uintptr_t stream,
                            void **arguments, void **extra);
typedef int32_t (*copier)(uintptr_t to, const void *from, size_t size, uintptr_t stream);
typedef int32_t (*recorder)(uintptr_t event, uintptr_t stream);
typedef int32_t (*waiter)(uintptr_t event);
typedef int32_t (*asker)(uintptr_t stream, int *status);
typedef int32_t (*context_of)(uintptr_t *context);
typedef int32_t (*context_to)(uintptr_t context);

/* Returns 1 if the device has these addresses, or has been sent them last. */
static int are_sent(fs_host *host) {
    if (host->sent == *host->moves || !host->nrows)
        return 1;
    if (host->sent < 0)
        return 0;
    const int64_t *last = host->ring + (host->turn + FS_RING - 1) % FS_RING * host->nrows;
    for (int64_t row = 0; row < host->nrows; row++)
        if (last[host->places[row]] != (int64_t)host->rows[row].g)
            return 0;
    host->sent = *host->moves; /* gradients that were looked at, and are where they were */
    return 1;
}

int32_t fs_send(fs_host *host, uintptr_t stream) {
    if (are_sent(host))
        return 0;
    const fs_driver *driver = host->driver;
    int64_t *slot = host->ring + host->turn * host->nrows;
    uintptr_t event = host->events[host->turn];
    int32_t error = ((waiter)driver->wait)(event); /* until the device has read it */
    if (error)
        return error;
    for (int64_t row = 0; row < host->nrows; row++)
        slot[host->places[row]] = (int64_t)host->rows[row].g;
    const int64_t moves = *host->moves;
    error = ((copier)driver->copy)(host->to, slot, (size_t)host->nrows * sizeof *slot, stream);
    if (!error)
        error = ((recorder)driver->record)(event, stream);
    if (error)
        return error;
    host->turn = (host->turn + 1) % FS_RING;
    host->sent = moves;
    return 0;
}

/* Rounds the scalars of a kernel, each once, and points its arguments at all that it is given. */
static void fill(fs_launch *launch) {
    void **to = launch->arguments;
    for (int64_t k = 0; k < launch->nintegers; k++)
        *to++ = launch->integers + k;
    for (int64_t k = 0; k < launch->nscalars; k++) {
        if (launch->itemsize == sizeof(float)) {
            float *rounded = (float *)(launch->rounded + k);
            *rounded = (float)launch->scalars[k];
        } else {
            launch->rounded[k] = launch->scalars[k];
        }
        *to++ = launch->rounded + k;
    }
}

static int32_t launch(const fs_host *host, fs_launch *each, uintptr_t stream) {
    fill(each);
    return ((launcher)host->driver->launch)(each->function, each->blocks, 1, 1, each->threads, 1, 1,
                                            0, stream, each->arguments, NULL);
}

/* What a step consists of, on a stream: addresses that are sent, launches, an event or 0. */
typedef struct {
    fs_launch *launches;
    int64_t n;
    uintptr_t stream, event;
} program;

/* Runs it in the context of the device, which is the current one. */
static int64_t run_here(fs_host *host, const program *run) {
    int recorded = 0;
    int32_t error = ((asker)host->driver->capturing)(run->stream, &recorded);
    if (!error && recorded)
        return FS_CAPTURED;
    if (!error)
        error = fs_send(host, run->stream);
    for (int64_t k = 0; k < run->n && !error; k++)
        error = launch(host, run->launches + k, run->stream);
    if (!error && run->event)
        error = ((recorder)host->driver->record)(run->event, run->stream);
    return error;
}

/* The same, whichever context is the current one. */
static int64_t run_there(fs_host *host, const program *run) {
    const fs_driver *driver = host->driver;
    uintptr_t current = 0;
    int64_t error = ((context_of)driver->current)(&current);
    if (!error && current == host->context)
        return run_here(host, run);
    if (!error)
        error = ((context_to)driver->push)(host->context);
    if (error)
        return error;
    error = run_here(host, run);
    ((context_of)driver->pop)(&current);
    return error;
}

int64_t fs_run(fs_host *host, fs_launch *launches, int64_t n, uintptr_t stream, uintptr_t event) {
    if (!rounding_is_to_nearest())
        return FS_REFUSED;
    const program run = {launches, n, stream, event};
    rounding callers = rounding_begin();
    int64_t result = run_there(host, &run);
    rounding_end(callers);
    return result;
}

int64_t fs_launch_all(fs_host *host, uintptr_t stream) {
    return fs_run(host, host->launches, host->nlaunches, stream, 0);
}

int64_t fs_take_and_launch(fs_table *table, uintptr_t list, fs_host *host, uintptr_t stream) {
    int64_t taken = fs_take(table, list, 0, 0);
    return taken < table->nheaders ? FS_LOOK - taken : fs_launch_all(host, stream);
}
