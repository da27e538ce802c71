// Pooling: the largest or the mean of windows of any shape, with padding, rounded up or not.
//
// An item is a channel of one sample. POOL: window (y, x) begins at pixel (y * stride - pad, x *
// stride_w - pad_w). ADAPTIVE: windows of many sizes, which may overlap; `index` has their first
// rows, the rows behind their last, then columns alike, none empty, none outside the source. What a
// mean is multiplied by is a constant: `weight`, one number a row of the result, then one a column,
// whose product it is. Source and target may lie in different sub-planes and overlap nothing.
// Scratch: a row of the source, one of sums, one of the target, counted by pool and adaptive in
// dgc/infer/image_nodes.py. Called by items.h.
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

// Row y of the source to the `line` that collects a window's rows.
DGC_INLINE void collect_row(const DgcTensor& s, const float* from, int64_t y, float* row, float* line,
                            bool average) {
    const float* pixels = s.phases == 1 ? pixel(s, (float*)from, y, 0) : row;
    if (s.phases != 1) gather_row(s, from, y, row);
    for (int64_t x = 0; x < s.width; ++x) line[x] = pooled(line[x], pixels[x], average);
}

// What the windows of row y gave, on its way to the target.
DGC_INLINE void finish_row(const DgcOp& op, const Context& c, float* out, float* to, int64_t y) {
    if (op.pool_kind == 1) {
        const float *rows = floats(c, op.weight), *columns = rows + op.dst.height;
        for (int64_t x = 0; x < op.dst.width; ++x) out[x] *= rows[y] * columns[x];
    }
    scatter_row(op.dst, to, y, out);
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
        collect_row(s, from, y0, row, line + op.pool_pad_w, average);
    }
    if (op.pool_stride_w == 2)
        reduce_line<2>(op, line, out);
    else
        reduce_line<0>(op, line, out);
    finish_row(op, c, out, to, y);
}

inline void pool_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const float* from = at(c, op.src) + channel * op.src.plane;
    float* to = at(c, op.dst) + channel * op.dst.plane;
    for (int64_t y = 0; y < op.dst.height; ++y) pool_row(op, c, from, to, y);
}

inline void adaptive_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const bool average = op.pool_kind == 1;
    const float start = average ? 0.0f : -__builtin_inff();
    const int32_t* rows = constant<int32_t>(c, op.index);
    const int32_t* columns = rows + 2 * d.height;
    const float* from = at(c, s) + channel * s.plane;
    float* to = at(c, d) + channel * d.plane;
    DGC_CHECK(2 * (s.width + 16) + d.width <= c.program->scratch_floats);
    float *row = c.scratch, *line = row + s.width + 16, *out = line + s.width + 16;
    for (int64_t y = 0; y < d.height; ++y) {
        for (int64_t x = 0; x < s.width; ++x) line[x] = start;
        for (int64_t i = rows[y]; i < rows[d.height + y]; ++i)
            collect_row(s, from, i, row, line, average);
        for (int64_t x = 0; x < d.width; ++x) {
            out[x] = start;
            for (int64_t i = columns[x]; i < columns[d.width + x]; ++i)
                out[x] = pooled(out[x], line[i], average);
        }
        finish_row(op, c, out, to, y);
    }
}

}  // namespace DGC_ISA
