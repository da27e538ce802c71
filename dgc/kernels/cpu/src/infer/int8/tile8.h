// The register tile of bytes: MR output channels x NV vectors of pixels, summed exactly over the
// kept channels and taps; then scale, bias, residual, ReLU and mask in float32.
//
// Reads packed values and weights as quantise.h leaves them, whole vectors at values + offset; what
// it writes are whole vectors of one sub-plane, zero on padding. Called by int8.cpp.
#pragma once
#include "dot.h"
#include "quantise.h"

namespace DGC_ISA {

constexpr int kTileRows = kRegisters == 32 ? 8 : 4;
#if defined(__AVX512F__) || defined(__AVXVNNI__)
constexpr int kTileVectors = 3;
#else
constexpr int kTileVectors = 2;  // bytes that are widened need registers too
#endif

struct Place {  // a block of 8 outputs over one output sub-plane
    const int32_t* values;   // at the source's first pixel
    const int32_t* weights;  // of the block
    const int64_t* offsets;  // of the sub-plane's taps
    int64_t fours, taps, plane;
    const int32_t* mask;  // of the sub-plane
    float* y[kEight];     // at the sub-plane's first pixel; null: no such output
    const float* residual[kEight];
    float scale[kEight], bias[kEight];
    int32_t sums[kEight];  // what signed bytes added
    bool relu;
};

template <int MR, int NV>
__attribute__((noinline)) void tile8(const Place& at, int64_t row, int64_t i) {
    VI acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = VI{};
    const int32_t *values = at.values + i, *w = at.weights + row;
    for (int64_t f = 0; f < at.fours; ++f, values += at.plane)
        for (int64_t t = 0; t < at.taps; ++t, w += kEight) {
            VI a[NV];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) a[v] = load_int(values + at.offsets[t] + v * VL);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                const VI b = w[m] - VI{};
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) acc[m][v] = dot(acc[m][v], a[v], b);
            }
        }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const int64_t r = row + m;
        if (!at.y[r]) return;
        const V scale = splat(at.scale[r]), bias = splat(at.bias[r]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const int64_t x = i + v * VL;
            V y = __builtin_convertvector(acc[m][v] - at.sums[r], V) * scale + bias;
            if (at.residual[r]) y += load(at.residual[r] + x);
            if (at.relu) y = relu(y);
            store(at.y[r] + x, keep(y, load_int(at.mask + x)));
        }
    }
}

// All vectors of the sub-plane that hold pixels.
template <int MR>
inline void sweep8(const Place& at, int64_t row, int64_t vectors) {
    const int64_t pieces = ceil_div(vectors, kTileVectors);
    for (int64_t p = 0; p < pieces; ++p) {
        const Range wide = cut(vectors, p, pieces);
        with_width<kTileVectors>(wide.end - wide.begin, [&](auto nv) {
            tile8<MR, decltype(nv)::value>(at, row, wide.begin * VL);
        });
    }
}

inline void block8(const Place& at, int64_t height, int64_t vectors) {
    if (height > 4 && kTileRows == 8) return sweep8<kTileRows>(at, 0, vectors);
    for (int64_t row = 0; row < height; row += 4)
        if (height - row > 2)
            sweep8<4>(at, row, vectors);
        else if (height - row == 2)
            sweep8<2>(at, row, vectors);
        else
            sweep8<1>(at, row, vectors);
}

}  // namespace DGC_ISA
