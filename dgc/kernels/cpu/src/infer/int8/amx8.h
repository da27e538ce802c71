// The same sums by AMX, whose tiles multiply 16 pixels with 16 outputs over 64 kept channels at once.
//
// Values: [pixel of the plane][kept channels, padded to 64] in bytes, so a tap is another pixel and
// every row of a tile begins at a line of the cache (rows that cross one take seven times as long).
// Weights: [16 outputs][64 channels][tap] tiles of [four channels][output][4]. Sums of a tile lie
// pixel by pixel and are turned, so that what follows them is tile8.h's. Called by conv8.h.
#pragma once
#include "tile8.h"

#if defined(__AMX_INT8__) && defined(__AVX512BW__)
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12, in its own header

namespace DGC_ISA {

constexpr int64_t kTileFours = 16;  // 64 channels
constexpr int64_t kTileNumbers = 256;  // of 32 bits

struct __attribute__((packed, aligned(64))) TileShape {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Rows become columns: 16 vectors of 16 numbers.
DGC_INLINE void turn(__m512i (&r)[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// 16 pixels from `start` on, of up to 64 kept channels from the k-th on.
template <bool AFFINE>
inline void pack_rows8(const Four* fours, int64_t count, int64_t start, const int32_t* mask,
                       V round, uint8_t* to, int64_t step) {
    __m512i r[16];
#pragma GCC unroll 16
    for (int f = 0; f < 16; ++f)
        r[f] = f < count ? (__m512i)pack_vector<AFFINE, true>(fours[f], start, mask, round)
                         : _mm512_setzero_si512();
    turn(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512((__m512i*)(to + i * step), r[i]);
}

template <bool AFFINE>
inline void pack_pixels8(const DgcInt8& q, const Head& h, uint8_t* to, int64_t step) {
    const DgcTensor& t = q.src;
    const V round = splat(kRound + float(zero_byte(q)));
    const int64_t all = ceil_div(h.kept, 4);
    Four fours[kTileFours];
    for (int64_t f = 0; f < all; f += kTileFours) {
        const int64_t count = smaller(kTileFours, all - f);
        for (int64_t j = 0; j < count; ++j) fours[j] = four_of(q, h, 4 * (f + j));
        for (int64_t p = 0; p < t.phases * t.phases; ++p)
            for (int64_t i = 0; i < t.length; i += 16) {
                const int64_t start = p * t.phase_plane + t.lead + i;
                pack_rows8<AFFINE>(fours, count, start, q.src_mask + p * t.length + i, round,
                                   to + start * step + f * 4, step);
            }
    }
}

inline void pack_pixels8(const DgcInt8& q, const Head& h, uint8_t* to, int64_t step) {
    const DgcTensor& t = q.src;
    const int zero = int(zero_byte(q));
    // The padding around each sub-plane is the byte that stands for 0, which taps at the edge read.
    for (int64_t p = 0; p < t.phases * t.phases; ++p)
        __builtin_memset(to + p * t.phase_plane * step, zero, t.lead * step);
    __builtin_memset(to + t.plane * step, zero, (t.lead + 64) * step);
    q.in_scale ? pack_pixels8<true>(q, h, to, step) : pack_pixels8<false>(q, h, to, step);
}

// Weights of the kept channels: tiles of 1 KiB, [16 outputs][64 channels][tap].
inline void pack_weights8(const DgcInt8& q, const Head& h, int32_t* to, const int8_t* none) {
    const int64_t width = round_up(q.outs), fours = ceil_div(h.kept, 4), own = width * q.taps;
    const int64_t all = q.dynamic ? q.channels : q.channels / q.heads;
    const int64_t deep = ceil_div(fours, kTileFours), block = deep * q.taps * kTileNumbers;
    const int8_t* weights = q.weight + h.head * all * own;
    for (int64_t f = 0; f < deep * kTileFours; ++f) {
        const int8_t* row[4];
        for (int64_t j = 0; j < 4; ++j) {
            const int64_t k = 4 * f + j;
            row[j] = k < h.kept ? weights + (h.index ? h.index[k] : k) * own : none;
        }
        for (int64_t tap = 0; tap < q.taps; ++tap)
            for (int64_t o = 0; o < width; o += 16) {
                // Chosen rows lie apart, where the processor foresees none of them.
                if (h.kept) fetch_weights(q, h, weights, 4 * f + 8, tap * width + o, own);
                int32_t* tile = to + o / 16 * block +
                                (f / kTileFours * q.taps + tap) * kTileNumbers;
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

// What follows the sums of 16 pixels and up to 16 outputs: two blocks of 8.
inline void finish_tile(const Place* at, int64_t height, int64_t i, const int32_t* sums) {
    __m512i r[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) r[j] = _mm512_load_si512(sums + j * 16);
    turn(r);
#pragma GCC unroll 16
    for (int m = 0; m < 16; ++m) {
        const VI sums_of_one[1] = {(VI)r[m]};
        if (m < height) finish8<1>(at[m / kEight], m % kEight, i, sums_of_one);
    }
}

}  // namespace DGC_ISA
#endif
