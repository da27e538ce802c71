// Convolution of few pixels: vector lanes run over output channels and each pixel is broadcast, so
// that no lane is spent on padding and every weight that is fetched is used at once.
//
// Only for dynamic convolutions whose heads have a multiple of 16 outputs; sub-planes of the output
// one after the other. Weights: [head][block of 32, the last maybe 16][channel][tap][output in the
// block]. The source holds the selected channels side by side, normalised and times their gates.
// Scratch: 32 sums for each pixel of a sub-plane, then a line of dst.length floats; neither overlaps
// the source. Rows begin and end at multiples of 32, or at outs. Called by conv.h.
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
    int64_t block;
    const int32_t* index;  // which channel of the weights the k-th packed one is
    int64_t channels, taps;
    const int64_t* offsets;
    bool more;              // adds to what is in `out`
    const int32_t* coming;  // channels of the piece that comes next
    int64_t coming_channels;
    // Of tiles that go over all channels at once: weights to fetch meanwhile, entries [first, end) of a
    // list, evenly over the tile's channels.
    const float* ahead = nullptr;
    const int32_t* ahead_index = nullptr;
    int64_t ahead_first = 0, ahead_end = 0;
};

// Which of its weights come next only the list says, so nothing but this brings them nearer: into the
// second-level cache, for the first has no room for a block.
DGC_INLINE void fetch_channel(const float* w, int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(w + i, 0, 2);
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
    const int64_t chunk = s.taps * s.block, coming = s.ahead_end - s.ahead_first;
    int64_t ahead = s.ahead_first, due = 0;
    for (int64_t k = 0; k < s.channels; ++k) {
        if (kLanePiece == INT64_MAX && (due += coming) >= s.channels) {
            due -= s.channels;
            fetch_channel(s.ahead + s.ahead_index[ahead++] * chunk, chunk);
        }
        const float* w = s.w + s.index[k] * chunk;
        const float* x = s.x + k * s.x_step;
        for (int64_t t = 0; t < s.taps; ++t, w += s.block) {
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

struct Coming {  // weights that are needed next, laid out as those of now
    const float* w;  // null: nobody knows
    const int32_t* index;
    int64_t channels;
    int64_t pixels, of;  // of the image, those that are done, and all
};

// The share of the next weights that is fetched with the next `pixels` pixels; where nobody knows
// them, the channels that this block itself comes to.
inline void share_ahead(LaneSource* s, const Coming& next, int64_t pixels, bool first) {
    s->ahead = nullptr, s->ahead_first = s->ahead_end = 0;
    if (kLanePiece != INT64_MAX) return;
    if (first) {
        const int64_t early = smaller(ceil_div(kTapsAhead, s->taps), s->channels);
        s->ahead = s->w, s->ahead_index = s->index;
        s->ahead_first = early, s->ahead_end = s->channels;
    } else if (next.w) {
        s->ahead = next.w, s->ahead_index = next.index;
        s->ahead_first = next.channels * next.pixels / next.of;
        s->ahead_end = next.channels * (next.pixels + pixels) / next.of;
    }
}

// All pixels of a sub-plane for one block of output channels: out[pixel][block]. `cold`: nobody has
// fetched its weights.
inline void lane_image(LaneSource s, const Pixels& t, Coming next, bool cold, float* out) {
    const float *x = s.x, *w = s.w;
    const int64_t wide = smaller(s.block, kLaneVectors * VL);
    for (int64_t y = 0; y < t.height;) {
        const int64_t rows = smaller(kLaneRows, t.height - y),
                      pieces = ceil_div(t.width, lane_columns(int(rows)));
        fetch_share(s, next.w, y, rows, t.height);
        for (int64_t p = 0; p < pieces; ++p) {
            const Range part = cut(t.width, p, pieces);
            const int64_t first = part.begin, columns = part.end - part.begin;
            const LaneTile run = rows == 2 ? pick_lanes<kLaneRows>(columns, s.block)
                                           : pick_lanes<1>(columns, s.block);
            s.x = x + y * s.x_row + first;
            s.w = w;
            share_ahead(&s, next, rows * columns, cold && y == 0 && p == 0);
            next.pixels += rows * columns;
            for (int64_t o = 0; o < s.block; o += wide) {
                s.w = w + o;
                run(s, out + (y * t.width + first) * s.block + o, t.width * s.block);
            }
        }
        y += rows;
    }
}

// The same in pieces of channels, each for all pixels while it is near.
inline void lane_pieces(LaneSource s, const Pixels& t, const Coming& next, bool cold, float* out) {
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
                               : next.w       ? all / pieces
                                              : 0;
        Coming then = next;
        if (p + 1 < pieces) then.w = s.w;
        lane_image(part, t, then, cold && p == 0, out);
    }
}

// One output channel from out[pixel][block] to a sub-plane, with all that comes behind the sum. `line`
// is zero where there is no pixel.
inline void lane_finish(const DgcOp& op, const Context& c, int64_t channel, int64_t subplane,
                        const float* sums, int64_t block, float* line) {
    const DgcTensor &t = op.dst, &r = op.residual;
    const Pixels pixels = pixels_of(t, subplane);
    for (int64_t y = 0; y < pixels.height; ++y)
        for (int64_t x = 0; x < pixels.width; ++x)
            line[y * t.row + x] = sums[(y * pixels.width + x) * block];
    const V bias = splat(bias_of(op, c, channel));
    const int32_t* mask = mask_of(c, t) + subplane * t.length;
    float* to = at(c, t) + channel * t.plane + subplane * t.phase_plane + t.lead;
    for (int64_t i = 0; i < t.length; i += VL) {
        V y = load(line + i) + bias;
        if (op.has_residual)
            y += load(at(c, r) + channel * r.plane + subplane * r.phase_plane + r.lead + i);
        if (op.relu) y = relu(y);
        store(to + i, keep(y, load_int(mask + i)));
    }
    if (op.act != DGC_NO_ACT) activate(op, to, mask, t.length / VL);
}

DGC_INLINE int64_t lane_block(int64_t left) {
    return left >= kLaneBlock ? kLaneBlock : 16;
}

// `x` holds the selected channels, packed and scaled, `x_step` apart; tap t of sub-plane p lies
// `offsets[p * taps + t]` from the output's place. Rows are a head's output channels, cut at blocks of
// 32.
struct LaneInput {
    const float* x;
    int64_t x_step;
    const int64_t* offsets;
};

inline void lane_rows(const DgcOp& op, const Context& c, const LaneInput& input, float* sums,
                      int64_t head, Range rows) {
    const Selection sel = selection(c, op, head);
    const DgcTensor &s = op.src, &d = op.dst;
    const Pixels most = pixels_of(d, 0);
    float* line = sums + most.height * most.width * kLaneBlock;
    DGC_CHECK(op.outs % 16 == 0 && rows.begin % kLaneBlock == 0);
    DGC_CHECK(line + d.length <= c.scratch + c.program->scratch_floats);
    const int64_t subplanes = d.phases * d.phases;
    for (int64_t row = rows.begin; row < rows.end;) {
        const int64_t block = lane_block(op.outs - row);
        const float* w = floats(c, op.weight) + (head * op.outs + row) * op.channels * op.taps;
        LaneSource from = {};
        from.x = input.x, from.x_step = input.x_step, from.x_row = s.row;
        from.w = w, from.block = block, from.index = sel.index;
        from.channels = *sel.count, from.taps = op.taps;
        Coming next = {nullptr, sel.index, *sel.count, 0, d.height * d.width};
        // the next block is laid out like this one
        if (row + 2 * kLaneBlock <= op.outs) next.w = w + kLaneBlock * op.channels * op.taps;
        for (int64_t p = 0; p < subplanes; ++p) {
            const Pixels pixels = pixels_of(d, p);
            const bool last = p + 1 == subplanes, cold = row == rows.begin && p == 0;
            from.offsets = input.offsets + p * op.taps;
            Coming then = next;
            if (kLanePiece != INT64_MAX && !last) then.w = nullptr;
            lane_pieces(from, pixels, then, cold, sums);
            next.pixels += pixels.height * pixels.width;
            __builtin_memset(line, 0, d.length * 4);
            for (int64_t o = 0; o < block; ++o)
                lane_finish(op, c, (row + o) * op.out_step + head * op.head_step, p, sums + o,
                            block, line);
        }
        row += block;
    }
}

}  // namespace DGC_ISA
