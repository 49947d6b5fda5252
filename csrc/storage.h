/*
 * THE storage formats in C, one element at a time: how a float32 is kept in fewer bytes.
 *
 * A rule never sees them: what is stored is decoded to float32, stepped, and encoded again. `u` is
 * the bits of a float32, r the 16 random bits of an element where a format rounds stochastically.
 * All is arithmetic of integers, which wraps, and so every bit is the same on every backend.
 * src/fusedstep/_numerics/storage.py and src/fusedstep/_numerics/storage_scalar.py mirror this
 * file line by line.
 */
#pragma once
#include <string.h>

#include "common.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "codes and random bits are taken from words, the lowest byte first");

typedef uint32_t u32;
typedef int32_t s32;

/* What lies in arrays; may_alias lets it be read where floats are written. */
typedef uint32_t __attribute__((may_alias)) words;
typedef uint16_t __attribute__((may_alias)) halves;
typedef int16_t __attribute__((may_alias)) tails;

enum {
    SIGN = (s32)0x80000000,
    INFINITE = 0x7f800000, /* the bits of infinity; a NaN has more */
    NOT_A_NUMBER = 0x7fc00000,
    STEP = 20,                   /* bits of a float32 below those that an 8-bit code counts in */
    SIGNED_SPAN = 127 << STEP,   /* from the smallest code of m to the largest of its block */
    UNSIGNED_SPAN = 255 << STEP, /* the same of v */
    HALF_CODE = 1 << (STEP - 1),
};

static ALWAYS_INLINE u32 bits_of(float x) {
    u32 u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static ALWAYS_INLINE float float_of(u32 u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- random bits: a hash of two keys and the element's place serves two elements ---- */

static ALWAYS_INLINE u32 hashed(u32 x, u32 k0, u32 k1) {
    x += k0;
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x += k1;
    x *= 0x846ca68b;
    x ^= x >> 16;
    return x;
}

/* ---- NaN: the canonical one in the place of all ---- */

/* Compared as floats, which takes one instruction where bits take two. */
static ALWAYS_INLINE int is_nan(u32 u) { return float_of(u) != float_of(u); }

static ALWAYS_INLINE u32 canonical(u32 u) { return is_nan(u) ? NOT_A_NUMBER : u; }

/* ---- bfloat16: the upper half of a float32 ---- */

static ALWAYS_INLINE u32 load_bfloat16(u32 h) { return h << 16; }

/* The bits to add below the upper half, so that it is rounded to nearest even. */
static ALWAYS_INLINE u32 nearest_bfloat16(u32 u) { return 0x7fff + ((u >> 16) & 1); }

/* No other NaN than the canonical one would be sure to stay one. */
static ALWAYS_INLINE u32 store_bfloat16(u32 u, u32 r) {
    u = canonical(u);
    u32 t = u + r;
    return t >> 16;
}

static ALWAYS_INLINE u32 rounded_bfloat16(u32 u) { return store_bfloat16(u, nearest_bfloat16(u)); }

/* ---- float16: IEEE's, to nearest even; NaN is the canonical one ---- */

static ALWAYS_INLINE u32 load_float16(u32 h) {
    u32 size = h & 0x7fff, u;
    u = (size << 13) + (112u << 23);
    u = size >= 0x7c00 ? u + (112u << 23) : u;
    u = size < 0x0400 ? bits_of((float)(s32)size * 0x1p-24f) : u;
    return u | (h & 0x8000) << 16;
}

static ALWAYS_INLINE u32 store_float16(u32 u) {
    u32 size = u & ~(u32)SIGN, h;
    h = (size - (112u << 23) + 0x0fff + ((size >> 13) & 1)) >> 13;
    h = (s32)size < (113 << 23) ? bits_of(float_of(size) + 0.5f) - bits_of(0.5f) : h;
    h = (s32)size >= 0x477ff000 ? 0x7c00 : h;
    h |= u >> 31 << 15;
    return (s32)size > INFINITE ? 0x7e00 : h;
}

static ALWAYS_INLINE u32 rounded_float16(u32 u) { return store_float16(u); }

/* ---- split: the nearest bfloat16, ties away from zero, and a tail that is what it lacks ---- */

static ALWAYS_INLINE u32 load_split16(u32 h, s32 tail) { return (h << 16) + (u32)tail; }

static ALWAYS_INLINE u32 store_split16(u32 u) { return (u + 0x8000) >> 16; }

static ALWAYS_INLINE u32 load_split8(u32 h, s32 tail) { return (h << 16) + ((u32)tail << 8); }

/* The bits to add below the 24 bits that are kept, so that these are rounded to nearest even. */
static ALWAYS_INLINE u32 nearest_split8(u32 u) { return 0x7f + ((u >> 8) & 1); }

/* The 24 bits, with 8 zeros; the sign of infinity's neighbours does not change. */
static ALWAYS_INLINE u32 round_split8(u32 u, u32 r) { return (u + r) & 0xffffff00; }

/* ---- 8 bits: steps of an eighth of an octave, from the largest of a block downward ---- */

static ALWAYS_INLINE s32 size_if_finite(u32 u) {
    s32 size = (s32)(u & ~(u32)SIGN);
    return size < INFINITE ? size : 0;
}

static ALWAYS_INLINE s32 base_of(s32 most, s32 span) { return most > span ? most - span : 0; }

static ALWAYS_INLINE u32 load_signed8(u32 code, s32 base) {
    u32 q = code & 0x7f, u = (u32)base + (q << STEP);
    u = q == 0 ? 0 : u;
    return u | (code & 0x80) << 24;
}

static ALWAYS_INLINE u32 code_signed8(u32 u, s32 base, u32 r) {
    s32 q = ((s32)(u & ~(u32)SIGN) - base + (s32)r) >> STEP;
    return (u32)(q > 0 ? q : 0) | (u >> 24 & 0x80);
}

/* What is not finite counts as zero. */
static ALWAYS_INLINE u32 store_signed8(u32 u, s32 base, u32 r) {
    u = (s32)(u & ~(u32)SIGN) < INFINITE ? u : 0;
    return code_signed8(u, base, r);
}

static ALWAYS_INLINE u32 load_unsigned8(u32 code, s32 base) { return (u32)base + (code << STEP); }

static ALWAYS_INLINE u32 code_unsigned8(s32 size, s32 base, u32 r) {
    s32 q = (size - base + (s32)r) >> STEP;
    return (u32)(q > 0 ? q : 0);
}

/* What is not finite counts as the largest finite of its block. */
static ALWAYS_INLINE u32 store_unsigned8(u32 u, s32 base, s32 most, u32 r) {
    s32 size = (s32)(u & ~(u32)SIGN);
    size = size < most ? size : most;
    return code_unsigned8(size, base, r);
}
