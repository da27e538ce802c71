// Four products of bytes in each 32-bit lane: unsigned values times signed weights, added up
// exactly. With VNNI one instruction; without, bytes are widened to 16 bits and products are added
// in pairs to 32 bits. (The instruction that multiplies bytes in pairs saturates at 16 bits, so it
// would give other sums.)
#pragma once
#include "../../common/vec.h"
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace DGC_ISA {

// Without VNNI weights are packed as numbers of 16 bits, the even bytes and the odd ones of a four
// apart, so that they are not widened again for each product.
#if defined(__AVX512BW__) && !defined(__AVX512VNNI__) && !defined(DGC_LANES)
constexpr bool kPairs = true;
DGC_INLINE VI dot_pairs(VI sum, VI values, VI weights) {
    return sum + (VI)_mm512_madd_epi16((__m512i)values, (__m512i)weights);
}
#elif defined(__AVX2__) && !defined(__AVX512BW__) && !defined(__AVXVNNI__) && !defined(DGC_LANES)
constexpr bool kPairs = true;
DGC_INLINE VI dot_pairs(VI sum, VI values, VI weights) {
    return sum + (VI)_mm256_madd_epi16((__m256i)values, (__m256i)weights);
}
#else
constexpr bool kPairs = false;
DGC_INLINE VI dot_pairs(VI sum, VI, VI) {
    return sum;
}
#endif
DGC_INLINE VI even_bytes(VI a) {
    return a & 0x00ff00ff;
}
DGC_INLINE VI odd_bytes(VI a) {
    typedef uint16_t Halves __attribute__((vector_size(VL * 4)));
    return (VI)((Halves)a >> 8);
}
constexpr int64_t kStep = kPairs ? 16 : 8;  // numbers of 32 bits that hold eight outputs' fours

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
DGC_INLINE VI dot(VI sum, VI values, VI weights) {
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)values, (__m512i)weights);
}
#elif defined(__AVX512BW__)
DGC_INLINE VI dot(VI sum, VI values, VI weights) {
    const __m512i a = (__m512i)values, w = (__m512i)weights;
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(255)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(w, 8));
    return sum + (VI)even + (VI)odd;
}
#elif defined(__AVXVNNI__) && !defined(DGC_LANES)
DGC_INLINE VI dot(VI sum, VI values, VI weights) {
    return (VI)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)values, (__m256i)weights);
}
#else
DGC_INLINE VI dot(VI sum, VI values, VI weights) {
    sum += (values & 255) * (weights << 24 >> 24);
    sum += (values >> 8 & 255) * (weights << 16 >> 24);
    sum += (values >> 16 & 255) * (weights << 8 >> 24);
    return sum + (values >> 24 & 255) * (weights >> 24);
}
#endif

}  // namespace DGC_ISA
