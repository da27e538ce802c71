// Pooling by windows of 2 or 3 that move by 2, on images without sub-planes: rows are reduced to
// one, which is split into its even and odd pixels, so that windows lie side by side. Everything
// else goes by planes.h. The order of a sum is the same there: down the columns, then along the row.
//
// Scratch: two lines of the source with its borders, and 64. Called by executor.cpp.
#pragma once
#include "../planes.h"

namespace DGC_ISA {

template <bool AVERAGE>
DGC_INLINE float pooled8(float acc, float x) {
    return AVERAGE ? acc + x : ((x > acc) | (x != x)) ? x : acc;
}

template <bool AVERAGE>
inline void add_row(const float* __restrict__ from, float* __restrict__ line, int64_t width) {
    for (int64_t x = 0; x < width; ++x) line[x] = pooled8<AVERAGE>(line[x], from[x]);
}

template <bool AVERAGE, int K>
inline void windows(const float* __restrict__ even, const float* __restrict__ odd,
                    float* __restrict__ out, int64_t width) {
    const float factor = AVERAGE ? 1.0f / float(K * K) : 1.0f;
    for (int64_t x = 0; x < width; ++x) {
        float y = pooled8<AVERAGE>(even[x], odd[x]);
        if (K == 3) y = pooled8<AVERAGE>(y, even[x + 1]);
        out[x] = y * factor;
    }
}

template <bool AVERAGE, int K>
inline void pool8(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const int64_t reach = s.width + 2 * op.pool_pad, half = reach / 2 + 16;
    DGC_CHECK(reach + 16 + 2 * half <= c.program->scratch_floats);
    float *line = c.scratch, *even = line + reach + 16, *odd = even + half;
    const float* from = at(c, s) + channel * s.plane + s.lead;
    float* to = at(c, d) + channel * d.plane + d.lead;
    for (int64_t y = 0; y < d.height; ++y) {
        for (int64_t x = 0; x < reach + 2; ++x) line[x] = AVERAGE ? 0.0f : -__builtin_inff();
        for (int64_t k = 0; k < K; ++k) {
            const int64_t row = y * 2 - op.pool_pad + k;
            if (row >= 0 && row < s.height)
                add_row<AVERAGE>(from + row * s.row, line + op.pool_pad, s.width);
        }
        split_row<2>(line, even, reach + 2, odd - even);
        windows<AVERAGE, K>(even, odd, to + y * d.row, d.width);
    }
}

inline void pool8_plane(const DgcOp& op, const Context& c, int64_t channel) {
    if (op.src.phases != 1 || op.dst.phases != 1 || op.pool_stride != 2)
        return pool_plane(op, c, channel);
    const bool average = op.pool_kind == 1;
    if (op.pool_kernel == 2)
        return average ? pool8<true, 2>(op, c, channel) : pool8<false, 2>(op, c, channel);
    if (op.pool_kernel == 3)
        return average ? pool8<true, 3>(op, c, channel) : pool8<false, 3>(op, c, channel);
    pool_plane(op, c, channel);
}

}  // namespace DGC_ISA
