// The register tile of bytes: MR output channels x NV vectors of pixels, summed exactly over the
// kept channels and taps; then scale, bias, residual, ReLU and mask in float32, and the mean and
// largest magnitude of each channel where somebody asks.
//
// Reads packed values and weights as pack8.h leaves them, whole vectors at values + offset; what
// it writes are whole vectors of one sub-plane, zero on padding. Called by conv8.h.
#pragma once
#include "pack8.h"

namespace DGC_ISA {

constexpr int kTileRows = kRegisters == 32 ? 8 : 4;
#if defined(__AVX512F__) || defined(__AVXVNNI__)
constexpr bool kWiden = false;
#else
constexpr bool kWiden = true;  // bytes that are widened need registers too
#endif
constexpr int widest8(int rows) {
    if (kRegisters == 32) return rows == 8 ? 3 : rows == 4 ? 5 : 8;
    return kWiden ? (rows == 4 ? 2 : 4) : rows == 4 ? 3 : rows == 2 ? 4 : 6;
}

struct Place {  // a block of 8 outputs over one output sub-plane
    const int32_t* values;   // at the first pixel
    const int32_t* weights;  // of the block
    const int64_t* offsets;  // of the sub-plane's taps
    int64_t fours, taps, plane;
    const int32_t* mask;  // of the sub-plane
    float* y[kEight];     // at the sub-plane's first pixel
    const float* residual[kEight];
    float scale[kEight], bias[kEight];
    int32_t sums[kEight];  // what signed bytes added
    bool relu;
    Stats* stats;  // [8]; null: nobody asks
};

// What follows the sums of one output: NV vectors of pixels from `i` on.
template <int NV>
DGC_INLINE void finish8(const Place& at, int64_t r, int64_t i, const VI (&sums)[NV]) {
    const V scale = splat(at.scale[r]), bias = splat(at.bias[r]);
    const VI added = at.sums[r] - VI{};
    V y[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) y[v] = __builtin_convertvector(sums[v] - added, V) * scale + bias;
    if (at.residual[r]) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) y[v] += load(at.residual[r] + i + v * VL);
    }
    if (at.relu) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) y[v] = relu(y[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
        y[v] = keep(y[v], load_int(at.mask + i + v * VL));
        store(at.y[r] + i + v * VL, y[v]);
    }
    if (at.stats) at.stats[r].add(i, y);
}

// Even bytes for all sums first, then odd ones: half as many vectors are needed at once.
template <int MR, int NV>
DGC_INLINE void add_pairs(VI (&acc)[MR][NV], const VI (&a)[NV], const int32_t* w) {
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
        VI wide[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) wide[v] = odd ? odd_bytes(a[v]) : even_bytes(a[v]);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            const VI b = w[odd * kEight + m] - VI{};
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[m][v] = dot_pairs(acc[m][v], wide[v], b);
        }
    }
}

// The first vector's values lie at values + first, its pixels are i and those that follow.
template <int MR, int NV>
__attribute__((noinline)) void tile8(const Place& at, int64_t row, int64_t first, int64_t i) {
    VI acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = VI{};
    const int32_t *values = at.values + first, *w = at.weights + row;
    for (int64_t f = 0; f < at.fours; ++f, values += at.plane)
        for (int64_t t = 0; t < at.taps; ++t, w += kStep) {
            VI a[NV];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) a[v] = load_int(values + at.offsets[t] + v * VL);
            if (kPairs) {
                add_pairs(acc, a, w);
                continue;
            }
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                const VI b = w[m] - VI{};
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) acc[m][v] = dot(acc[m][v], a[v], b);
            }
        }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) finish8(at, row + m, i, acc[m]);
}

// `vectors` of pixels from `start` on, whose values begin at at.values.
template <int MR>
inline void sweep8(const Place& at, int64_t row, int64_t start, int64_t vectors) {
    const int64_t pieces = ceil_div(vectors, widest8(MR));
    for (int64_t p = 0; p < pieces; ++p) {
        const Range wide = cut(vectors, p, pieces);
        with_width<widest8(MR)>(wide.end - wide.begin, [&](auto nv) {
            tile8<MR, decltype(nv)::value>(at, row, wide.begin * VL, start + wide.begin * VL);
        });
    }
}

inline void block8(const Place& at, int64_t height, int64_t start, int64_t vectors) {
    for (int64_t row = 0; row < height;) {
        const int64_t left = height - row;
        if (kTileRows == 8 && left == 8)
            return sweep8<kTileRows>(at, row, start, vectors);
        if (left >= 4)
            sweep8<4>(at, row, start, vectors), row += 4;
        else if (left >= 2)
            sweep8<2>(at, row, start, vectors), row += 2;
        else
            sweep8<1>(at, row, start, vectors), row += 1;
    }
}

}  // namespace DGC_ISA
