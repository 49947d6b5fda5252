/*
 * NVIDIA's driver over the memory of the host: a libcuda.so.1 for tests, where there is no device.
 *
 * It has the functions of the driver's API that this package, NVIDIA's bindings and Numba call,
 * with their documented meaning. Memory of a device is memory of the process, with gaps between
 * allocations. A module is PTX, which another program has made a shared library of (see
 * ptx_in_c.py); a launch runs it, with each access checked.
 *
 * Work on a stream is put off, as on a device, and nobody can tell until when. MODE says how:
 * at once; as late as it may be, when somebody waits for it; or some of it, by chance, at each
 * call. So what reads a result without a wait, or gives memory up too early, is found. Or launches
 * are dropped, so that the host's own part of a step can be timed.
 *
 * An error of a kernel stays with the process as it does with a context: each call after it
 * returns its number. `fs_driver_message` tells what it was. A call, or a launch, can be made to
 * fail, see `fs_driver_fail` and `fs_driver_fault`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_device.h"

#define API __attribute__((visibility("default")))

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

typedef int result;
typedef uint64_t pointer;

enum { AT_ONCE, LATE, BY_CHANCE, NEVER };

static int mode = AT_ONCE, devices = 1, broken = SUCCESS;
static uint32_t checks = CHECK_RACES;
static uint64_t chance = 1;
enum { LAUNCHES, UPLOADS, DOWNLOADS, WAITS, FILLS, ALLOCATIONS, RECORDS, COUNTS, OTHERS };
static int64_t calls_of[COUNTS]; /* how many calls of each kind there were */
static char message[1024];

static struct {
    int64_t calls; /* how many may fail that have been made */
    int64_t at;    /* the count of them at which one fails */
    result code;
    int lasting; /* whether all after it do so, too */
    const char *name;
    int64_t launch; /* the count of launches at which one fails when it runs */
} fault;

static uint64_t draw(void) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    return chance;
}

static result fail(result code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (!message[0])
        vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return broken = code;
}

/* Counts a call, which returns what this does if it is not 0. */
static result called(int kind, const char *name) {
    if (broken)
        return broken;
    if (kind < COUNTS)
        calls_of[kind]++;
    if (++fault.calls != fault.at)
        return SUCCESS;
    fault.name = name;
    return fault.lasting ? fail(fault.code, "%s fails, as it was told to", name) : fault.code;
}

#define CALLED(kind)                                                                               \
    do {                                                                                           \
        result code_ = called(kind, __func__);                                                     \
        if (code_)                                                                                 \
            return code_;                                                                          \
    } while (0)

/* While a stream is recorded, calls are refused that may wait for it without a word, and end it:
 * but for threads that have asked for relaxed rules. */
static int recorded, spoilt;
enum { GLOBAL_RULES, RELAXED_RULES = 2 };
static _Thread_local int rules = GLOBAL_RULES;

static result unsafe(void) {
    if (!recorded || rules == RELAXED_RULES)
        return SUCCESS;
    spoilt = 1;
    return CAPTURE_UNSUPPORTED;
}

#define UNSAFE()                                                                                   \
    do {                                                                                           \
        result code_ = unsafe();                                                                   \
        if (code_)                                                                                 \
            return code_;                                                                          \
    } while (0)

/* ---- memory ---- */

enum { GAP = 512, MOST_ALLOCATIONS = 1 << 16 };
enum { OF_DEVICE, OF_HOST };

struct block {
    uint64_t low, high;
    void *start;
    int kind, ordinal;
};

static struct block blocks[MOST_ALLOCATIONS];
static struct allocation allocations[MOST_ALLOCATIONS];
static uint32_t nblocks;

static size_t place_of(uint64_t at) { /* the first block that ends beyond it */
    size_t low = 0, high = nblocks;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].high <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct block *find(uint64_t at, uint64_t size) {
    size_t k = place_of(at);
    if (k < nblocks && blocks[k].low <= at && size <= blocks[k].high - at)
        return blocks + k;
    return NULL;
}

static void add(struct block made) {
    size_t k = place_of(made.low);
    memmove(blocks + k + 1, blocks + k, (nblocks - k) * sizeof *blocks);
    blocks[k] = made;
    nblocks++;
}

