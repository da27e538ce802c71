// The operations of an 8-bit plan beside those that it shares with plans in float32: convolutions
// in bytes, means with the largest magnitudes, and rows of 16-bit weights. Called by executor.cpp,
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
    q.samples = 1, q.src = op.src, q.dst = op.dst;
    q.x = at(c, op.src), q.y = at(c, op.dst);
    q.src_mask = mask_of(c, op.src), q.dst_mask = mask_of(c, op.dst);
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

inline void conv8_item(const DgcOp& op, const Context& c, int64_t item, int64_t parts) {
    const int64_t blocks = ceil_div(op.outs, kEight);
    const Range mine = cut(blocks, item % parts, parts);
    const Range rows = {mine.begin * kEight, smaller(op.outs, mine.end * kEight)};
    if (rows.begin < rows.end)
        convolve_head(layer_of(op, c), 0, item / parts, rows, (uint8_t*)c.scratch);
}

// Mean and largest magnitude of each channel.
inline void stats_item(const DgcOp& op, const Context& c, int64_t channel) {
    DgcInt8 q{};
    q.src = op.src, q.x = at(c, op.src), q.src_mask = mask_of(c, op.src);
    q.channels = op.channels, q.mean = at(c, op.out), q.top = at(c, op.panel);
    if (op.in_scale) q.in_scale = floats(c, op.in_scale), q.in_shift = floats(c, op.in_shift);
    means_of(q, 0, channel);
}

}  // namespace DGC_ISA
