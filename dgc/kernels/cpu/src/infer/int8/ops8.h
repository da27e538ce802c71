// The operations of an 8-bit plan beside those that it shares with plans in float32: convolutions
// in bytes, means with the largest magnitudes, and rows of 16-bit weights. Called by items.h,
// in the objects that fuse no products and sums (DGC_EXACT).
#pragma once
#include "../gates.h"
#include "../planes.h"
#include "conv8.h"
#include "pool8.h"
#include "rows16.h"

namespace DGC_ISA {

// The layer as int8_abi.h has it, for the one sample of a context.
inline DgcInt8 layer_of(const DgcOp& op, const Context& c) {
    DgcInt8 q{};
    q.samples = 1, q.image = op.src, q.src = op.bytes.phases ? op.bytes : op.src, q.dst = op.dst;
    q.x = at(c, op.src), q.y = at(c, op.dst);
    q.src_mask = mask_of(c, q.src), q.dst_mask = mask_of(c, op.dst);
    if (op.has_residual) q.residual = at(c, op.residual);
    q.channels = op.channels, q.heads = op.heads, q.outs = op.outs, q.taps = op.taps;
    q.dynamic = op.dynamic, q.offsets = constant<int64_t>(c, op.offsets);
    q.weight = constant<int8_t>(c, op.weight), q.weight_scale = floats(c, op.external);
    if (op.bias) q.bias = floats(c, op.bias);
    if (op.in_scale) q.in_scale = floats(c, op.in_scale), q.in_shift = floats(c, op.in_shift);
    q.is_signed = op.lanes, q.relu = op.relu, q.out_step = op.out_step, q.head_step = op.head_step;
    q.top = at(c, op.in);
    if (op.dynamic) q.list = at(c, op.list);
    if (op.span) q.out_mean = at(c, op.out), q.out_top = at(c, op.panel);
    return q;
}

// Into how many pieces each head's outputs are cut so that all workers get the same.
inline int64_t parts8(const DgcOp& op, int64_t threads) {
    return op.heads % threads == 0 ? 1 : smaller(threads, ceil_div(op.outs, kEight));
}

// A head's convolution whose result nobody reads but a pooling: eight channels at a time are pooled
// while they are near.
inline void pooled_head(const DgcOp& op, const Context& c, int64_t head, Range rows) {
    const DgcInt8 whole = layer_of(op, c);
    DgcInt8 q = whole;
    q.dst = op.unpooled, q.dst_mask = mask_of(c, op.unpooled);
    const Head h = head_of(q, 0, head);
    if (h.broken()) return say_nan(whole, h, rows);
    const Room room = room_of(q);
    float* planes = (float*)((uint8_t*)c.scratch + room.bytes());
    float* line = planes + kEight * q.dst.plane;
    DGC_CHECK(line + q.dst.width + 2 * op.pool_pad + 8 * VL <= c.scratch + c.program->scratch_floats);
    const Packed packed = packed_places(q, h, (uint8_t*)c.scratch, room);
    pack_weights<kEight>(q, h, packed.weights, packed.sums, (const int8_t*)packed.none);
    pack_values(q, h, packed.values);
    for (int64_t first = rows.begin; first < rows.end; first += kEight) {
        Place at_place = place_of(q, h, first, 0);
        at_place.values = packed.values + q.src.lead;
        for (int64_t m = 0; m < kEight; ++m)
            at_place.y[m] = planes + m * q.dst.plane + q.dst.lead;
        one_block(q, packed, at_place, first, 0, used_vectors(q.dst));
        for (int64_t m = 0; m < smaller(kEight, rows.end - first); ++m) {
            const int64_t o = output_channel(q, head, first + m);
            const Pooled plane = {q.dst, op.dst, at_place.y[m],
                                  at(c, op.dst) + o * op.dst.plane + op.dst.lead, line};
            op.pool_kernel == 2 ? pool8<false, 2>(plane, op.pool_pad)
                                : pool8<false, 3>(plane, op.pool_pad);
        }
    }
}

inline void conv8_item(const DgcOp& op, const Context& c, int64_t item, int64_t parts) {
    const int64_t blocks = ceil_div(op.outs, kEight);
    const Range mine = cut(blocks, item % parts, parts);
    const Range rows = {mine.begin * kEight, smaller(op.outs, mine.end * kEight)};
    if (rows.begin >= rows.end) return;
    if (op.unpooled.phases)
        pooled_head(op, c, item / parts, rows);
    else
        convolve_head(layer_of(op, c), 0, item / parts, rows, (uint8_t*)c.scratch);
}

// The statistics of one channel for N readers from `first` on, while it is near: each sees it through
// a BatchNorm and ReLU of its own. bias: [reader][scale, shift][channel]; weight: [reader][mean, top],
// where in the region `out` the image's first channel goes.
template <int N>
inline void stats_of_readers(const DgcOp& op, const Context& c, int64_t channel, int64_t first) {
    const float* norms = floats(c, op.bias) + 2 * first * op.channels + channel;
    const int64_t* places = constant<int64_t>(c, op.weight) + 2 * first;
    const DgcTensor& t = op.src;
    const float* plane = at(c, t) + channel * t.plane + t.lead;
    V scale[N], shift[N], sums[N][16 / VL] = {};
    VI tops[N][16 / VL] = {};
    for (int r = 0; r < N; ++r) {
        scale[r] = splat(norms[2 * r * op.channels]);
        shift[r] = splat(norms[(2 * r + 1) * op.channels]);
    }
    for (int64_t i = 0; i < t.length; i += 16)
#pragma GCC unroll 4
        for (int j = 0; j < 16 / VL; ++j) {
            const V x = load(plane + i + j * VL);
            const VI mask = load_int(mask_of(c, t) + i + j * VL);
#pragma GCC unroll 4
            for (int r = 0; r < N; ++r) {
                const V v = keep(relu(x * scale[r] + shift[r]), mask);
                sums[r][j] += v;
                tops[r][j] = larger_bits(tops[r][j], size_bits(v));
            }
        }
    for (int r = 0; r < N; ++r) {
        Stats found;
        for (int64_t j = 0; j < 16 / VL; ++j)
            store(found.sums + j * VL, sums[r][j]), *(VILoad*)(found.tops + j * VL) = tops[r][j];
        at(c, op.out)[places[2 * r] + channel] = found.mean(t.height * t.width);
        at(c, op.out)[places[2 * r + 1] + channel] = found.top();
    }
}

inline void readers_item(const DgcOp& op, const Context& c, int64_t channel) {
    int64_t r = 0;
    for (; r + 4 <= op.heads; r += 4) stats_of_readers<4>(op, c, channel, r);
    if (r + 2 <= op.heads) stats_of_readers<2>(op, c, channel, r), r += 2;
    if (r < op.heads) stats_of_readers<1>(op, c, channel, r);
}

// Mean and largest magnitude of each channel.
inline void stats_item(const DgcOp& op, const Context& c, int64_t channel) {
    DgcInt8 q{};
    q.image = op.src, q.x = at(c, op.src), q.src_mask = mask_of(c, op.src);
    q.channels = op.channels, q.mean = at(c, op.out), q.top = at(c, op.panel);
    if (op.in_scale) q.in_scale = floats(c, op.in_scale), q.in_shift = floats(c, op.in_shift);
    means_of(q, 0, channel);
}

}  // namespace DGC_ISA
