// The register tile: MR output channels x NV vectors of pixels, summed over the selected channels
// and the kernel's taps.
//
// sweep() covers `height` <= 16 output channels of one block of weights, and `vectors` >= 1 vectors
// of pixels. It reads whole vectors at x + channel * x_step + offsets[tap], which may be at any
// alignment and lie `lead` floats before or behind the plane (there are zeros); and weights
// [channel][tap][block], block 16, 8, 4, 2 or 1. It writes whole vectors at dst + row * step,
// through the mask where there is one. dst overlaps neither x nor the weights, but may be the
// residual. With `ahead`, weights are chosen by index and `ahead` has as many channels: it is only
// fetched. taps >= 1; channels = 0 gives bias and residual alone. Called by conv.h and wino.h.
#pragma once
#include "../common/product.h"
#include "../common/tuning.h"
#include "context.h"

namespace DGC_ISA {

struct Source {  // K input channels; `x` and `w` point at channel 0, at the first pixel and row
    const float* x;
    const int32_t* x_index;  // null: channel k is the k-th
    int64_t x_step;
    const float* w;
    const int32_t* w_index;
    int64_t w_step;  // floats from channel to channel of the weights = taps * block
    int64_t block;
    int64_t channels;
    int64_t taps;
    const int64_t* offsets;
    const float* ahead =
        nullptr;  // weights that come next, to be fetched meanwhile (kWeightsAhead)
};

struct Sink {  // at the first row and pixel
    float* dst;
    const float* residual;  // null: nothing is added
    int64_t step, residual_step;
    const float* bias;
    int64_t bias_step;
    bool relu;
    const int32_t* mask;  // null: the bare sums are stored
    float most;           // of a result without residual: 6 for ReLU6, or infinity
};

// What follows the sums, for the usual case: bias and ReLU or ReLU6.
template <int MR, int NV>
DGC_INLINE void finish_plain(V (&acc)[MR][NV], const Sink& s, int64_t row, int64_t i) {
    const V least = splat(s.relu ? 0.0f : -__builtin_inff()), most = splat(s.most);
    float* dst = s.dst + row * s.step + i;
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        const V bias = splat(s.bias ? s.bias[(row + m) * s.bias_step] : 0.0f);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const V y = lesser(most, larger(least, acc[m][v] + bias));
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
    if (s.mask)
        return s.residual ? finish_with_residual(acc, s, row, i) : finish_plain(acc, s, row, i);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(s.dst + (row + m) * s.step + i + v * VL, acc[m][v]);
}

// Few pixels use up weights faster than the memory brings them in by itself: the tiles of a block
// of 16 rows together ask for the chosen lines of the next block, spread over their steps.
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
            const float* w = WI ? pw + s.w_index[k] * w_step : pw;
            add_products(acc, XI ? px + s.x_index[k] * x_step : px, [&](int m) { return w[m]; });
            if (!XI) px += x_step;
            if (!WI) pw += w_step;
        }
        return;
    }
    for (int64_t k = 0; k < s.channels; ++k) {
        const float* x = px + (XI ? s.x_index[k] : k) * s.x_step;
        const float* w = pw + (WI ? s.w_index[k] : k) * s.w_step;
        for (int64_t t = 0; t < s.taps; ++t, w += s.block)
            add_products(acc, x + s.offsets[t], [&](int m) { return w[m]; });
    }
}

// Which of the two operands is chosen by index. A function each: one with branches would keep its
// accumulators in memory.
enum Indexed { kNeither, kInput, kWeights, kWeightsAhead };

template <int MR, int NV, Indexed BY>
__attribute__((noinline)) void tile(const Source& source, const Sink& sink, int64_t row,
                                    int64_t i) {
    V acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = V{};
    accumulate<MR, NV, BY == kInput, BY >= kWeights, BY == kWeightsAhead>(acc, source, row, i);
    finish<MR, NV>(acc, sink, row, i);
}

typedef void (*Tile)(const Source&, const Sink&, int64_t row,
                     int64_t i);  // from this row and pixel on

template <int MR, Indexed BY>
Tile pick_width(int64_t vectors) {
    return with_width<widest(MR)>(
        vectors, [](auto nv) -> Tile { return tile<MR, decltype(nv)::value, BY>; });
}

template <Indexed BY>
Tile pick_rows(int rows, int64_t vectors) {
    if constexpr (kRows == 8) {
        if (rows == 8) return pick_width<8, BY>(vectors);
    }
    if (rows == 4) return pick_width<4, BY>(vectors);
    return rows == 2 ? pick_width<2, BY>(vectors) : pick_width<1, BY>(vectors);
}

inline Tile pick(int rows, int64_t vectors, const Source& source) {
    if (source.x_index) return pick_rows<kInput>(rows, vectors);
    if (source.ahead) return pick_rows<kWeightsAhead>(rows, vectors);
    return source.w_index ? pick_rows<kWeights>(rows, vectors) : pick_rows<kNeither>(rows, vectors);
}

// `height` output channels, at most a block of them, over `vectors` vectors of pixels.
inline void sweep(const Source& source, const Sink& sink, int64_t height, int64_t vectors) {
    DGC_CHECK(height >= 1 && height <= kBlock && vectors >= 1);
    DGC_CHECK(source.channels >= 0 && source.taps >= 1 && (source.taps == 1 || source.offsets));
    DGC_CHECK(source.block == block_of(source.block) && height <= source.block);
    DGC_CHECK(!source.ahead || (source.w_index && !source.x_index));
    DGC_CHECK(sink.mask ||
              (!sink.bias && !sink.residual && !sink.relu));  // bare sums, or all that follows them
    for (int64_t row = 0; row < height;) {
        const int64_t left = height - row,
                      same = left >= kRows ? left / kRows * kRows : block_of(left);
        const int rows = int(smaller(same, kRows));
        const int64_t pieces = ceil_div(vectors, widest(rows));
        for (int64_t p = 0; p < pieces; ++p) {
            const Range wide = cut(vectors, p, pieces);
            const Tile run = pick(rows, wide.end - wide.begin, source);
            for (int64_t r = row; r < row + same; r += rows) run(source, sink, r, wide.begin * VL);
        }
        row += same;
    }
}

}  // namespace DGC_ISA
