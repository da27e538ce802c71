// The register tile: MR output channels x NV vectors of pixels, summed over the selected channels and the kernel's taps.
#pragma once
#include "context.h"

namespace DGC_ISA {

constexpr int kBlock = 8;  // output channels that lie together in the packed weights (then 4, 2, 1 for the rest)

struct Source {                 // K input channels; `x` and `w` point at channel 0, at the tile's first pixel and block
    const float* x;
    const int32_t* x_index;     // null: channel k is the k-th
    int64_t x_step;
    const float* w;
    const int32_t* w_index;
    int64_t w_step;             // floats from channel to channel of the weights = taps * block
    int64_t block;
    int64_t channels;
    int64_t taps;
    const int64_t* offsets;
};

struct Sink {                   // at the tile's first row and pixel
    float *dst, *dst2;
    const float* residual;
    int64_t step, step2, residual_step;
    const float *bias, *scale2, *shift2;
    int64_t bias_step;
    bool relu;
    const int32_t* mask;        // null: everything is kept
};

template <int MR, int NV>
DGC_INLINE void finish(V (&acc)[MR][NV], const Sink& s) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const V bias = splat(s.bias ? s.bias[m * s.bias_step] : 0.0f);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            V y = acc[m][v] + bias;
            if (s.residual) y += load(s.residual + m * s.residual_step + v * VL);
            if (s.relu) y = relu(y);
            const VI mask = s.mask ? load_int(s.mask + v * VL) : ~VI{};
            if (s.dst) store(s.dst + m * s.step + v * VL, keep(y, mask));
            if (!s.dst2) continue;
            const V z = relu(y * splat(s.scale2[m * s.bias_step]) + splat(s.shift2[m * s.bias_step]));
            store(s.dst2 + m * s.step2 + v * VL, keep(z, mask));
        }
    }
}

template <int MR, int NV>
DGC_INLINE void step(V (&acc)[MR][NV], const float* x, const float* w) {
    V pixels[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) pixels[v] = load(x + v * VL);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const V weight = splat(w[m]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] += weight * pixels[v];
    }
}

template <int MR, int NV, bool XI, bool WI>
DGC_INLINE void accumulate(V (&acc)[MR][NV], const Source& s) {
    if (s.taps == 1) {
        const int64_t offset = s.offsets ? s.offsets[0] : 0;
        for (int64_t k = 0; k < s.channels; ++k)
            step<MR, NV>(acc, s.x + (XI ? s.x_index[k] : k) * s.x_step + offset, s.w + (WI ? s.w_index[k] : k) * s.w_step);
        return;
    }
    for (int64_t k = 0; k < s.channels; ++k) {
        const float* x = s.x + (XI ? s.x_index[k] : k) * s.x_step;
        const float* w = s.w + (WI ? s.w_index[k] : k) * s.w_step;
        for (int64_t t = 0; t < s.taps; ++t, w += s.block) step<MR, NV>(acc, x + s.offsets[t], w);
    }
}

// Which of the two operands is chosen by index. A function each: one with branches would keep its accumulators in memory.
enum Choice { kNone, kInput, kWeights };

template <int MR, int NV, Choice CHOICE>
__attribute__((noinline)) void tile(const Source& source, const Sink& sink) {
    V acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = V{};
    accumulate<MR, NV, CHOICE == kInput, CHOICE == kWeights>(acc, source);
    finish<MR, NV>(acc, sink);
}

// Rows a tile takes at once, and vectors beside them: as many accumulators as leave registers for the operands.
constexpr int kRows = kRegisters >= 32 ? 8 : 4;
constexpr int widest(int rows) {
    if (kRegisters >= 32) return rows == 8 ? 3 : rows == 4 ? 6 : 8;
    return rows == 4 ? 3 : rows == 2 ? 4 : 6;
}

typedef void (*Tile)(const Source&, const Sink&);

template <int MR, int NV, Choice CHOICE>
Tile pick_width(int nv) {
    if constexpr (NV > 1) {
        if (nv < NV) return pick_width<MR, NV - 1, CHOICE>(nv);
    }
    return tile<MR, NV, CHOICE>;
}

template <Choice CHOICE>
Tile pick_rows(int rows, int nv) {
    if constexpr (kRows == 8) {
        if (rows == 8) return pick_width<8, widest(8), CHOICE>(nv);
    }
    if (rows == 4) return pick_width<4, widest(4), CHOICE>(nv);
    return rows == 2 ? pick_width<2, widest(2), CHOICE>(nv) : pick_width<1, widest(1), CHOICE>(nv);
}

inline Tile pick(int rows, int nv, const Source& source) {
    if (source.x_index) return pick_rows<kInput>(rows, nv);
    return source.w_index ? pick_rows<kWeights>(rows, nv) : pick_rows<kNone>(rows, nv);
}

// One block of `block` output channels over `vectors` vectors of pixels.
inline void sweep(Source source, Sink sink, int64_t vectors) {
    const int rows = source.block < kRows ? int(source.block) : kRows;
    const int64_t pieces = ceil_div(vectors, widest(rows));
    const float* w = source.w;
    for (int64_t p = 0; p < pieces; ++p) {
        const int64_t first = vectors * p / pieces, nv = vectors * (p + 1) / pieces - first;
        const Tile run = pick(rows, int(nv), source);
        for (int64_t row = 0; row < source.block; row += rows) {
            Source from = source;
            Sink to = sink;
            from.x += first * VL;
            from.w = w + row;
            if (to.dst) to.dst += row * to.step + first * VL;
            if (to.dst2) to.dst2 += row * to.step2 + first * VL;
            if (to.residual) to.residual += row * to.residual_step + first * VL;
            if (to.bias) to.bias += row * to.bias_step;
            if (to.dst2) to.scale2 += row * to.bias_step, to.shift2 += row * to.bias_step;
            if (to.mask) to.mask += first * VL;
            run(from, to);
        }
    }
}

}  // namespace DGC_ISA
