// One head of an 8-bit convolution: what it keeps is packed, and its outputs swept over.
//
// A kernel of several taps packs whole planes; a single tap packs a piece of pixels at a time, which
// stays in the first-level cache for all of the head's outputs. Called by int8.cpp and ops8.h.
#pragma once
#include "../context.h"
#include "amx8.h"
#include "tile8.h"

namespace DGC_ISA {

struct Room {  // numbers of 32 bits, and the bytes of all together
    int64_t values, weights, sums, none, tiles;
    int64_t bytes() const { return 4 * (values + weights + sums + none + tiles); }
};

constexpr int64_t kFewFours = 5;  // from here on tiles of 64 channels may be used (amx8.h)

inline Room room_of(const DgcInt8& q) {
    const int64_t most = q.dynamic ? q.channels : q.channels / q.heads, fours = ceil_div(most, 4);
    const int64_t width = round_up(q.outs), deep = fours < kFewFours ? fours : round_up(fours);
    return {round_up(deep * (q.src.plane + q.src.lead + 64)), round_up(2 * deep * q.taps * width),
            width, round_up(ceil_div(q.taps * width, 4)), kLaneSums};
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
        // Two scales in one: of what was read, chosen for this
        // sample and head, and of the weights of this output.
        at.scale[m] = h.largest / h.levels * q.weight_scale[h.head * q.outs + first + m];
        at.bias[m] = q.bias ? q.bias[o] : 0.0f;
    }
    return at;
}

// Means and largest magnitudes of a head's outputs [first, first + count).
inline void tell(const DgcInt8& q, const Head& h, int64_t first, int64_t count, const Stats* s) {
    for (int64_t m = 0; m < count; ++m) {
        const int64_t o = h.sample * q.heads * q.outs + output_channel(q, h.head, first + m);
        // NaN is passed on, so that a broken sample is
        // not selected from as if it were one of zeros.
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
    int32_t *values, *weights, *sums, *none;
    int64_t block;  // numbers of a block of 8 outputs
};

// Where what is packed goes; `none` is zero already.
inline Packed packed_places(const DgcInt8& q, const Head& h, uint8_t* scratch, const Room& room) {
    Packed packed{};
    packed.values = (int32_t*)scratch, packed.weights = packed.values + room.values;
    packed.sums = packed.weights + room.weights, packed.none = packed.sums + room.sums;
    packed.block = ceil_div(h.kept, 4) * q.taps * kStep;
    fill(packed.none, room.none, 0);
    return packed;
}

// One block of 8 outputs over vectors of pixels whose values begin at `values`.
inline void one_block(const DgcInt8& q, const Packed& packed, Place& at, int64_t first,
                      int64_t start, int64_t vectors) {
    at.weights = packed.weights + first / kEight * packed.block;
    if (q.is_signed)
        for (int64_t m = 0; m < kEight; ++m) at.sums[m] = packed.sums[first + m];
    block8(at, smaller(kEight, q.outs - first), start, vectors);
}

inline void whole_planes(const DgcInt8& q, const Head& h, const Packed& packed, Range rows) {
    pack_values(q, h, packed.values);
    const int64_t vectors = used_vectors(q.dst);
    for (int64_t first = rows.begin; first < rows.end; first += kEight) {
        Stats stats[kEight] = {};
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            Place at = place_of(q, h, first, p);
            at.values = packed.values + q.src.lead, at.stats = q.out_top ? stats : nullptr;
            one_block(q, packed, at, first, 0, vectors);
        }
        if (q.out_top) tell(q, h, first, smaller(kEight, rows.end - first), stats);
    }
}

#if defined(__AMX_INT8__) && defined(__AVX512BW__)
constexpr int64_t kDeepEnough = 64;  // fours of bytes that each output sums up

inline bool in_tiles(const DgcInt8& q, const Head& h, Range rows) {
    const int64_t fours = ceil_div(h.kept, 4);
    return fours >= kFewFours && fours * q.taps >= kDeepEnough && q.outs > kEight &&
           rows.begin % 16 == 0 && (rows.end % 16 == 0 || rows.end == q.outs);
}

