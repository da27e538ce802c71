// The same sums by AMX, whose tiles multiply 16 pixels with 16 outputs over 64 kept channels at once.
//
// Values: [pixel of the plane][kept channels, padded to 64] in bytes, so a tap is another pixel and
// every row of a tile begins at a line of the cache (rows that cross one take seven times as long).
// Weights: [16 outputs][64 channels][tap] tiles of [four channels][output][4]. Sums of a tile lie
// pixel by pixel and are turned, so that what follows them is tile8.h's (lanes8.h). Called by conv8.h.
#pragma once
#include "lanes8.h"

#if defined(__AMX_INT8__) && defined(__AVX512BW__)

namespace DGC_ISA {

constexpr int64_t kTileFours = 16;  // 64 channels
constexpr int64_t kTileNumbers = 256;  // of 32 bits

struct __attribute__((packed, aligned(64))) TileShape {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// 16 pixels from `start` on, of up to 64 kept channels: a row each.
template <Form FORM>
DGC_INLINE void pixel_rows(const Four* fours, int64_t count, int64_t start, __m512i (&r)[16]) {
#pragma GCC unroll 16
    for (int f = 0; f < 16; ++f)
        r[f] = f < count ? (__m512i)pack_vector<FORM>(fours[f], start) : _mm512_setzero_si512();
    turn(r);
}

// The pixels of each sub-plane, all of them where they lie; padding is the byte that stands for 0.
template <Form FORM>
inline void pack_side_by_side(const DgcInt8& q, const Four* fours, int64_t count, uint8_t* to,
                              int64_t step) {
    const DgcTensor& t = q.src;
    const __m512i none = _mm512_set1_epi32(zero_bytes(q));
    for (int64_t p = 0; p < t.phases * t.phases; ++p)
        for (int64_t i = 0; i < t.length; i += 16) {
            const int64_t start = p * t.phase_plane + t.lead + i;
            const int32_t* mask = q.src_mask + p * t.length + i;
            __m512i r[16];
            pixel_rows<FORM>(fours, count, start, r);
#pragma GCC unroll 16
            for (int k = 0; k < 16; ++k)
                _mm512_store_si512((__m512i*)(to + (start + k) * step), mask[k] ? r[k] : none);
        }
}

// From an image with its pixels side by side to 2 x 2 sub-planes: each to its place.
template <Form FORM>
inline void pack_apart(const DgcInt8& q, const Four* fours, int64_t count, uint8_t* to,
                       int64_t step) {
    const DgcTensor &s = q.image, &t = q.src;
    for (int64_t y = 0; y < s.height; ++y)
        for (int64_t x = 0; x < s.width; x += 16) {
            __m512i r[16];
            pixel_rows<FORM>(fours, count, s.lead + y * s.row + x, r);
            const int64_t even = y % 2 * 2 * t.phase_plane + t.lead + y / 2 * t.row + x / 2;
#pragma GCC unroll 16
            for (int64_t i = 0; i < 16; ++i)
                if (i < s.width - x)
                    _mm512_store_si512(
                        (__m512i*)(to + (even + i % 2 * t.phase_plane + i / 2) * step), r[i]);
        }
}

inline void pack_pixels8(const DgcInt8& q, const Head& h, uint8_t* to, int64_t step) {
    const DgcTensor& t = q.src;
    const int zero = int(zero_byte(q));
    if (comes_apart(q)) {
        __builtin_memset(to, zero, (t.plane + t.lead + 64) * step);
    } else {
        for (int64_t p = 0; p < t.phases * t.phases; ++p)
            __builtin_memset(to + p * t.phase_plane * step, zero, t.lead * step);
        __builtin_memset(to + t.plane * step, zero, (t.lead + 64) * step);
    }
    const int64_t all = ceil_div(h.kept, 4);
    Four fours[kTileFours];
    with_form(q, [&](auto form) {
        for (int64_t f = 0; f < all; f += kTileFours) {
            const int64_t count = smaller(kTileFours, all - f);
            for (int64_t j = 0; j < count; ++j) fours[j] = four_of(q, h, 4 * (f + j));
            comes_apart(q) ? pack_apart<decltype(form)::value>(q, fours, count, to + f * 4, step)
                           : pack_side_by_side<decltype(form)::value>(q, fours, count, to + f * 4, step);
        }
    });
}

// Weights of the kept channels: tiles of 1 KiB, [16 outputs][64 channels][tap].
inline void pack_weights8(const DgcInt8& q, const Head& h, int32_t* to, const int8_t* none) {
    const int64_t width = round_up(q.outs), fours = ceil_div(h.kept, 4), taps = q.taps;
    const int64_t deep = ceil_div(fours, kTileFours), block = deep * taps * kTileNumbers;
    const WeightRows rows = weight_rows(q, h, none);
    for (int64_t f = 0; f < deep * kTileFours; ++f) {
        const int8_t* row[4];
        for (int64_t j = 0; j < 4; ++j) row[j] = rows.row(4 * f + j);
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t o = 0; o < width; o += 16) {
                // Chosen rows lie apart, where the processor foresees none of them.
                if (h.kept) rows.fetch(4 * f + 8, tap * width + o);
                int32_t* tile = to + o / 16 * block + (f / kTileFours * taps + tap) * kTileNumbers;
                int32_t* first = tile + f % kTileFours * 16;
                interleave(row, tap * width + o, first, first + kEight);
            }
    }
}

struct Deep {  // what tiles are multiplied
    const uint8_t* values;  // at the source's first pixel
    int64_t step, deep, taps;
    const int64_t* offsets;
    const int32_t* weights;
    int64_t block;  // numbers from 16 outputs to the next
};

// Sums of PX x 16 pixels from i on and OX x 16 outputs: [PX][OX][16 pixels][16 outputs] at `to`.
template <int PX, int OX>
inline void tile_sums(const Deep& d, int64_t i, const int32_t* weights, int32_t* to) {
    _tile_zero(0);
    if (OX == 2) _tile_zero(1);
    if (PX == 2) _tile_zero(2);
    if (PX == 2 && OX == 2) _tile_zero(3);
    const uint8_t* pixels = d.values + i * d.step;
    for (int64_t k = 0; k < d.deep; ++k, pixels += 64)
        for (int64_t t = 0; t < d.taps; ++t, weights += kTileNumbers) {
            const uint8_t* x = pixels + d.offsets[t] * d.step;
            _tile_loadd(4, x, d.step);
            // Two by two tiles: each that is loaded is multiplied twice.
            if (PX == 2) _tile_loadd(5, x + 16 * d.step, d.step);
            _tile_loadd(6, weights, 64);
            _tile_dpbusd(0, 4, 6);
            if (PX == 2) _tile_dpbusd(2, 5, 6);
            if (OX == 2) {
                _tile_loadd(7, weights + d.block, 64);
                _tile_dpbusd(1, 4, 7);
                if (PX == 2) _tile_dpbusd(3, 5, 7);
            }
        }
    _tile_stored(0, to, 64);
    if (OX == 2) _tile_stored(1, to + kTileNumbers, 64);
    if (PX == 2) _tile_stored(2, to + OX * kTileNumbers, 64);
    if (PX == 2 && OX == 2) _tile_stored(3, to + 3 * kTileNumbers, 64);
}

}  // namespace DGC_ISA
#endif
