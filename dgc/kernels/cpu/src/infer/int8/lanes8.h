// Sums of bytes with vectors over output channels: where a plane has too few pixels to fill vectors
// (7x7 takes four of 16, which is 64 for 49), each pixel's four channels are multiplied with those of
// 16 or 32 outputs at once.
//
// Values as tile8.h reads them. Weights: [16 outputs][four channels][tap][16]. The sums of 16 outputs
// lie pixel by pixel, at the places of the output's plane, and are turned, so that what follows them
// is tile8.h's. For vectors of 16 numbers alone. Called by conv8.h.
#pragma once
#include "tile8.h"

namespace DGC_ISA {

constexpr int64_t kTurned = 16 * 16;  // sums of 16 pixels and 16 outputs
constexpr int64_t kLanePlane = 16;    // vectors of pixels of a plane at most
constexpr int64_t kLaneSums = 2 * kLanePlane * kTurned;  // numbers: of 32 outputs

#if defined(__AVX512F__) || defined(DGC_LANES)
constexpr bool kHasLanes = VL == 16;
constexpr int kLaneRow8 = 14;  // pixels: times two vectors of outputs: as many sums as registers hold

struct Lanes {
    const int32_t* values;   // at the first pixel
    int64_t plane, row;      // numbers from four channels to the next, and from row to row
    const int64_t* offsets;  // of the taps
    int64_t fours, taps;
    const int32_t* weights;  // of the first 16 outputs
    int64_t group;           // numbers to the next 16
    int32_t* sums;           // [16 outputs][place in the plane][16]
    int64_t sums_group;
};

// R rows of N pixels from place `i` of the plane on, OV x 16 outputs.
template <int R, int N, int OV>
__attribute__((noinline)) void lane_sums(const Lanes& l, int64_t i) {
    VI acc[R][N][OV];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 14
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
            for (int o = 0; o < OV; ++o) acc[r][n][o] = VI{};
    const int32_t *plane = l.values + i, *w = l.weights;
    for (int64_t f = 0; f < l.fours; ++f, plane += l.plane)
        for (int64_t t = 0; t < l.taps; ++t, w += kSixteen) {
            const int32_t* x = plane + l.offsets[t];
            VI b[OV];
#pragma GCC unroll 2
            for (int o = 0; o < OV; ++o) b[o] = load_int(w + o * l.group);
#pragma GCC unroll 2
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 14
                for (int n = 0; n < N; ++n) {
                    const VI a = x[r * l.row + n] - VI{};
#pragma GCC unroll 2
                    for (int o = 0; o < OV; ++o) acc[r][n][o] = dot(acc[r][n][o], a, b[o]);
                }
        }
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 14
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
            for (int o = 0; o < OV; ++o) {
                int32_t* to = l.sums + o * l.sums_group + (i + r * l.row + n) * kSixteen;
                *(VILoad*)to = acc[r][n][o];
            }
}

template <int OV>
inline void lane_plane(const Lanes& l, int64_t height, int64_t width) {
    for (int64_t y = 0; y < height;) {
        const int64_t i = y * l.row;
        if (2 * width <= kLaneRow8 && y + 2 <= height) {
            with_width<kLaneRow8 / 2>(
                width, [&](auto n) { lane_sums<2, decltype(n)::value, OV>(l, i); });
            y += 2;
            continue;
        }
        const int64_t pieces = ceil_div(width, kLaneRow8);
        for (int64_t p = 0; p < pieces; ++p) {
            const Range part = cut(width, p, pieces);
            with_width<kLaneRow8>(part.end - part.begin, [&](auto n) {
                lane_sums<1, decltype(n)::value, OV>(l, i + part.begin);
            });
        }
        ++y;
    }
}

// What follows the sums of 16 pixels and up to 16 outputs, two blocks of 8: [pixel][output].
inline void finish_turned(const Place* at, int64_t height, int64_t i, const int32_t* sums) {
    VI r[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) r[j] = load_int(sums + j * 16);
    turn(r);
#pragma GCC unroll 16
    for (int m = 0; m < 16; ++m) {
        const VI sums_of_one[1] = {r[m]};
        if (m < height) finish8<1>(at[m / kEight], m % kEight, i, sums_of_one);
    }
}
#else
constexpr bool kHasLanes = false;
#endif

}  // namespace DGC_ISA