// Up to 32 outputs from `first` on, over all pixels of a sub-plane.
inline void tile_rows(const DgcInt8& q, const Deep& d, const Place* at, int64_t count, int64_t first,
                      int32_t* sums) {
    const int64_t vectors = used_vectors(q.dst), wide = count > 16 ? 2 : 1;
    const int32_t* weights = d.weights + first / 16 * d.block;
    for (int64_t v = 0; v < vectors; v += 2) {
        const int64_t tall = smaller(2, vectors - v), i = v * VL;
        if (tall == 2)
            wide == 2 ? tile_sums<2, 2>(d, i, weights, sums) : tile_sums<2, 1>(d, i, weights, sums);
        else
            wide == 2 ? tile_sums<1, 2>(d, i, weights, sums) : tile_sums<1, 1>(d, i, weights, sums);
        for (int64_t p = 0; p < tall; ++p)
            for (int64_t o = 0; o < wide; ++o)
                finish_turned(at + 2 * o, smaller(16, count - 16 * o), i + p * VL,
                            sums + (p * wide + o) * kTileNumbers);
    }
}

inline void by_tiles8(const DgcInt8& q, const Head& h, const Packed& packed, const int8_t* none,
                      int32_t* tiles, Range rows) {
    static constexpr TileShape shape{};
    // For each head and released after it: another library in this thread may use tiles of its own.
    _tile_loadconfig(&shape);
    const int64_t deep = ceil_div(ceil_div(h.kept, 4), kTileFours), step = deep * 64;
    uint8_t* values = (uint8_t*)packed.values;
    pack_pixels8(q, h, values, step);
    pack_weights8(q, h, packed.weights, none);
    if (q.is_signed)
        sum_weights(q, h, q.weight + h.head * (q.dynamic ? q.channels : q.channels / q.heads) *
                              round_up(q.outs) * q.taps, packed.sums);
    for (int64_t first = rows.begin; first < rows.end; first += 32) {
        const int64_t count = smaller(32, rows.end - first);
        Stats stats[32] = {};
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            Place at[4];
            for (int64_t b = 0; b * kEight < count; ++b) {
                at[b] = place_of(q, h, first + b * kEight, p);
                at[b].stats = q.out_top ? stats + b * kEight : nullptr;
                if (q.is_signed)
                    for (int64_t m = 0; m < kEight; ++m)
                        at[b].sums[m] = packed.sums[first + b * kEight + m];
            }
            const Deep d = {values + q.src.lead * step, step, deep, q.taps,
                            q.offsets + p * q.taps, packed.weights,
                            deep * q.taps * kTileNumbers};
            tile_rows(q, d, at, count, first, tiles);
        }
        if (q.out_top) tell(q, h, first, count, stats);
    }
    _tile_release();
}
#endif

constexpr int64_t kNearBytes = 24 * 1024;  // of packed values: half of the first-level cache
constexpr int64_t kMostRows = 64;          // of a head whose statistics are kept at once

// A single tap that lies in one sub-plane of the source, at the output's own place.
inline bool in_pieces(const DgcInt8& q) {
    return q.taps == 1 && q.dst.phases == 1 && q.offsets[0] >= 0 &&
           q.offsets[0] % q.src.phase_plane == 0;
}

inline void by_pieces(const DgcInt8& q, const Head& h, const Packed& packed, Range rows) {
    const int64_t vectors = used_vectors(q.dst), fours = ceil_div(h.kept, 4);
    // Whole threes of vectors: as many as the inner kernel takes at once.
    const int64_t fit = kNearBytes / (larger_of(1, fours) * VL * 4) / 3 * 3;
    const int64_t piece = comes_apart(q) ? vectors : fit < 3 ? 3 : smaller(fit, 24);
    static const int64_t kHere[1] = {0};
    Stats stats[kMostRows];
    const int64_t count = rows.end - rows.begin;
    if (q.out_top) __builtin_memset(stats, 0, count * sizeof(Stats));
    for (int64_t v = 0; v < vectors; v += piece) {
        const int64_t some = smaller(piece, vectors - v);
        comes_apart(q) ? pack_seconds(q, h, some * VL, packed.values)
                       : pack_piece(q, h, v, some, packed.values);
        for (int64_t first = rows.begin; first < rows.end; first += kEight) {
            Place at = place_of(q, h, first, 0);
            at.values = packed.values, at.offsets = kHere, at.plane = some * VL;
            at.stats = q.out_top ? stats + (first - rows.begin) : nullptr;
            one_block(q, packed, at, first, v * VL, some);
        }
    }
    if (q.out_top) tell(q, h, rows.begin, count, stats);
}

