// One head of an 8-bit convolution: what it keeps is packed, and its outputs swept over.
//
// A kernel of several taps packs whole planes; a single tap packs a piece of pixels at a time, which
// stays in the first-level cache for all of the head's outputs. Called by int8.cpp and ops8.h.
#pragma once
#include "tile8.h"

namespace DGC_ISA {

struct Room {  // numbers of 32 bits, and the bytes of all together
    int64_t values, weights, sums, none;
    int64_t bytes() const { return 4 * (values + weights + sums + none); }
};

inline Room room_of(const DgcInt8& q) {
    const int64_t most = q.dynamic ? q.channels : q.channels / q.heads, fours = ceil_div(most, 4);
    const int64_t width = round_up(q.outs);
    return {round_up(fours * q.src.plane + q.src.lead + 64), round_up(fours * q.taps * width),
            width, round_up(ceil_div(q.taps * width, 4))};
}

inline int64_t output_channel(const DgcInt8& q, int64_t head, int64_t row) {
    return row * q.out_step + head * q.head_step;
}

inline Place place_of(const DgcInt8& q, const Head& h, int64_t first, int64_t subplane) {
    Place at{};
    const int64_t start = subplane * q.dst.phase_plane + q.dst.lead;
    at.offsets = q.offsets + subplane * q.taps, at.taps = q.taps, at.plane = q.src.plane;
    at.mask = q.dst_mask + subplane * q.dst.length, at.relu = q.relu != 0;
    at.fours = ceil_div(h.kept, 4);
    for (int64_t m = 0; m < smaller(kEight, q.outs - first); ++m) {
        const int64_t o = output_channel(q, h.head, first + m);
        const int64_t to = h.sample * q.y_step + o * q.dst.plane + start;
        at.y[m] = q.y + to;
        at.residual[m] = q.residual ? q.residual + to : nullptr;
        at.scale[m] = h.largest / h.levels * q.weight_scale[h.head * q.outs + first + m];
        at.bias[m] = q.bias ? q.bias[o] : 0.0f;
    }
    return at;
}

inline int64_t used_vectors8(const DgcTensor& t) {
    return ceil_div((ceil_div(t.height, t.phases) - 1) * t.row + ceil_div(t.width, t.phases), VL);
}

// Means and largest magnitudes of a head's outputs [first, first + count).
inline void tell(const DgcInt8& q, const Head& h, int64_t first, int64_t count, const Stats* s) {
    for (int64_t m = 0; m < count; ++m) {
        const int64_t o = h.sample * q.heads * q.outs + output_channel(q, h.head, first + m);
        q.out_mean[o] = s ? s[m].mean(q.dst.height * q.dst.width) : __builtin_nanf("");
        q.out_top[o] = s ? s[m].top() : __builtin_nanf("");
    }
}

inline void say_nan(const DgcInt8& q, const Head& h, Range rows) {
    const V nan = splat(__builtin_nanf(""));
    for (int64_t row = rows.begin; row < rows.end; ++row)
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            float* y = q.y + h.sample * q.y_step +
                       output_channel(q, h.head, row) * q.dst.plane + p * q.dst.phase_plane +
                       q.dst.lead;
            for (int64_t i = 0; i < q.dst.length; i += VL)
                store(y + i, keep(nan, load_int(q.dst_mask + p * q.dst.length + i)));
        }
    if (q.out_top) tell(q, h, rows.begin, rows.end - rows.begin, nullptr);
}

struct Packed {  // of a head, in the worker's scratch
    int32_t *values, *weights, *sums;
    int64_t block;  // numbers of a block of 8 outputs
};

// One block of 8 outputs over vectors of pixels whose values begin at `values`.
inline void one_block(const DgcInt8& q, const Head& h, const Packed& packed, Place& at,
                      int64_t first, int64_t start, int64_t vectors) {
    at.weights = packed.weights + first / kEight * packed.block;
    if (q.is_signed)
        for (int64_t m = 0; m < kEight; ++m) at.sums[m] = packed.sums[first + m];
    block8(at, smaller(kEight, q.outs - first), start, vectors);
    (void)h;
}

inline void whole_planes(const DgcInt8& q, const Head& h, const Packed& packed, Range rows) {
    pack_values(q, h, packed.values);
    const int64_t vectors = used_vectors8(q.dst);
    for (int64_t first = rows.begin; first < rows.end; first += kEight) {
        Stats stats[kEight] = {};
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            Place at = place_of(q, h, first, p);
            at.values = packed.values + q.src.lead, at.stats = q.out_top ? stats : nullptr;
            one_block(q, h, packed, at, first, 0, vectors);
        }
        if (q.out_top) tell(q, h, first, smaller(kEight, rows.end - first), stats);
    }
}

constexpr int64_t kNearBytes = 24 * 1024;  // of packed values: half of the first-level cache
constexpr int64_t kMostRows = 64;          // of a head whose statistics are kept at once

// A single tap that lies in one sub-plane of the source, at the output's own place.
inline bool in_pieces(const DgcInt8& q) {
    return q.taps == 1 && q.dst.phases == 1 && q.offsets[0] >= 0 &&
           q.offsets[0] % q.src.phase_plane == 0;
}

inline void by_pieces(const DgcInt8& q, const Head& h, const Packed& packed, Range rows) {
    const int64_t vectors = used_vectors8(q.dst), fours = ceil_div(h.kept, 4);
    const int64_t fit = kNearBytes / (larger_of(1, fours) * VL * 4) / 3 * 3;
    const int64_t piece = fit < 3 ? 3 : smaller(fit, 24);
    static const int64_t kHere[1] = {0};
    Stats stats[kMostRows];
    const int64_t count = rows.end - rows.begin;
    if (q.out_top) __builtin_memset(stats, 0, count * sizeof(Stats));
    for (int64_t v = 0; v < vectors; v += piece) {
        const int64_t some = smaller(piece, vectors - v);
        const int64_t start = q.src.lead + q.offsets[0] + v * VL;
        q.in_scale ? pack_piece<true>(q, h, start, some, packed.values)
                   : pack_piece<false>(q, h, start, some, packed.values);
        for (int64_t first = rows.begin; first < rows.end; first += kEight) {
            Place at = place_of(q, h, first, 0);
            at.values = packed.values, at.offsets = kHere, at.plane = some * VL;
            at.stats = q.out_top ? stats + (first - rows.begin) : nullptr;
            one_block(q, h, packed, at, first, v * VL, some);
        }
    }
    if (q.out_top) tell(q, h, rows.begin, count, stats);
}

// Outputs [rows.begin, rows.end) of a head; both multiples of 8, but for the last one.
inline void convolve_head(const DgcInt8& q, int64_t sample, int64_t head, Range rows,
                          uint8_t* scratch) {
    const Head h = head_of(q, sample, head);
    if (h.broken()) return say_nan(q, h, rows);
    const Room room = room_of(q);
    Packed packed{};
    packed.values = (int32_t*)scratch, packed.weights = packed.values + room.values;
    packed.sums = packed.weights + room.weights;
    packed.block = ceil_div(h.kept, 4) * q.taps * kEight;
    int32_t* none = packed.sums + room.sums;
    fill(none, room.none, 0);
    pack_weights(q, h, packed.weights, packed.sums, (const int8_t*)none);
    if (!in_pieces(q)) return whole_planes(q, h, packed, rows);
    for (int64_t row = rows.begin; row < rows.end; row += kMostRows)
        by_pieces(q, h, packed, {row, smaller(rows.end, row + kMostRows)});
}

}  // namespace DGC_ISA