static result allocate(pointer *at, size_t size, int kind, int ordinal) {
    if (!size || nblocks == MOST_ALLOCATIONS)
        return size ? OUT_OF_MEMORY : INVALID_VALUE;
    char *start = aligned_alloc(256, (size + 2 * GAP + 255) / 256 * 256);
    if (!start)
        return OUT_OF_MEMORY;
    memset(start, 0xA5, size + 2 * GAP);
    *at = (pointer)(start + GAP);
    add((struct block){*at, *at + size, start, kind, ordinal});
    return SUCCESS;
}

static result release(pointer at) {
    struct block *found = find(at, 1);
    if (!found || found->low != at)
        return INVALID_VALUE;
    void *start = found->start;
    memset((void *)found->low, 0x5A,
           found->high - found->low); /* whoever still reads it learns it */
    size_t k = found - blocks;
    memmove(found, found + 1, (nblocks - k - 1) * sizeof *blocks);
    nblocks--;
    free(start);
    return SUCCESS;
}

/* ---- kernels ---- */

struct function {
    int32_t (*run)(const struct device *, const uint32_t *, const uint32_t *, uint64_t, void **,
                   char *, size_t);
    const char *name;
    uint32_t count, sizes[256];
    void *library;
    int ordinal;
};

/* Makes a shared library of PTX, and returns its path; NULL if that failed. */
typedef const char *(*translator)(const char *ptx);
static translator translate;

static int current(void);

static result load(struct function **loaded, const void *image) {
    const char *path = translate ? translate(image) : NULL;
    if (!path)
        return INVALID_IMAGE;
    struct function *made = calloc(1, sizeof *made);
    made->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!made->library) {
        fprintf(stderr, "%s\n", dlerror());
        free(made);
        return INVALID_IMAGE;
    }
    uint32_t (*count)(uint32_t *) = dlsym(made->library, "parameters");
    const char *(*name)(void) = dlsym(made->library, "kernel_name");
    made->run = dlsym(made->library, "run");
    made->name = name();
    made->ordinal = current();
    made->count = count(made->sizes);
    *loaded = made;
    return SUCCESS;
}

/* ---- work, streams and events ---- */

enum work { COPY, FILL, LAUNCH, RECORD, WAIT_FOR };

struct event {
    struct stream *stream; /* of the last record; NULL: it was never recorded, and is over */
    uint64_t serial;
    int ordinal;
};

struct op {
    struct op *next;
    uint64_t serial;
    enum work work;
    void *to;
    const void *from;
    size_t size;
    int value, width;
    struct function *function;
    uint32_t grid[3], block[3];
    unsigned char *arguments;
    struct event event; /* to wait for */
};

struct graph {
    struct op *first, **end;
};

struct stream {
    struct op *first, **end;
    uint64_t done;         /* the serial of the last op that has run */
    struct graph *capture; /* NULL: work is run */
    int strict;            /* whether the capture ends by calls that are unsafe */
    struct stream *next;
    int blocking, ordinal;
};

static struct stream legacy = {.blocking = 1}; /* of every device */
static struct stream *streams = &legacy;
static uint64_t serials;

static struct stream *stream_of(void *handle) { return (uintptr_t)handle <= 2 ? &legacy : handle; }

static void run_op(struct op *op);

static void step(struct stream *stream) {
    struct op *op = stream->first;
    stream->first = op->next;
    if (!stream->first)
        stream->end = &stream->first;
    run_op(op);
    stream->done = op->serial;
    free(op->arguments);
    free(op);
}

static void run_to(struct stream *stream, uint64_t serial) {
    while (stream->first && stream->first->serial <= serial)
        step(stream);
}

static void run_all(void) {
    for (struct stream *each = streams; each; each = each->next)
        run_to(each, UINT64_MAX);
}

/* A device reaches its own memory and that of the host. */
static void launch(struct op *op) {
    void *addresses[256];
    unsigned char *at = op->arguments;
    for (uint32_t k = 0; k < op->function->count; k++) {
        addresses[k] = at;
        at += (op->function->sizes[k] + 7) / 8 * 8;
    }
    struct device device = {allocations, 0, checks};
    for (size_t k = 0; k < nblocks; k++)
        if (blocks[k].kind == OF_HOST || blocks[k].ordinal == op->function->ordinal)
            allocations[device.count++] =
                (struct allocation){.low = blocks[k].low, .high = blocks[k].high};
    char error[512] = "";
    if (op->function->run(&device, op->grid, op->block, draw(), addresses, error, sizeof error))
        fail(ILLEGAL_ADDRESS, "%s", error);
}

