// Pooling by windows of 2 or 3 that move by 2, on images without sub-planes: rows are reduced to
// one, whose even and odd pixels are put side by side. Everything else goes by the ways of float32.
// The order of a sum is the same there: down the columns, then along the row.
//
// Whole vectors are read and kept; a row's last ones are written number by number, so that padding
// stays zero. Scratch: a line of the source with its borders, and 8 vectors. Called by items.h.
#pragma once
#include "../pools.h"
#include "shuffles8.h"

namespace DGC_ISA {

template <bool AVERAGE>
DGC_INLINE V pooled8(V acc, V x) {
    return AVERAGE ? acc + x : (V)((VI)((x > acc) | (x != x)) ? x : acc);
}

// One row of windows of K from a line, times `factor`.
template <bool AVERAGE, int K>
DGC_INLINE void windows8(const float* line, float* to, int64_t width, V factor) {
    for (int64_t x = 0; x < width; x += VL) {
        VI even, odd, third, beyond;
        every_other(load_int((const int32_t*)line + 2 * x), load_int((const int32_t*)line + 2 * x + VL),
                    &even, &odd);
        V y = pooled8<AVERAGE>((V)even, (V)odd);
        if (K == 3) {
            every_other(load_int((const int32_t*)line + 2 * x + 2),
                        load_int((const int32_t*)line + 2 * x + 2 + VL), &third, &beyond);
            y = pooled8<AVERAGE>(y, (V)third);
        }
        y *= factor;
        if (x + VL <= width)
            store(to + x, y);
        else
            for (int64_t i = x; i < width; ++i) to[i] = y[i - x];
    }
}

struct Pooled {  // a plane at its first pixel, and what its windows give
    const DgcTensor &s, &d;
    const float* from;
    float *to, *line;  // line: s.width + 2 * pad + 8 * VL numbers
};

template <bool AVERAGE, int K>
inline void pool8(const Pooled& plane, int64_t pad) {
    const DgcTensor &s = plane.s, &d = plane.d;
    const int64_t reach = s.width + 2 * pad;
    const float* from = plane.from;
    float *to = plane.to, *line = plane.line;
    const V factor = splat(AVERAGE ? 1.0f / float(K * K) : 1.0f);
    const V none = splat(AVERAGE ? 0.0f : -__builtin_inff());
    for (int64_t x = 0; x < reach + 4 * VL; x += VL) store(line + x, none);
    for (int64_t y = 0; y < d.height; ++y) {
        const int64_t first = larger_of(0, 2 * y - pad), end = smaller(s.height, 2 * y - pad + K);
        for (int64_t x = 0; x < s.width; x += VL) {
            V acc = none;
            for (int64_t row = first; row < end; ++row)
                acc = pooled8<AVERAGE>(acc, load(from + row * s.row + x));
            store(line + pad + x, acc);
        }
        for (int64_t x = s.width; x < s.width + VL; ++x) line[pad + x] = none[0];
        windows8<AVERAGE, K>(line, to + y * d.row, d.width, factor);
    }
}

// Square windows that lie whole in the padded image, and means that divide by their size.
inline bool pool8_fits(const DgcOp& op, const Context& c) {
    const int64_t k = op.pool_kernel, both = 2 * op.pool_pad;
    const bool square = op.pool_kernel_w == k && op.pool_stride_w == 2 && op.pool_pad_w == op.pool_pad;
    const bool inside = (op.dst.width - 1) * 2 + k <= op.src.width + both &&
                        (op.dst.height - 1) * 2 + k <= op.src.height + both;
    if (!square || !inside) return false;
    if (op.pool_kind != 1) return true;
    const float *rows = floats(c, op.weight), *columns = rows + op.dst.height;
    return op.pool_pad == 0 && rows[0] == 1.0f / float(k) && columns[0] == 1.0f / float(k);
}

inline void pool8_plane(const DgcOp& op, const Context& c, int64_t channel) {
    if (op.src.phases != 1 || op.dst.phases != 1 || op.pool_stride != 2 || !pool8_fits(op, c))
        return pool_plane(op, c, channel);
    const bool average = op.pool_kind == 1;
    const DgcTensor &s = op.src, &d = op.dst;
    const int64_t pad = op.pool_pad;
    const Pooled plane = {s, d, at(c, s) + channel * s.plane + s.lead,
                          at(c, d) + channel * d.plane + d.lead, c.scratch};
    DGC_CHECK(s.width + 2 * pad + 8 * VL <= c.program->scratch_floats);
    if (op.pool_kernel == 2)
        return average ? pool8<true, 2>(plane, pad) : pool8<false, 2>(plane, pad);
    if (op.pool_kernel == 3)
        return average ? pool8<true, 3>(plane, pad) : pool8<false, 3>(plane, pad);
    pool_plane(op, c, channel);
}

}  // namespace DGC_ISA