// A plane whose vectors of pixels would be filled badly. Where a single tap is read, pixels lie in
// pieces that stay near, which is worth more than a few places; the same goes for few outputs.
inline bool in_lanes(const DgcInt8& q, Range rows) {
    const int64_t places = used_vectors(q.dst) * VL;
    const double most = q.taps > 1 && q.outs >= 2 * kSixteen ? 0.9 : 0.8;
    return kHasLanes && q.dst.phases == 1 && q.outs >= kSixteen && places <= kLanePlane * VL &&
           rows.begin % kSixteen == 0 && (rows.end % kSixteen == 0 || rows.end == q.outs) &&
           double(q.dst.height * q.dst.width) <= most * double(places);
}

#if defined(__AVX512F__) || defined(DGC_LANES)
inline void by_lanes(const DgcInt8& q, const Head& h, const Packed& packed, const int8_t* none,
                     int32_t* sums, Range rows) {
    static const int64_t kHere[1] = {0};
    const int64_t vectors = used_vectors(q.dst), fours = ceil_div(h.kept, 4);
    pack_weights<kSixteen>(q, h, packed.weights, packed.sums, none);
    Lanes l = {packed.values + q.src.lead, q.src.plane, q.dst.row, q.offsets, fours, q.taps,
               nullptr, fours * q.taps * kSixteen, sums, kLanePlane * kTurned};
    if (in_pieces(q)) {
        comes_apart(q) ? pack_seconds(q, h, vectors * VL, packed.values)
                       : pack_piece(q, h, 0, vectors, packed.values);
        l.values = packed.values, l.plane = vectors * VL, l.offsets = kHere;
    } else {
        pack_values(q, h, packed.values);
    }
    for (int64_t first = rows.begin; first < rows.end; first += 2 * kSixteen) {
        const int64_t count = smaller(2 * kSixteen, rows.end - first);
        Stats stats[2 * kSixteen] = {};
        Place at[4];
        for (int64_t b = 0; b * kEight < count; ++b) {
            at[b] = place_of(q, h, first + b * kEight, 0);
            at[b].stats = q.out_top ? stats + b * kEight : nullptr;
            if (q.is_signed)
                for (int64_t m = 0; m < kEight; ++m)
                    at[b].sums[m] = packed.sums[first + b * kEight + m];
        }
        l.weights = packed.weights + first / kSixteen * l.group;
        count > kSixteen ? lane_plane<2>(l, q.dst.height, q.dst.width)
                         : lane_plane<1>(l, q.dst.height, q.dst.width);
        for (int64_t done = 0; done < count; done += kSixteen)
            for (int64_t v = 0; v < vectors; ++v)
                finish_turned(at + done / kEight, smaller(kSixteen, count - done), v * VL,
                              sums + done / kSixteen * l.sums_group + v * kTurned);
        if (q.out_top) tell(q, h, first, count, stats);
    }
}
#endif

// Outputs [rows.begin, rows.end) of a head; both multiples of 8, but for the last one.
inline void convolve_head(const DgcInt8& q, int64_t sample, int64_t head, Range rows,
                          uint8_t* scratch) {
    const Head h = head_of(q, sample, head);
    // NaN in its input: there is no scale for such a sample, and the answer must not look like one.
    if (h.broken()) return say_nan(q, h, rows);
    const Room room = room_of(q);
    Packed packed = packed_places(q, h, scratch, room);
    const int8_t* none = (const int8_t*)packed.none;
#if defined(__AMX_INT8__) && defined(__AVX512BW__)
    if (in_tiles(q, h, rows))
        return by_tiles8(q, h, packed, none, packed.none + room.none, rows);
#endif
#if defined(__AVX512F__) || defined(DGC_LANES)
    if (in_lanes(q, rows))
        return by_lanes(q, h, packed, none, packed.none + room.none, rows);
#endif
    pack_weights<kEight>(q, h, packed.weights, packed.sums, none);
    if (!in_pieces(q)) return whole_planes(q, h, packed, rows);
    for (int64_t row = rows.begin; row < rows.end; row += kMostRows)
        by_pieces(q, h, packed, {row, smaller(rows.end, row + kMostRows)});
}

}  // namespace DGC_ISA
