/* AVX2: vectors of 256 bits, and F16C, which all processors with AVX2 have. FMA is left out: nothing
 * may be contracted. */
#include "squares.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c")
#endif

#include <immintrin.h>

/* float16 by the processor: IEEE's, subnormal numbers too; of NaN the canonical one. */
#define HALF_LANES 8

static inline void widen_halves(const void *from, float *to) {
    _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(from)));
}

static inline void narrow_to_halves(const float *from, void *to) {
    const __m256 x = _mm256_loadu_ps(from);
    const __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m128i in_halves =
        _mm_packs_epi32(_mm256_castsi256_si128(is_nan), _mm256_extracti128_si256(is_nan, 1));
    _mm_storeu_si128(to, _mm_blendv_epi8(h, _mm_set1_epi16(0x7e00), in_halves));
}

#define ISA avx2
#define VECTOR_BYTES 32
#include "instantiate.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
