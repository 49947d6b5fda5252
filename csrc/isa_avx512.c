/* AVX-512 as every CPU since Skylake-SP and Zen 4 has it: vectors of 512 bits. */
#include "squares.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

#define ISA avx512
#include "instantiate.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