static void run_op(struct op *op) {
    if (broken)
        return;
    switch (op->work) {
    case COPY:
        memmove(op->to, op->from, op->size);
        return;
    case FILL:
        for (size_t k = 0; k < op->size; k += op->width)
            memcpy((char *)op->to + k, &op->value, op->width);
        return;
    case LAUNCH:
        if (op->value)
            fail(ILLEGAL_ADDRESS, "%s fails, as it was told to", op->function->name);
        else
            launch(op);
        return;
    case RECORD:
        return;
    case WAIT_FOR:
        if (op->event.stream)
            run_to(op->event.stream, op->event.serial);
        return;
    }
}

static void some_by_chance(void) {
    if (mode != BY_CHANCE)
        return;
    for (struct stream *each = streams; each; each = each->next)
        for (uint64_t k = draw() % 4; k && each->first; k--)
            step(each);
}

static result put(void *handle, struct op op) {
    if (broken)
        return broken;
    struct stream *stream = stream_of(handle);
    struct op *made = malloc(sizeof *made);
    *made = op;
    made->next = NULL;
    if (stream->capture) {
        *stream->capture->end = made;
        stream->capture->end = &made->next;
        return SUCCESS;
    }
    /* The default stream and others that block take turns. */
    for (struct stream *each = streams; each && stream->blocking; each = each->next)
        if (each != stream && each->blocking && (each == &legacy || stream == &legacy))
            run_to(each, UINT64_MAX);
    made->serial = ++serials;
    if (!stream->first)
        stream->end = &stream->first;
    *stream->end = made;
    stream->end = &made->next;
    if (mode == AT_ONCE || mode == NEVER)
        run_to(stream, UINT64_MAX);
    some_by_chance();
    return broken;
}

static result wait_for(struct stream *stream, uint64_t serial) {
    if (stream->capture)
        return CAPTURE_UNSUPPORTED;
    for (struct stream *each = streams; each && stream == &legacy; each = each->next)
        if (each->blocking)
            run_to(each, UINT64_MAX);
    run_to(stream, serial);
    return broken;
}

static result copy(void *to, const void *from, size_t size, void *stream) {
    return size ? put(stream, (struct op){.work = COPY, .to = to, .from = from, .size = size})
                : SUCCESS;
}

static result copy_now(void *to, const void *from, size_t size) {
    run_all();
    if (!broken)
        memmove(to, from, size);
    return broken;
}

static result check(pointer at, size_t size) {
    if (size && !find(at, size)) {
        snprintf(message, sizeof message,
                 "a copy of %zu bytes at %#llx, outside of what is allocated", size,
                 (unsigned long long)at);
        return INVALID_VALUE;
    }
    return SUCCESS;
}

/* ---- the driver's functions ---- */

API result cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }

API result cuDriverGetVersion(int *version) {
    *version = 13050;
    return SUCCESS;
}

API result cuGetErrorName(result code, const char **name) {
    *name = code == SUCCESS ? "CUDA_SUCCESS" : "CUDA_ERROR";
    return SUCCESS;
}

API result cuGetErrorString(result code, const char **text) {
    *text = code == SUCCESS ? "no error" : message[0] ? message : "an error";
    return SUCCESS;
}

API result cuDeviceGetCount(int *count) {
    *count = devices;
    return SUCCESS;
}

API result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < devices ? SUCCESS : INVALID_DEVICE;
}

API result cuDeviceGetName(char *name, int room, int device) {
    snprintf(name, room, "memory of the host %d", device);
    return SUCCESS;
}

API result cuDeviceGetUuid(char *uuid, int device) {
    memset(uuid, device + 1, 16);
    return SUCCESS;
}

API result cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API result cuDeviceTotalMem(size_t *size, int device) {
    (void)device;
    *size = (size_t)1 << 34;
    return SUCCESS;
}

