// Bytes and numbers that change places inside vectors. Called by pack8.h, lanes8.h, amx8.h and pool8.h.
#pragma once
#include "dot.h"
#if defined(__AVX512BW__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12, in its own header
#endif

namespace DGC_ISA {

constexpr int64_t kEight = 8, kSixteen = 16;  // outputs of a block of weights

// 16 outputs of four channels at one tap: two blocks' eights of 32 bits, the four bytes side by side.
DGC_INLINE void interleave(const int8_t* const* row, int64_t at, int32_t* first, int32_t* second) {
#if defined(__SSE2__)
    __m128i r[4];
    for (int j = 0; j < 4; ++j) r[j] = _mm_loadu_si128((const __m128i*)(row[j] + at));
    const __m128i ab = _mm_unpacklo_epi8(r[0], r[1]), ab2 = _mm_unpackhi_epi8(r[0], r[1]);
    const __m128i cd = _mm_unpacklo_epi8(r[2], r[3]), cd2 = _mm_unpackhi_epi8(r[2], r[3]);
    _mm_storeu_si128((__m128i*)first, _mm_unpacklo_epi16(ab, cd));
    _mm_storeu_si128((__m128i*)(first + 4), _mm_unpackhi_epi16(ab, cd));
    _mm_storeu_si128((__m128i*)second, _mm_unpacklo_epi16(ab2, cd2));
    _mm_storeu_si128((__m128i*)(second + 4), _mm_unpackhi_epi16(ab2, cd2));
#else
    for (int64_t m = 0; m < 16; ++m) {
        uint32_t four = 0;
        for (int j = 0; j < 4; ++j) four |= uint32_t(uint8_t(row[j][at + m])) << (8 * j);
        (m < kEight ? first : second)[m % kEight] = int32_t(four);
    }
#endif
}

#if defined(__AVX512BW__)
// The four bytes of 64 outputs side by side: vector n has outputs 4n to 4n + 3 of each sixteen.
DGC_INLINE void four_bytes(const int8_t* const* row, int64_t at, __m512i (&four)[4]) {
    __m512i r[4];
    for (int j = 0; j < 4; ++j) r[j] = _mm512_loadu_si512(row[j] + at);
    const __m512i ab = _mm512_unpacklo_epi8(r[0], r[1]), ab2 = _mm512_unpackhi_epi8(r[0], r[1]);
    const __m512i cd = _mm512_unpacklo_epi8(r[2], r[3]), cd2 = _mm512_unpackhi_epi8(r[2], r[3]);
    four[0] = _mm512_unpacklo_epi16(ab, cd), four[1] = _mm512_unpackhi_epi16(ab, cd);
    four[2] = _mm512_unpacklo_epi16(ab2, cd2), four[3] = _mm512_unpackhi_epi16(ab2, cd2);
}

// 64 outputs at once: four sixteens, `group` apart.
DGC_INLINE void interleave_sixteens(const int8_t* const* row, int64_t at, int32_t* to,
                                    int64_t group) {
    __m512i f[4];
    four_bytes(row, at, f);
    const __m512i a = _mm512_shuffle_i32x4(f[0], f[1], 0x44), b = _mm512_shuffle_i32x4(f[2], f[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(f[0], f[1], 0xee), d = _mm512_shuffle_i32x4(f[2], f[3], 0xee);
    _mm512_storeu_si512(to, _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_storeu_si512(to + group, _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm512_storeu_si512(to + 2 * group, _mm512_shuffle_i32x4(c, d, 0x88));
    _mm512_storeu_si512(to + 3 * group, _mm512_shuffle_i32x4(c, d, 0xdd));
}

// 64 outputs at once: eight eights, `block` apart.
DGC_INLINE void interleave_eights(const int8_t* const* row, int64_t at, int32_t* to,
                                  int64_t block) {
    __m512i four[4];
    four_bytes(row, at, four);
    // Each has four outputs of each sixteen; an eight is made of two of them.
    const __m512i near = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i far = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
        const __m512i a = four[2 * odd], b = four[2 * odd + 1];
        const __m512i first = _mm512_permutex2var_epi64(a, near, b);
        const __m512i last = _mm512_permutex2var_epi64(a, far, b);
        int32_t* own = to + odd * block;
        _mm256_storeu_si256((__m256i*)own, _mm512_castsi512_si256(first));
        _mm256_storeu_si256((__m256i*)(own + 2 * block), _mm512_extracti64x4_epi64(first, 1));
        _mm256_storeu_si256((__m256i*)(own + 4 * block), _mm512_castsi512_si256(last));
        _mm256_storeu_si256((__m256i*)(own + 6 * block), _mm512_extracti64x4_epi64(last, 1));
    }
}
#endif

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer

// Four values of each place, rounded to the nearest integer (to even between two), as its bytes.
// SIGNED: -127 to 127, stored as 1 to 255; else 0 to 255, and what is below becomes 0.
template <bool SIGNED>
DGC_INLINE VI bytes_of(const V (&v)[4]) {
#if defined(__AVX512BW__) && !defined(DGC_LANES)
    __m512i n[4];
    for (int j = 0; j < 4; ++j) n[j] = _mm512_cvtps_epi32((__m512)v[j]);
    const __m512i ab = _mm512_packs_epi32(n[0], n[1]), cd = _mm512_packs_epi32(n[2], n[3]);
    // Of each 128 bits now four bytes of a, then of b, c, d: a place takes one of each.
    const __m512i order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    const __m512i all = SIGNED ? _mm512_packs_epi16(ab, cd) : _mm512_packus_epi16(ab, cd);
    const VI bytes = (VI)_mm512_shuffle_epi8(all, order);
#elif defined(__AVX2__) && !defined(DGC_LANES)
    __m256i n[4];
    for (int j = 0; j < 4; ++j) n[j] = _mm256_cvtps_epi32((__m256)v[j]);
    const __m256i ab = _mm256_packs_epi32(n[0], n[1]), cd = _mm256_packs_epi32(n[2], n[3]);
    const __m256i order = _mm256_set_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400,
                                           0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    const __m256i all = SIGNED ? _mm256_packs_epi16(ab, cd) : _mm256_packus_epi16(ab, cd);
    const VI bytes = (VI)_mm256_shuffle_epi8(all, order);
#else
    VI bytes = VI{};
    for (int j = 0; j < 4; ++j) {
        // the lowest byte of x + kRound is that of the nearest integer
        const V x = SIGNED ? v[j] : larger(v[j], V{});
        bytes |= ((VI)(x + splat(kRound)) & 255) << (8 * j);
    }
#endif
    return SIGNED ? bytes ^ int32_t(0x80808080u) : bytes;
}

// Every second number of two vectors, from the first and from the second on.
DGC_INLINE void every_other(VI a, VI b, VI* even, VI* odd) {
#if defined(__AVX512F__)
    const __m512i first = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(1));
    *even = (VI)_mm512_permutex2var_epi32((__m512i)a, first, (__m512i)b);
    *odd = (VI)_mm512_permutex2var_epi32((__m512i)a, second, (__m512i)b);
#elif defined(__AVX2__) && !defined(DGC_LANES)
    // halves of both, then the halves in their order
    const __m256 first = _mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);
    const __m256 second = _mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd);
    *even = (VI)_mm256_permute4x64_epi64((__m256i)first, 0xd8);
    *odd = (VI)_mm256_permute4x64_epi64((__m256i)second, 0xd8);
#else
    for (int i = 0; i < VL; ++i) {
        (*even)[i] = 2 * i < VL ? a[2 * i] : b[2 * i - VL];
        (*odd)[i] = 2 * i < VL ? a[2 * i + 1] : b[2 * i + 1 - VL];
    }
#endif
}

// Rows become columns: 16 rows of 16 numbers.
#if defined(__AVX512F__)
DGC_INLINE void turn(__m512i (&r)[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}
DGC_INLINE void turn(VI (&r)[16]) {
    __m512i t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) t[i] = (__m512i)r[i];
    turn(t);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = (VI)t[i];
}
#elif defined(DGC_LANES)  // a test build with vectors of 16
DGC_INLINE void turn(VI (&r)[16]) {
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < i; ++j) {
            const int32_t other = r[i][j];
            r[i][j] = r[j][i], r[j][i] = other;
        }
}
#endif

}  // namespace DGC_ISA
