// The register tile: MR output channels x NV vectors of pixels, summed over the selected channels and the kernel's taps.
#pragma once
#include "context.h"
#include "tuning.h"

namespace DGC_ISA {

struct Source {                 // K input channels; `x` and `w` point at channel 0, at the first pixel and row
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
    const float* ahead = nullptr;  // weights that come next, to be fetched meanwhile (kWeightsAhead)
};

struct Sink {                   // at the first row and pixel
    float* dst;
    const float* residual;      // null: nothing is added
    int64_t step, residual_step;
    const float* bias;
    int64_t bias_step;
    bool relu;
    const int32_t* mask;        // null: the bare sums are stored
};

// What follows the sums, for the usual case: bias and ReLU.
template <int MR, int NV>
DGC_INLINE void finish_plain(V (&acc)[MR][NV], const Sink& s, int64_t row, int64_t i) {
    const V least = splat(s.relu ? 0.0f : -__builtin_inff());
    float* dst = s.dst + row * s.step + i;
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const V bias = splat(s.bias ? s.bias[(row + m) * s.bias_step] : 0.0f);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const V y = larger(least, acc[m][v] + bias);
            store(dst + m * s.step + v * VL, keep(y, load_int(s.mask + i + v * VL)));
        }
    }
}

// The same with a residual, which is added before the ReLU.
template <int MR, int NV>
DGC_INLINE void finish_with_residual(V (&acc)[MR][NV], const Sink& s, int64_t row, int64_t i) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const V bias = splat(s.bias ? s.bias[(row + m) * s.bias_step] : 0.0f);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const int64_t at = i + v * VL;
            V y = acc[m][v] + bias;
            y += load(s.residual + (row + m) * s.residual_step + at);
            if (s.relu) y = relu(y);
            store(s.dst + (row + m) * s.step + at, keep(y, load_int(s.mask + at)));
        }
    }
}

template <int MR, int NV>
DGC_INLINE void finish(V (&acc)[MR][NV], const Sink& s, int64_t row, int64_t i) {
    if (s.mask) return s.residual ? finish_with_residual(acc, s, row, i) : finish_plain(acc, s, row, i);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(s.dst + (row + m) * s.step + i + v * VL, acc[m][v]);
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

// Few pixels use up weights faster than the memory brings them in by itself: the tiles of a block of 16 rows together ask
// for the chosen lines of the next block, spread over their steps.
template <int MR>
DGC_INLINE void fetch_ahead(const Source& s, int64_t row, int64_t k) {
    constexpr int64_t kTiles = kBlock / MR;
    if (k % kTiles) return;
    const int64_t line = row / MR * ceil_div(s.channels, kTiles) + k / kTiles;
    __builtin_prefetch(s.ahead + s.w_index[smaller(line, s.channels - 1)] * s.w_step, 0, 2);
}

template <int MR, int NV, bool XI, bool WI, bool AHEAD>
DGC_INLINE void accumulate(V (&acc)[MR][NV], const Source& s, int64_t row, int64_t i) {
    const float *px = s.x + i, *pw = s.w + row;
    if (s.taps == 1) {
        const int64_t x_step = s.x_step, w_step = s.w_step, channels = s.channels;
        px += s.offsets ? s.offsets[0] : 0;
        for (int64_t k = 0; k < channels; ++k) {
            if (AHEAD) fetch_ahead<MR>(s, row, k);
            step<MR, NV>(acc, XI ? px + s.x_index[k] * x_step : px, WI ? pw + s.w_index[k] * w_step : pw);
            if (!XI) px += x_step;
            if (!WI) pw += w_step;
        }
        return;
    }
    for (int64_t k = 0; k < s.channels; ++k) {
        const float* x = px + (XI ? s.x_index[k] : k) * s.x_step;
        const float* w = pw + (WI ? s.w_index[k] : k) * s.w_step;
        for (int64_t t = 0; t < s.taps; ++t, w += s.block) step<MR, NV>(acc, x + s.offsets[t], w);
    }
}

// Which of the two operands is chosen by index. A function each: one with branches would keep its accumulators in memory.
enum Choice { kNone, kInput, kWeights, kWeightsAhead };

template <int MR, int NV, Choice CHOICE>
__attribute__((noinline)) void tile(const Source& source, const Sink& sink, int64_t row, int64_t i) {
    V acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = V{};
    accumulate<MR, NV, CHOICE == kInput, CHOICE >= kWeights, CHOICE == kWeightsAhead>(acc, source, row, i);
    finish<MR, NV>(acc, sink, row, i);
}

typedef void (*Tile)(const Source&, const Sink&, int64_t row, int64_t i);  // from this row and pixel on

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
    if (source.ahead) return pick_rows<kWeightsAhead>(rows, nv);
    return source.w_index ? pick_rows<kWeights>(rows, nv) : pick_rows<kNone>(rows, nv);
}

// `height` output channels, at most a block of them, over `vectors` vectors of pixels.
inline void sweep(const Source& source, const Sink& sink, int64_t height, int64_t vectors) {
    for (int64_t row = 0; row < height;) {
        const int64_t left = height - row, same = left >= kRows ? left / kRows * kRows : block_of(left);
        const int rows = int(smaller(same, kRows));
        const int64_t pieces = ceil_div(vectors, widest(rows));
        for (int64_t p = 0; p < pieces; ++p) {
            const int64_t first = vectors * p / pieces, nv = vectors * (p + 1) / pieces - first;
            const Tile run = pick(rows, int(nv), source);
            for (int64_t r = row; r < row + same; r += rows) run(source, sink, r, first * VL);
        }
        row += same;
    }
}

}  // namespace DGC_ISA
