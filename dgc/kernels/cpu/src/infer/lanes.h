// Convolution of few pixels: vector lanes run over output channels and each pixel is broadcast, so
// that no lane is spent on padding and every weight that is fetched is used at once.
//
// Only for dynamic convolutions whose output lies in one sub-plane (dst.phases 1) and whose heads
// have a multiple of 16 outputs. Weights: [head][block of 32, the last maybe
// 16][channel][tap][output in the block]. `x` holds the selected channels side by side, normalised
// and times their gates, src.plane floats apart. Scratch: dst.height * dst.width * 32 sums, then a
// line of dst.length floats; neither overlaps x. Rows begin and end at multiples of 32, or at outs.
// Called by conv.h.
#pragma once
#include "../common/product.h"
#include "gates.h"
#include "planes.h"

namespace DGC_ISA {

constexpr int64_t kLaneBlock = 32;  // output channels that lie together in these weights (then 16)

struct LaneSource {
    const float* x;  // packed channels, at the tile's first pixel
    int64_t x_step, x_row;
    const float* w;  // [channel][tap][block]
    const float*
        ahead;  // weights to fetch meanwhile: these, a channel or more early, or the next ones
    int64_t block;
    const int32_t* index;  // which channel of the weights the k-th packed one is
    int64_t channels, taps;
    const int64_t* offsets;
    bool more;              // adds to what is in `out`
    const int32_t* coming;  // channels of the piece that comes next
    int64_t coming_channels;
};

// For tiles that go over all channels at once: the weights of the k-th channel's successors, tap by
// tap.
template <int VECTORS>
DGC_INLINE void fetch(const float* next) {
    if (kLanePiece != INT64_MAX) return;
    __builtin_prefetch(next);
    if (VECTORS * VL > 16) __builtin_prefetch(next + 16);
}

// ROWS x COLUMNS pixels x VECTORS vectors of output channels; `out` has `block` floats for each
// pixel. One list of pixels, so that its step is that of every tile: pixel i is in row i / COLUMNS.
template <int ROWS, int COLUMNS, int VECTORS>
__attribute__((noinline)) void lane_tile(const LaneSource& s, float* out, int64_t out_row) {
    constexpr int PIXELS = ROWS * COLUMNS;
    const auto place = [&](int i, int v) {
        return out + i / COLUMNS * out_row + i % COLUMNS * s.block + v * VL;
    };
    V acc[PIXELS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < PIXELS; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) acc[i][v] = s.more ? load(place(i, v)) : V{};
    const int64_t chunk = s.taps * s.block, early = ceil_div(kTapsAhead, s.taps);
    for (int64_t k = 0; k < s.channels; ++k) {
        const float* w = s.w + s.index[k] * chunk;
        const float* next = s.ahead + s.index[smaller(k + early, s.channels - 1)] * chunk;
        const float* x = s.x + k * s.x_step;
        for (int64_t t = 0; t < s.taps; ++t, w += s.block, next += s.block) {
            fetch<VECTORS>(next);
            const float* pixels = x + s.offsets[t];
            add_products(acc, w,
                         [&](int i) { return pixels[i / COLUMNS * s.x_row + i % COLUMNS]; });
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < PIXELS; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) store(place(i, v), acc[i][v]);
}

typedef void (*LaneTile)(const LaneSource&, float*, int64_t);

template <int ROWS, int VECTORS>
LaneTile pick_columns(int64_t columns) {
    return with_width<lane_columns(ROWS)>(
        columns, [](auto n) -> LaneTile { return lane_tile<ROWS, decltype(n)::value, VECTORS>; });
}

template <int ROWS>
LaneTile pick_lanes(int64_t columns, int64_t block) {
    return block < kLaneVectors * VL ? pick_columns<ROWS, 1>(columns)
                                     : pick_columns<ROWS, kLaneVectors>(columns);
}

// For small tiles: with `rows` rows of the image, a share of the weights of the piece that comes
// next.
inline void fetch_share(const LaneSource& s, const float* w, int64_t y, int64_t rows,
                        int64_t height) {
    if (kLanePiece == INT64_MAX) return;
    const int64_t chunk = s.taps * s.block, end = s.coming_channels * (y + rows) / height;
    for (int64_t k = s.coming_channels * y / height; k < end; ++k)
        for (int64_t i = 0; i < chunk; i += 16) __builtin_prefetch(w + s.coming[k] * chunk + i);
}

// All pixels of an image for one block of output channels: out[pixel][block].
// While the second rows are computed from weights that are near by now, those of the next block are
// fetched.
inline void lane_image(LaneSource s, const DgcTensor& t, const float* next_block, float* out) {
    const float *x = s.x, *w = s.w;
    const int64_t wide = smaller(s.block, kLaneVectors * VL);
    for (int64_t y = 0; y < t.height;) {
        const int64_t rows = smaller(kLaneRows, t.height - y),
                      pieces = ceil_div(t.width, lane_columns(int(rows)));
        fetch_share(s, next_block, y, rows, t.height);
        for (int64_t p = 0; p < pieces; ++p) {
            const Range part = cut(t.width, p, pieces);
            const int64_t first = part.begin, columns = part.end - part.begin;
            const LaneTile run = rows == 2 ? pick_lanes<kLaneRows>(columns, s.block)
                                           : pick_lanes<1>(columns, s.block);
            s.x = x + y * s.x_row + first;
            for (int64_t o = 0; o < s.block; o += wide) {
                s.w = w + o;
                s.ahead = (y > 0 && y <= kLaneRows && next_block ? next_block : w) + o;
                run(s, out + (y * t.width + first) * s.block + o, t.width * s.block);
            }
        }
        y += rows;
    }
}

// The same in pieces of channels, each for all pixels while it is near.
inline void lane_pieces(LaneSource s, const DgcTensor& t, const float* next_block, float* out) {
    const int64_t chunk = s.taps * s.block, most = kLanePiece / chunk < 8 ? 8 : kLanePiece / chunk;
    const int64_t all = s.channels, pieces = all > most ? ceil_div(all, most) : 1;
    LaneSource part = s;
    for (int64_t p = 0; p < pieces; ++p) {
        const int64_t first = cut(all, p, pieces).begin, last = cut(all, p, pieces).end;
        part.channels = last - first;
        part.x = s.x + first * s.x_step;
        part.index = s.index + first;
        part.more = p > 0;
        part.coming = p + 1 < pieces ? s.index + last : s.index;
        part.coming_channels = p + 1 < pieces ? all * (p + 2) / pieces - last
                               : next_block   ? all / pieces
                                              : 0;
        lane_image(part, t, p + 1 < pieces ? s.w : next_block, out);
    }
}

// One output channel from out[pixel][block] to its plane, with all that comes behind the sum.
inline void lane_finish(const DgcOp& op, const Context& c, int64_t channel, const float* pixels,
                        int64_t block, float* line) {
    const DgcTensor& t = op.dst;
    for (int64_t y = 0; y < t.height; ++y)
        for (int64_t x = 0; x < t.width; ++x)
            line[y * t.row + x] = pixels[(y * t.width + x) * block];
    const V bias = splat(bias_of(op, c, channel));
    for (int64_t i = 0; i < t.length; i += VL) {
        V y = load(line + i) + bias;
        if (op.has_residual)
            y += load(at(c, op.residual) + channel * op.residual.plane + op.residual.lead + i);
        if (op.relu) y = relu(y);
        store(at(c, t) + channel * t.plane + t.lead + i, keep(y, load_int(mask_of(c, t) + i)));
    }
    activate_plane(op, c, channel);
}

DGC_INLINE int64_t lane_block(int64_t left) {
    return left >= kLaneBlock ? kLaneBlock : 16;
}

// `x` holds the selected channels, packed and scaled; rows are a head's output channels, cut at
// blocks of 32.
inline void lane_rows(const DgcOp& op, const Context& c, const float* x, float* scratch,
                      int64_t head, Range rows) {
    const Selection sel = selection(c, op, head);
    const DgcTensor &s = op.src, &d = op.dst;
    float* line = scratch + d.height * d.width * kLaneBlock;
    DGC_CHECK(d.phases == 1 && op.outs % 16 == 0 && rows.begin % kLaneBlock == 0);
    DGC_CHECK(line + d.length <= c.scratch + c.program->scratch_floats);
    __builtin_memset(line, 0, d.length * 4);
    for (int64_t row = rows.begin; row < rows.end;) {
        const int64_t block = lane_block(op.outs - row);
        const float* w = floats(c, op.weight) + (head * op.outs + row) * op.channels * op.taps;
        const LaneSource from = {
            x,     s.plane,   s.row,      w,       w,
            block, sel.index, *sel.count, op.taps, constant<int64_t>(c, op.offsets),
            false, nullptr,   0};
        const bool more =
            row + 2 * kLaneBlock <= op.outs;  // the next block is laid out like this one
        lane_pieces(from, d, more ? w + kLaneBlock * op.channels * op.taps : nullptr, scratch);
        for (int64_t o = 0; o < block; ++o)
            lane_finish(op, c, (row + o) * op.out_step + head * op.head_step, scratch + o, block,
                        line);
        row += block;
    }
}

}  // namespace DGC_ISA
