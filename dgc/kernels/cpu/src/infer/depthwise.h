// Depthwise convolution: each channel by itself, 3x3 or 5x5, stride 1 or 2.
//
// Weights: [channel][tap]. Two roads. By rows (mode DGC_BY_ROWS): source and target lie in one
// sub-plane each; between the rows of the source are at least pool_pad zeros, before and behind its
// plane `lead` >= pool_pad * (row + 1) of them; some rows of outputs are computed together, because
// they read the same inputs, and stride 2 takes every second number out of two vectors. Flat: stride
// 1, source and target lie alike (same sub-planes and rows), `offsets` says where each tap lies,
// and vectors run over the ends of rows; for rows so short that whole vectors of a row would be
// mostly padding. Both read up to 3 vectors behind the last pixel. dst overlaps no input. An item is
// a channel. Called by items.h.
#pragma once
#include "activation.h"
#include "planes.h"

namespace DGC_ISA {

struct Bounds {  // no activation, ReLU and ReLU6 in two comparisons; all others follow in a pass
    V least, most;
    bool later;
};

DGC_INLINE Bounds bounds_of(const DgcOp& op) {
    const float infinite = __builtin_inff();
    const bool first = op.act == DGC_RELU || op.act == DGC_RELU6;
    return {splat(first ? 0.0f : -infinite), splat(op.act == DGC_RELU6 ? 6.0f : infinite),
            !first && op.act != DGC_NO_ACT};
}

DGC_INLINE V bounded(const Bounds& b, V x) {  // NaN passes both
    x = b.least > x ? b.least : x;
    return x > b.most ? b.most : x;
}

// Numbers 0, 2, 4, ... of two vectors, or 1, 3, 5, ...
template <int FIRST>
DGC_INLINE V every_second(V a, V b) {
#if defined(__clang__)
    V y;
    for (int i = 0; i < VL; ++i) {
        const int from = 2 * i + FIRST;
        y[i] = from < VL ? a[from % VL] : b[from % VL];
    }
    return y;
#else
    VI from;
    for (int i = 0; i < VL; ++i) from[i] = 2 * i + FIRST;
    return __builtin_shuffle(a, b, from);
#endif
}

// The inputs of one row that outputs x to x + VL read: one vector a column of the kernel.
template <int K, int S>
DGC_INLINE void row_inputs(const float* from, V (&in)[K]) {
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
        if (S == 1)
            in[k] = load(from + k);
        else if (k % 2 == 0)
            in[k] = every_second<0>(load(from + k), load(from + k + VL));
        else
            in[k] = every_second<1>(load(from + k - 1), load(from + k - 1 + VL));
    }
}

struct DepthRows {  // what a block of output rows needs to know
    const float *from, *weight;
    float* to;
    int64_t from_row, to_row, width;
    float bias;
    Bounds bounds;
    VI inside;  // lanes that are pixels, where a row is shorter than a vector
    bool narrow;
    int64_t gap;  // zeros behind each row, where nobody else puts them
};

// R output rows at once.
template <int K, int S, int R>
__attribute__((noinline)) void depth_rows(const DepthRows& d) {
    // All weights of a channel in registers, for the whole block of rows.
    V w[K * K];
#pragma GCC unroll 25
    for (int t = 0; t < K * K; ++t) w[t] = splat(d.weight[t]);
    for (int64_t x = 0;;) {
        V acc[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r] = splat(d.bias);
#pragma GCC unroll 12
        for (int y = 0; y < K + (R - 1) * S; ++y) {
            V in[K];
            row_inputs<K, S>(d.from + y * d.from_row + x * S, in);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                // Each row of inputs is loaded once and serves every output row that it is part of.
                const int i = y - r * S;
                if (i < 0 || i >= K) continue;
#pragma GCC unroll 5
                for (int k = 0; k < K; ++k) acc[r] += w[i * K + k] * in[k];
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const V out = bounded(d.bounds, acc[r]);
            store(d.to + r * d.to_row + x, d.narrow ? keep(out, d.inside) : out);
        }
        if (x + VL >= d.width) break;
        x = smaller(x + VL, d.width - VL);  // the last vector ends where the row does
    }
    float* behind = d.to + d.width;  // while these lines are near
    for (int64_t i = 0; i < d.gap; ++i)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) behind[r * d.to_row + i] = 0.0f;
}

