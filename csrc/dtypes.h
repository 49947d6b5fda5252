/*
 * The dtypes: for each one the type that lies in memory (storage), the type that a rule
 * computes in (real), and the conversions between the two.
 */
#pragma once
#include <float.h>
#include <math.h>

#include "common.h"

_Static_assert(FLT_EVAL_METHOD == 0, "each operation must round to its own type");

typedef float storage_f32, real_f32;
static ALWAYS_INLINE real_f32 load_f32(const storage_f32 *at) { return *at; }
static ALWAYS_INLINE void store_f32(storage_f32 *at, real_f32 value) { *at = value; }
static ALWAYS_INLINE real_f32 root_f32(real_f32 value) { return sqrtf(value); }
static ALWAYS_INLINE real_f32 size_f32(real_f32 value) { return fabsf(value); }
#define LEAST_f32 FLT_MIN       /* the least normal number */
#define EPSILON_f32 FLT_EPSILON /* the distance from 1 to the next number */

typedef double storage_f64, real_f64;
static ALWAYS_INLINE real_f64 load_f64(const storage_f64 *at) { return *at; }
static ALWAYS_INLINE void store_f64(storage_f64 *at, real_f64 value) { *at = value; }
static ALWAYS_INLINE real_f64 root_f64(real_f64 value) { return sqrt(value); }
static ALWAYS_INLINE real_f64 size_f64(real_f64 value) { return fabs(value); }
#define LEAST_f64 DBL_MIN
#define EPSILON_f64 DBL_EPSILON
