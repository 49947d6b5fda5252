/*
 * Steps of operands that are kept in fewer bytes than the kernel's float32.
 *
 * A tile of FS_TILE elements at a time is decoded, stepped by the kernel as if it were a tensor of
 * its own, and encoded, all in the first cache. So the kernels know no format, and the formats no
 * rule. Loops that do all of it for one element after the other took half as long again, see
 * docs/benchmarks/bytes.md.
 */
#include "tiles.h"

#include <string.h>

#include "common.h"

enum { LINE = 64 };

/* The second array of an operand; rows of which no operand has one need no `rest`. */
#define REST(row, member) ((row)->rest ? (row)->rest->member : NULL)

/* The values of an operand from element `at` on: where they lie, or in the tile. */
static float *load(const fs_operand *operand, void *first, void *second, int64_t at, int64_t n,
                   float *tile) {
    if (!operand->format)
        return (float *)first + at;
    if (n < FS_TILE)
        memset(tile, 0, FS_TILE * sizeof *tile);
    return operand->format->load(first, second, at, n, tile);
}

typedef uint32_t bits[FS_STREAMS][2][FS_TILE / 2];

static void store(const fs_operand *operand, float *values, void *first, void *second, int64_t at,
                  int64_t n, const float *tile, bits random) {
    const fs_storage *format = operand->format;
    if (!format)
        return;
    if (values == tile) /* codes of a whole tile are written, and beyond the end they are zeros' */
        memset(values + n, 0, (size_t)(FS_TILE - n) * sizeof *values);
    if (operand->random < 0)
        format->store(values, first, second, at, n, NULL);
    else
        format->store_randomly(values, first, second, at, n,
                               random[operand->random / 2][operand->random % 2]);
}

/* Random bits repeat after so many elements, and get another key. */
enum { SPAN = 33 };

static uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static void draw(const fs_operands *operands, const fs_row *row, int64_t at, bits random) {
    const uint64_t own = mixed(*operands->key ^ row->rest->ordinal);
    for (int64_t stream = 0; stream < operands->streams; stream++) {
        const uint64_t key = mixed(mixed(own ^ (uint64_t)stream) ^ (uint64_t)(at >> SPAN));
        operands->randomize(at, key, random[stream][0], random[stream][1]);
    }
}

void run_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end, int zero) {
    const fs_operands *operands = job->operands;
    const fs_operand *p = &operands->p, *g = &operands->g;
    _Alignas(LINE) float p_tile[FS_TILE], g_tile[FS_TILE], tiles[FS_STATES][FS_TILE];
    _Alignas(LINE) bits random;
    for (int64_t at = begin; at < end; at += FS_TILE) {
        const int64_t n = end - at < FS_TILE ? end - at : FS_TILE;
        fs_row tile = {.n = n};
        float *values = load(p, row->p, REST(row, p), at, n, p_tile);
        tile.p = values;
        tile.g = load(g, row->g, NULL, at, n, g_tile);
        for (int k = 0; k < FS_STATES; k++)
            if (row->s[k])
                tile.s[k] = load(operands->s + k, row->s[k], REST(row, s[k]), at, n, tiles[k]);
        if (row->ema)
            tile.ema = (float *)row->ema + at;
        job->kernel(&tile, 0, n, job->scalars);
        if (operands->streams)
            draw(operands, row, at, random);
        store(p, values, row->p, REST(row, p), at, n, p_tile, random);
        for (int k = 0; k < FS_STATES; k++)
            if (row->s[k])
                store(operands->s + k, tile.s[k], row->s[k], REST(row, s[k]), at, n, tiles[k],
                      random);
        if (zero) {
            const int64_t width = g->format ? g->format->width : (int64_t)sizeof(float);
            memset((char *)row->g + at * width, 0, (size_t)(n * width));
        }
    }
}

void sum_tiles(const fs_job *job, const fs_row *row, int64_t begin, int64_t end) {
    _Alignas(LINE) float block[FS_BLOCK];
    for (int64_t start = begin, stop; start < end; start = stop) {
        stop = start + FS_BLOCK < end ? start + FS_BLOCK : end;
        for (int64_t at = start; at < stop; at += FS_TILE)
            load(&job->operands->g, row->g, NULL, at, stop - at < FS_TILE ? stop - at : FS_TILE,
                 block + (at - start));
        fs_row beside = *row;
        beside.g = (void *)((uintptr_t)block - (uintptr_t)start * sizeof *block);
        job->squares(&beside, start, stop, job->scalars);
    }
}