API result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 1: /* threads a block */
    case 2:
    case 3:
        *value = 1024;
        break;
    case 4:
        *value = 64;
        break;
    case 5:
        *value = INT32_MAX;
        break;
    case 6:
    case 7:
        *value = 65535;
        break;
    case 8: /* bytes of shared memory a block */
        *value = 49152;
        break;
    case 10: /* lanes of a warp */
        *value = 32;
        break;
    case 12: /* registers a block */
        *value = 65536;
        break;
    case 16: /* multiprocessors */
        *value = 132;
        break;
    case 41: /* one address space */
    case 19: /* host memory can be mapped */
        *value = 1;
        break;
    case 39: /* threads a multiprocessor */
        *value = 2048;
        break;
    case 75: /* compute capability */
        *value = 9;
        break;
    default:
        *value = 0;
    }
    return SUCCESS;
}

API result cuDeviceCanAccessPeer(int *can, int one, int other) {
    (void)one, (void)other;
    *can = 0;
    return SUCCESS;
}

/* Contexts are the primary ones: a number for each device. */
static char contexts[16];
static __thread void *stack[64];
static __thread int depth;

API result cuDevicePrimaryCtxRetain(void **context, int device) {
    if (device < 0 || device >= devices)
        return INVALID_DEVICE;
    *context = contexts + device;
    return SUCCESS;
}

API result cuDevicePrimaryCtxRelease(int device) {
    (void)device;
    return SUCCESS;
}

API result cuDevicePrimaryCtxReset(int device) {
    (void)device;
    return SUCCESS;
}

API result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device;
    *flags = 0, *active = 1;
    return SUCCESS;
}

API result cuCtxGetCurrent(void **context) {
    *context = depth ? stack[depth - 1] : NULL;
    return SUCCESS;
}

API result cuCtxPushCurrent(void *context) {
    if (depth == 64)
        return OUT_OF_MEMORY;
    stack[depth++] = context;
    return SUCCESS;
}

API result cuCtxPopCurrent(void **context) {
    if (!depth)
        return INVALID_CONTEXT;
    depth--;
    if (context)
        *context = stack[depth];
    return SUCCESS;
}

API result cuCtxSetCurrent(void *context) {
    if (!depth)
        return cuCtxPushCurrent(context);
    stack[depth - 1] = context;
    return SUCCESS;
}

static int current(void) {
    return depth && stack[depth - 1] ? (int)((char *)stack[depth - 1] - contexts) : -1;
}

API result cuCtxGetDevice(int *device) {
    *device = current();
    return *device < 0 ? INVALID_CONTEXT : SUCCESS;
}

API result cuCtxGetApiVersion(void *context, unsigned *version) {
    (void)context;
    *version = 13050;
    return SUCCESS;
}

API result cuCtxSynchronize(void) {
    UNSAFE();
    CALLED(WAITS);
    run_all();
    return broken;
}

API result cuMemGetInfo(size_t *left, size_t *total) {
    *left = *total = (size_t)1 << 34;
    return SUCCESS;
}

API result cuMemAlloc(pointer *at, size_t size) {
    UNSAFE();
    if (current() < 0)
        return INVALID_CONTEXT;
    CALLED(ALLOCATIONS);
    return allocate(at, size, OF_DEVICE, current());
}

API result cuMemFree(pointer at) {
    UNSAFE();
    run_all(); /* as a device does, which waits for itself */
    return at ? release(at) : SUCCESS;
}

API result cuMemHostAlloc(void **at, size_t size, unsigned flags) {
    UNSAFE();
    (void)flags;
    CALLED(ALLOCATIONS);
    return allocate((pointer *)at, size, OF_HOST, current());
}

API result cuMemAllocHost(void **at, size_t size) { return cuMemHostAlloc(at, size, 0); }

API result cuMemFreeHost(void *at) {
    UNSAFE();
    run_all();
    return release((pointer)at);
}

API result cuMemHostGetDevicePointer(pointer *at, void *host, unsigned flags) {
    (void)flags;
    *at = (pointer)host;
    return SUCCESS;
}

API result cuMemGetAddressRange(pointer *low, size_t *size, pointer at) {
    struct block *found = find(at, 1);
    if (!found)
        return NOT_FOUND;
    if (low)
        *low = found->low;
    if (size)
        *size = found->high - found->low;
    return SUCCESS;
}

