// Pooling: the largest or the mean of windows of any shape, with padding, rounded up or not.
//
// An item is a channel of one sample. Window (y, x) begins at pixel (y * stride - pad, x * stride_w
// - pad_w). What a mean divides by is a constant: `weight`, one number a row of the result, then
// one a column, whose product it is. Source and target may lie in different sub-planes and overlap
// nothing. Scratch: as pool_room in dgc/infer/pools.py counts it. Called by executor.cpp.
#pragma once
#include "activation.h"
#include "planes.h"

namespace DGC_ISA {

DGC_INLINE float pooled(float acc, float x, bool average) {
    return average ? acc + x : ((x > acc) | (x != x)) ? x : acc;
}

// One output row: the window's rows reduced to one, then steps along it.
template <int S>
inline void reduce_line(const DgcOp& op, const float* __restrict__ line, float* __restrict__ out) {
    const bool average = op.pool_kind == 1;
    const int64_t s = S ? S : op.pool_stride_w, width = op.dst.width;
    for (int64_t x = 0; x < width; ++x) out[x] = line[x * s];
    for (int64_t k = 1; k < op.pool_kernel_w; ++k)
        for (int64_t x = 0; x < width; ++x) out[x] = pooled(out[x], line[x * s + k], average);
}

// From the first column of the first window to the last one of the last.
DGC_INLINE int64_t pool_reach(const DgcOp& op) {
    return larger_of(op.src.width + op.pool_pad_w,
                     (op.dst.width - 1) * op.pool_stride_w + op.pool_kernel_w);
}

inline void pool_row(const DgcOp& op, const Context& c, const float* from, float* to, int64_t y) {
    const DgcTensor& s = op.src;
    const bool average = op.pool_kind == 1;
    const int64_t reach = pool_reach(op);
    DGC_CHECK(s.width + reach + op.dst.width + 32 <= c.program->scratch_floats);
    float *row = c.scratch, *line = row + s.width + 16, *out = line + reach + 16;
    for (int64_t x = 0; x < reach; ++x) line[x] = average ? 0.0f : -__builtin_inff();
    for (int64_t k = 0; k < op.pool_kernel; ++k) {
        const int64_t y0 = y * op.pool_stride - op.pool_pad + k;
        if (y0 < 0 || y0 >= s.height) continue;
        const float* pixels = s.phases == 1 ? pixel(s, (float*)from, y0, 0) : row;
        if (s.phases != 1) gather_row(s, from, y0, row);
        for (int64_t x = 0; x < s.width; ++x)
            line[op.pool_pad_w + x] = pooled(line[op.pool_pad_w + x], pixels[x], average);
    }
    if (op.pool_stride_w == 2)
        reduce_line<2>(op, line, out);
    else
        reduce_line<0>(op, line, out);
    if (average) {
        const float *rows = floats(c, op.weight), *columns = rows + op.dst.height;
        for (int64_t x = 0; x < op.dst.width; ++x) out[x] *= rows[y] * columns[x];
    }
    scatter_row(op.dst, to, y, out);
}

inline void pool_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const float* from = at(c, op.src) + channel * op.src.plane;
    float* to = at(c, op.dst) + channel * op.dst.plane;
    for (int64_t y = 0; y < op.dst.height; ++y) pool_row(op, c, from, to, y);
}

}  // namespace DGC_ISA