// Behind each row, where the image's memory held another one before (padding.h).
inline int64_t depth_gap(const DgcTensor& d) {
    if (!d.reused || (d.width < VL && d.row <= VL)) return 0;
    // Of a plan from elsewhere the last row need not leave as much room as the others.
    return smaller(d.row, d.length - (d.height - 1) * d.row) - d.width;
}

template <int K, int S>
inline void depth_plane(const DgcOp& op, const Context& c, int64_t channel) {
    // As many rows as leave the sums, weights and inputs in registers.
    constexpr int kTogether = S == 1 ? (K == 3 ? 4 : 2) : 2;
    const DgcTensor &s = op.src, &d = op.dst;
    DepthRows rows = {};
    rows.weight = floats(c, op.weight) + channel * K * K;
    rows.bias = bias_of(op, c, channel);
    rows.from_row = s.row, rows.to_row = d.row, rows.width = d.width;
    rows.bounds = bounds_of(op);
    rows.narrow = d.width < VL;
    rows.gap = depth_gap(d);
    for (int i = 0; i < VL; ++i) rows.inside[i] = i < d.width ? -1 : 0;
    const float* from = at(c, s) + channel * s.plane + s.lead;
    float* to = at(c, d) + channel * d.plane + d.lead;
    for (int64_t y = 0; y < d.height;) {
        rows.from = from + (y * S - op.pool_pad) * s.row - op.pool_pad;
        rows.to = to + y * d.row;
        const int64_t left = d.height - y, done = left >= kTogether ? kTogether : 1;
        if (done == kTogether)
            depth_rows<K, S, kTogether>(rows);
        else
            depth_rows<K, S, 1>(rows);
        y += done;
    }
    if (rows.bounds.later) activate(op, to, mask_of(c, d), d.length / VL);
}

template <int TAPS>
inline void depth_flat(const DgcOp& op, const Context& c, int64_t channel) {
    constexpr int kVectors = kRegisters >= 32 ? 4 : 2;
    const DgcTensor &s = op.src, &d = op.dst;
    const float* weight = floats(c, op.weight) + channel * TAPS;
    const V bias = splat(bias_of(op, c, channel));
    const Bounds bounds = bounds_of(op);
    for (int64_t p = 0; p < subplanes(d); ++p) {
        const int64_t* offsets = constant<int64_t>(c, op.offsets) + p * TAPS;
        const int32_t* mask = mask_of(c, d) + p * d.length;
        const float* from = at(c, s) + channel * s.plane + s.lead;
        float* to = at(c, d) + channel * d.plane + p * d.phase_plane + d.lead;
        int64_t i = 0;
        for (; i + kVectors * VL <= d.length; i += kVectors * VL) {
            V acc[kVectors];
            for (int v = 0; v < kVectors; ++v) acc[v] = bias;
            for (int t = 0; t < TAPS; ++t) {
                const V w = splat(weight[t]);
                for (int v = 0; v < kVectors; ++v)
                    acc[v] += w * load(from + offsets[t] + i + v * VL);
            }
            for (int v = 0; v < kVectors; ++v)
                store(to + i + v * VL, keep(bounded(bounds, acc[v]), load_int(mask + i + v * VL)));
        }
        for (; i < d.length; i += VL) {
            V acc = bias;
            for (int t = 0; t < TAPS; ++t) acc += splat(weight[t]) * load(from + offsets[t] + i);
            store(to + i, keep(bounded(bounds, acc), load_int(mask + i)));
        }
        if (bounds.later) activate(op, to, mask, d.length / VL);
    }
}

inline void depth_channel(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    if (op.mode != DGC_BY_ROWS) {
        DGC_CHECK(s.phases == d.phases && s.row == d.row && op.pool_stride == 1);
        return op.taps == 9 ? depth_flat<9>(op, c, channel) : depth_flat<25>(op, c, channel);
    }
    DGC_CHECK(s.phases == 1 && d.phases == 1 && s.row >= s.width + op.pool_pad);
    DGC_CHECK(s.lead >= op.pool_pad * (s.row + 1));
    DGC_CHECK((d.height - 1) * d.row + larger_of(d.width, VL) <= d.lead + d.length);
    if (op.pool_stride == 1)
        return op.taps == 9 ? depth_plane<3, 1>(op, c, channel) : depth_plane<5, 1>(op, c, channel);
    return op.taps == 9 ? depth_plane<3, 2>(op, c, channel) : depth_plane<5, 2>(op, c, channel);
}

inline void depth_item(const DgcOp& op, const Context& c, int64_t channel) {
    depth_channel(op, c, channel);
    tell_mean(op, c, channel);
}

}  // namespace DGC_ISA
