// Vectors by the compiler's own extension (GCC, Clang): one source for AVX-512, AVX2, SSE2 and
// NEON.
//
// VL floats are a vector (4, 8 or 16, a divisor of kAlign), kRegisters how many of them the machine
// has. load and store take any address of a float, so alignment is a matter of speed alone. Reads
// and writes are of whole vectors: whoever calls them owns all VL floats.
#pragma once
#include <stdint.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "check.h"

namespace DGC_ISA {

#if defined(DGC_LANES)  // a test build: the constants of another machine
constexpr int VL = DGC_LANES;
constexpr int kRegisters = DGC_REGISTERS;
#elif defined(__AVX512F__)
constexpr int VL = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int VL = 8;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int VL = 4;
constexpr int kRegisters = 32;
#else
constexpr int VL = 4;
constexpr int kRegisters = 16;
#endif
constexpr int64_t kAlign =
    16;  // floats: every sub-plane is padded to it, whatever the vector length

typedef float V __attribute__((vector_size(VL * 4)));
typedef int32_t VI __attribute__((vector_size(VL * 4)));
typedef float VLoad __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t VILoad __attribute__((vector_size(VL * 4), aligned(4), may_alias));

#define DGC_INLINE inline __attribute__((always_inline))

DGC_INLINE V load(const float* p) {
    return *(const VLoad*)p;
}
DGC_INLINE VI load_int(const int32_t* p) {
    return *(const VILoad*)p;
}
DGC_INLINE void store(float* p, V v) {
    *(VLoad*)p = v;
}
DGC_INLINE V splat(float x) {
    return x - V{};
}
// b where either is NaN. One instruction, of which compilers make two.
DGC_INLINE V larger(V a, V b) {
#if defined(DGC_LANES)
    return a > b ? a : b;
#elif defined(__AVX512F__)
    return (V)_mm512_maskz_max_ps(__mmask16(-1), (__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}
DGC_INLINE V lesser(V a, V b) {
    return a < b ? a : b;
}  // likewise
// NaN passes: a broken sample has to stay visible.
DGC_INLINE V relu(V x) {
    return larger(V{}, x);
}
DGC_INLINE float relu(float x) {
    return 0.0f > x ? 0.0f : x;
}
DGC_INLINE V keep(V x, VI mask) {
    return (V)((VI)x & mask);
}

DGC_INLINE float sum(V v) {
    float total = 0;
    for (int i = 0; i < VL; ++i) total += v[i];
    return total;
}

}  // namespace DGC_ISA