API result cuPointerGetAttribute(void *value, int attribute, pointer at) {
    struct block *found = find(at, 1);
    if (!found)
        return INVALID_VALUE;
    switch (attribute) {
    case 1: /* context */
        *(void **)value = contexts + found->ordinal;
        return SUCCESS;
    case 2: /* kind of memory: host 1, device 2 */
        *(unsigned *)value = found->kind == OF_HOST ? 1 : 2;
        return SUCCESS;
    case 3: /* as a device has it */
    case 4: /* as the host has it */
        *(pointer *)value = at;
        return SUCCESS;
    case 8: /* managed */
        *(unsigned *)value = 0;
        return SUCCESS;
    case 9: /* number of the device */
        *(int *)value = found->ordinal;
        return SUCCESS;
    case 11: /* start and size of the allocation */
        *(pointer *)value = found->low;
        return SUCCESS;
    case 12:
        *(size_t *)value = found->high - found->low;
        return SUCCESS;
    }
    return INVALID_VALUE;
}

API result cuMemcpyHtoDAsync(pointer to, const void *from, size_t size, void *stream) {
    CALLED(UPLOADS);
    result bad = check(to, size);
    return bad ? bad : copy((void *)to, from, size, stream);
}

API result cuMemcpyDtoHAsync(void *to, pointer from, size_t size, void *stream) {
    CALLED(DOWNLOADS);
    result bad = check(from, size);
    return bad ? bad : copy(to, (void *)from, size, stream);
}

API result cuMemcpyDtoDAsync(pointer to, pointer from, size_t size, void *stream) {
    CALLED(OTHERS);
    result bad = check(to, size) ? INVALID_VALUE : check(from, size);
    return bad ? bad : copy((void *)to, (void *)from, size, stream);
}

API result cuMemcpyAsync(pointer to, pointer from, size_t size, void *stream) {
    CALLED(OTHERS);
    return copy((void *)to, (void *)from, size, stream);
}

API result cuMemcpyHtoD(pointer to, const void *from, size_t size) {
    UNSAFE();
    CALLED(UPLOADS);
    result bad = check(to, size);
    return bad ? bad : copy_now((void *)to, from, size);
}

API result cuMemcpyDtoH(void *to, pointer from, size_t size) {
    UNSAFE();
    CALLED(DOWNLOADS);
    calls_of[WAITS]++;
    result bad = check(from, size);
    return bad ? bad : copy_now(to, (void *)from, size);
}

API result cuMemcpyDtoD(pointer to, pointer from, size_t size) {
    UNSAFE();
    CALLED(OTHERS);
    result bad = check(to, size) ? INVALID_VALUE : check(from, size);
    return bad ? bad : copy_now((void *)to, (void *)from, size);
}

static result filled(pointer at, int value, int width, size_t count, void *stream) {
    result bad = check(at, count * width);
    if (bad || !count)
        return bad;
    return put(
        stream,
        (struct op){
            .work = FILL, .to = (void *)at, .size = count * width, .value = value, .width = width});
}

API result cuMemsetD8Async(pointer at, unsigned char value, size_t count, void *stream) {
    CALLED(FILLS);
    return filled(at, value, 1, count, stream);
}

API result cuMemsetD32Async(pointer at, unsigned value, size_t count, void *stream) {
    CALLED(FILLS);
    return filled(at, (int)value, 4, count, stream);
}

API result cuMemsetD8(pointer at, unsigned char value, size_t count) {
    UNSAFE();
    CALLED(FILLS);
    result bad = filled(at, value, 1, count, NULL);
    run_all();
    return bad;
}

API result cuStreamCreate(void **stream, unsigned flags) {
    struct stream *made = calloc(1, sizeof *made);
    made->blocking = !(flags & 1);
    made->ordinal = current();
    made->next = streams->next;
    streams->next = made;
    *stream = made;
    return SUCCESS;
}

API result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    (void)priority;
    return cuStreamCreate(stream, flags);
}

API result cuStreamDestroy(void *stream) {
    run_to(stream_of(stream), UINT64_MAX); /* it stays in the list, empty */
    return SUCCESS;
}

