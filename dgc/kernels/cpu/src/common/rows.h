// A row of pixels to its places in sub-planes, and back: sub-plane p of `stride` has the pixels p,
// p + stride, ... side by side (see DgcTensor). For strided and Winograd readers; used by inference
// (planes.h) and training (train_planes.h).
//
// `row` has `width` floats, the sub-planes' rows lie `step` floats apart and have ceil((width - p)
// / stride) floats each. The two sides do not overlap. stride >= 1, and with stride 1 a row is
// copied as it is.
#pragma once
#include "vec.h"

namespace DGC_ISA {

template <int S>
inline void split_row(const float* __restrict__ row, float* __restrict__ to, int64_t width,
                      int64_t step) {
    for (int p = 0; p < S; ++p) {
        const int64_t pixels = (width - p + S - 1) / S;
        for (int64_t i = 0; i < pixels; ++i) to[p * step + i] = row[i * S + p];
    }
}

template <int S>
inline void join_row(const float* __restrict__ from, float* __restrict__ row, int64_t width,
                     int64_t step) {
    for (int p = 0; p < S; ++p) {
        const int64_t pixels = (width - p + S - 1) / S;
        for (int64_t i = 0; i < pixels; ++i) row[i * S + p] = from[p * step + i];
    }
}

// Strides of 2 and 4 have code of their own, because those are what networks have (4: a strided
// layer that writes 2 x 2 sub-planes); any other takes the loop.
inline void split(const float* row, float* to, int64_t width, int64_t stride, int64_t step) {
    DGC_CHECK(stride >= 1 && width >= 0);
    if (stride == 1) return (void)__builtin_memcpy(to, row, width * 4);
    if (stride == 2) return split_row<2>(row, to, width, step);
    if (stride == 4) return split_row<4>(row, to, width, step);
    for (int64_t p = 0; p < stride; ++p)
        for (int64_t x = p, i = 0; x < width; x += stride, ++i) to[p * step + i] = row[x];
}

inline void join(const float* from, float* row, int64_t width, int64_t stride, int64_t step) {
    DGC_CHECK(stride >= 1 && width >= 0);
    if (stride == 1) return (void)__builtin_memcpy(row, from, width * 4);
    if (stride == 2) return join_row<2>(from, row, width, step);
    if (stride == 4) return join_row<4>(from, row, width, step);
    for (int64_t p = 0; p < stride; ++p)
        for (int64_t x = p, i = 0; x < width; x += stride, ++i) row[x] = from[p * step + i];
}

}  // namespace DGC_ISA
