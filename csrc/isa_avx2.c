/* AVX2: vectors of 256 bits. FMA is left out: nothing may be contracted. */
#include "squares.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define ISA avx2
#include "instantiate.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