API result cuStreamSynchronize(void *stream) {
    UNSAFE();
    CALLED(WAITS);
    return wait_for(stream_of(stream), UINT64_MAX);
}

API result cuStreamQuery(void *stream) {
    UNSAFE();
    some_by_chance();
    CALLED(OTHERS);
    return stream_of(stream)->first ? NOT_READY : SUCCESS;
}

API result cuStreamWaitEvent(void *stream, struct event *event, unsigned flags) {
    (void)flags;
    CALLED(OTHERS);
    return put(stream, (struct op){.work = WAIT_FOR, .event = *event});
}

API result cuEventCreate(struct event **event, unsigned flags) {
    (void)flags;
    CALLED(OTHERS);
    *event = calloc(1, sizeof **event);
    (*event)->ordinal = current();
    return SUCCESS;
}

API result cuEventDestroy(struct event *event) {
    free(event);
    return SUCCESS;
}

API result cuEventRecord(struct event *event, void *handle) {
    struct stream *stream = stream_of(handle);
    CALLED(RECORDS);
    if (stream != &legacy && stream->ordinal != event->ordinal)
        return INVALID_HANDLE;
    result bad = put(handle, (struct op){.work = RECORD});
    if (!stream->capture)
        event->stream = stream, event->serial = serials;
    return bad;
}

API result cuEventRecordWithFlags(struct event *event, void *handle, unsigned flags) {
    (void)flags;
    return cuEventRecord(event, handle);
}

API result cuEventSynchronize(struct event *event) {
    UNSAFE();
    CALLED(WAITS);
    return event->stream ? wait_for(event->stream, event->serial) : SUCCESS;
}

API result cuEventQuery(struct event *event) {
    UNSAFE();
    some_by_chance();
    CALLED(OTHERS);
    return event->stream && event->stream->done < event->serial ? NOT_READY : SUCCESS;
}

API result cuEventElapsedTime(float *milliseconds, struct event *start, struct event *end) {
    *milliseconds = (float)(end->serial - start->serial) * 1e-3f;
    return SUCCESS;
}

/* ---- graphs ---- */

API result cuStreamBeginCapture(void *handle, int kind) {
    struct stream *stream = stream_of(handle);
    if (stream == &legacy || stream->capture)
        return CAPTURE_UNSUPPORTED;
    spoilt = recorded ? spoilt : 0;
    stream->strict = kind != RELAXED_RULES;
    recorded += stream->strict;
    stream->capture = calloc(1, sizeof *stream->capture);
    stream->capture->end = &stream->capture->first;
    return SUCCESS;
}

API result cuStreamEndCapture(void *handle, struct graph **graph) {
    struct stream *stream = stream_of(handle);
    if (!stream->capture)
        return INVALID_VALUE;
    *graph = stream->capture;
    stream->capture = NULL;
    recorded -= stream->strict;
    return spoilt && stream->strict ? CAPTURE_INVALIDATED : SUCCESS;
}

API result cuThreadExchangeStreamCaptureMode(int *mode) {
    const int before = rules;
    rules = *mode;
    *mode = before;
    return SUCCESS;
}

API result cuStreamIsCapturing(void *handle, int *status) {
    CALLED(OTHERS);
    *status = stream_of(handle)->capture != NULL;
    return SUCCESS;
}

API result cuGraphInstantiateWithFlags(struct graph **made, struct graph *graph, uint64_t flags) {
    (void)flags;
    *made = graph;
    return SUCCESS;
}

API result cuGraphInstantiate(struct graph **made, struct graph *graph, uint64_t flags) {
    return cuGraphInstantiateWithFlags(made, graph, flags);
}

static size_t room_of(const struct function *function) {
    size_t room = 0;
    for (uint32_t k = 0; k < function->count; k++)
        room += (function->sizes[k] + 7) / 8 * 8;
    return room;
}

API result cuGraphLaunch(struct graph *graph, void *stream) {
    for (struct op *op = graph->first; op; op = op->next) {
        struct op again = *op;
        if (op->arguments) {
            size_t room = room_of(op->function);
            again.arguments = malloc(room + 1);
            memcpy(again.arguments, op->arguments, room);
        }
        result bad = put(stream, again);
        if (bad)
            return bad;
    }
    return SUCCESS;
}

