/*
 * Steps of operands that are kept in fewer bytes than the kernel's float32.
 *
 * A tile of FS_TILE elements at a time is decoded, stepped by the kernel as if it were a tensor of
 * its own, and encoded, all in the first cache. So the kernels know no format, and the formats no
 * rule. A shorter tile pays for more calls, a longer one takes more of the cache. For what most is
 * trained by there is a loop that does all three, or nearly: see pairs.inc and codes.inc.
 */
#include "tiles.h"

#include <string.h>

#include "common.h"

enum { LINE = 64 };

typedef uint32_t bits[FS_STREAMS][2][FS_TILE / 2];

/* An operand of a row that has a format, and its tile. */
typedef struct {
    const fs_storage *format;
    void *first, *second;
    float *tile;
    float *values;      /* where its values are: in the tile, or where they lie */
    const void *random; /* the bits by which it is rounded; NULL: to the nearest */
    void **slot;        /* where the kernel reads its address */
} coded;

/* An operand that the kernel steps where it lies. */
typedef struct {
    float *values;
    void **slot;
} plain;

typedef struct {
    _Alignas(LINE) float tiles[FS_STATES + 2][FS_TILE];
    _Alignas(LINE) bits random;
    uint64_t keys[FS_STREAMS];
    fs_row row; /* the tensor that the kernel takes a tile for */
    coded coded[FS_STATES + 2];
    plain plain[FS_STATES + 3];
    int ncoded, nplain;
} scratch;

static void add(scratch *to, const fs_operand *operand, void *first, void *second, void **slot) {
    if (!first)
        return;
    if (!operand || !operand->format) {
        to->plain[to->nplain++] = (plain){first, slot};
        return;
    }
    const int64_t random = operand->random;
    coded *made = to->coded + to->ncoded;
    *made = (coded){operand->format, first, second, to->tiles[to->ncoded++], NULL, NULL, slot};
    if (random >= 0)
        made->random = to->random[random / 2][random % 2];
}

/* Random bits repeat after so many elements, and get another key there. */
#define SPAN (1LL << 33)

static uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* Finds the keys of a row's streams for the span in which element `at` lies. */
static void find_keys(scratch *to, const fs_operands *operands, const fs_row *row, int64_t at) {
    for (int64_t stream = 0; stream < operands->streams; stream++) {
        const uint64_t own = mixed(*operands->key ^ row->rest->ordinal);
        to->keys[stream] = mixed(mixed(own ^ (uint64_t)stream) ^ (uint64_t)(at / SPAN));
    }
}

static float *load(const coded *operand, int64_t at, int64_t n) {
    if (n < FS_TILE)
        memset(operand->tile, 0, FS_TILE * sizeof *operand->tile);
    return operand->format->load(operand->first, operand->second, at, n, operand->tile);
}

static void store(const coded *operand, int64_t at, int64_t n) {
    const fs_storage *format = operand->format;
    float *values = operand->values;
    if (values == operand->tile && n < FS_TILE) /* whole tiles of codes are written */
        memset(values + n, 0, (size_t)(FS_TILE - n) * sizeof *values);
    (operand->random ? format->store_randomly : format->store)(
        values, operand->first, operand->second, at, n, operand->random);
}

static void step_tile(scratch *to, const fs_job *job, int64_t at, int64_t n) {
    const fs_operands *operands = job->operands;
    for (int k = 0; k < to->nplain; k++)
        *to->plain[k].slot = to->plain[k].values + at;
    for (int k = 0; k < to->ncoded; k++)
        *to->coded[k].slot = to->coded[k].values = load(to->coded + k, at, n);
    to->row.n = n;
    job->kernel(&to->row, 0, n, job->scalars);
    for (int64_t stream = 0; stream < operands->streams; stream++)
        operands->randomize(at, to->keys[stream], to->random[stream][0], to->random[stream][1]);
    for (int k = 0; k < to->ncoded; k++)
        if (to->coded[k].slot != &to->row.g)
            store(to->coded + k, at, n);
}

void run_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end, int zero) {
    const fs_operands *operands = job->operands;
    const fs_rest *rest = row->rest;
    const fs_whole whole = row->ema ? NULL : operands->whole;
    scratch to;
    to.row = (fs_row){0};
    to.keys[0] = 0;
    to.ncoded = to.nplain = 0;
    add(&to, &operands->p, row->p, rest ? rest->p : NULL, &to.row.p);
    add(&to, &operands->g, row->g, NULL, &to.row.g);
    for (int k = 0; k < FS_STATES; k++)
        add(&to, operands->s + k, row->s[k], rest ? rest->s[k] : NULL, to.row.s + k);
    add(&to, NULL, row->ema, NULL, &to.row.ema);
    find_keys(&to, operands, row, begin);
    const int64_t width = operands->g.format ? operands->g.format->width : (int64_t)sizeof(float);
    for (int64_t at = begin; at < end; at += FS_TILE) {
        const int64_t n = end - at < FS_TILE ? end - at : FS_TILE;
        if (at % SPAN == 0)
            find_keys(&to, operands, row, at);
        if (!whole || n < FS_TILE || !whole(row, at, to.keys, job->scalars))
            step_tile(&to, job, at, n);
        if (zero)
            memset((char *)row->g + at * width, 0, (size_t)(n * width));
    }
}

void sum_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end) {
    _Alignas(LINE) float block[FS_BLOCK];
    coded g = {.format = job->operands->g.format, .first = row->g};
    for (int64_t start = begin, stop; start < end; start = stop) {
        stop = start + FS_BLOCK < end ? start + FS_BLOCK : end;
        for (int64_t at = start; at < stop; at += FS_TILE) {
            g.tile = block + (at - start);
            load(&g, at, stop - at < FS_TILE ? stop - at : FS_TILE);
        }
        fs_row beside = *row;
        beside.g = (void *)((uintptr_t)block - (uintptr_t)start * sizeof *block);
        job->squares(&beside, start, stop, job->scalars);
    }
}
