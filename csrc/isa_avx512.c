/* AVX-512 as every CPU since Skylake-SP and Zen 4 has it: vectors of 512 bits. */
#include "squares.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

#include <immintrin.h>

/* float16 by the processor: IEEE's, subnormal numbers too; of NaN the canonical one. */
#define HALF_LANES 16

static inline void widen_halves(const void *from, float *to) {
    _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(from)));
}

static inline void narrow_to_halves(const float *from, void *to) {
    const __m512 x = _mm512_loadu_ps(from);
    const __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    _mm256_storeu_si256(to, _mm256_mask_mov_epi16(h, is_nan, _mm256_set1_epi16(0x7e00)));
}

#define WIDE
#define ISA avx512
#define VECTOR_BYTES 64
#include "instantiate.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