API result cuGraphExecDestroy(struct graph *graph) {
    (void)graph;
    return SUCCESS;
}

API result cuGraphDestroy(struct graph *graph) {
    (void)graph;
    return SUCCESS;
}

/* ---- modules ---- */

API result cuModuleLoadData(struct function **module, const void *image) {
    UNSAFE();
    CALLED(OTHERS);
    return load(module, image);
}

API result cuModuleLoadDataEx(struct function **module, const void *image, unsigned count,
                              void *options, void *values) {
    UNSAFE();
    (void)count, (void)options, (void)values;
    return load(module, image);
}

API result cuModuleGetFunction(struct function **function, struct function *module,
                               const char *name) {
    CALLED(OTHERS);
    *function = module;
    return strcmp(module->name, name) ? NOT_FOUND : SUCCESS;
}

API result cuModuleUnload(struct function *module) {
    (void)module;
    return SUCCESS;
}

API result cuLaunchKernel(struct function *function, unsigned grid_x, unsigned grid_y,
                          unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared, void *stream, void **parameters, void **extra) {
    some_by_chance();
    CALLED(LAUNCHES);
    if (mode == NEVER)
        return SUCCESS;
    if (current() < 0)
        return INVALID_CONTEXT;
    const struct stream *on = stream_of(stream);
    if (function->ordinal != current() || (on != &legacy && on->ordinal != current()))
        return INVALID_HANDLE;
    if (!grid_x || !block_x || block_x > 1024 || shared || extra)
        return INVALID_VALUE;
    unsigned char *arguments = calloc(1, room_of(function) + 1), *at = arguments;
    for (uint32_t k = 0; k < function->count; k++) {
        memcpy(at, parameters[k], function->sizes[k]);
        at += (function->sizes[k] + 7) / 8 * 8;
    }
    return put(stream, (struct op){.work = LAUNCH,
                                   .value = calls_of[LAUNCHES] == fault.launch,
                                   .function = function,
                                   .grid = {grid_x, grid_y, grid_z},
                                   .block = {block_x, block_y, block_z},
                                   .arguments = arguments});
}

/* ---- how others find these functions ---- */

API result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags,
                            void *found) {
    (void)version, (void)flags;
    static void *self;
    Dl_info here;
    if (!self && dladdr((void *)cuInit, &here))
        self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = dlsym(self, name);
    if (found)
        *(int *)found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

API result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                               void *found) {
    return cuGetProcAddress(name, function, version, flags, found);
}

/* ---- for tests ---- */

API void fs_driver_translator(translator given) { translate = given; }

API void fs_driver_mode(int given, uint64_t seed) {
    run_all();
    mode = given;
    chance = seed * 2 + 1;
}

API void fs_driver_devices(int count) { devices = count; }

/* Has launches checked for races, or not, which is ten times as fast. */
API void fs_driver_checks(int races) { checks = races ? CHECK_RACES : 0; }

/* Has the `nth` call from now on fail that may, and if `lasting` all after it; 0: none. */
API void fs_driver_fail(int64_t nth, result code, int lasting) {
    fault.at = nth ? fault.calls + nth : 0;
    fault.code = code, fault.lasting = lasting, fault.name = NULL;
}

/* Has the `nth` launch from now on fail when it runs; 0: none. */
API void fs_driver_fault(int64_t nth) { fault.launch = nth ? calls_of[LAUNCHES] + nth : 0; }

/* How much work a graph has. */
API int64_t fs_driver_recorded(const struct graph *graph) {
    int64_t count = 0;
    for (const struct op *op = graph->first; op; op = op->next)
        count++;
    return count;
}

/* How many calls that may fail there have been. */
API int64_t fs_driver_calls(void) { return fault.calls; }

/* The name of the function that has failed; NULL: none has, since it was told to. */
API const char *fs_driver_failed(void) { return fault.name; }

/* Forgets an error, and returns what it was. */
API const char *fs_driver_message(void) {
    static char last[sizeof message];
    memcpy(last, message, sizeof message);
    message[0] = 0;
    broken = SUCCESS;
    return last;
}

API const int64_t *fs_driver_counts(void) { return calls_of; }
