// Direct convolution of selected (or a group's own) channels, any kernel, stride and dilation.
//
// Weights: [head or group][block of outputs][input channel][tap][output in the block], blocks as
// block_of cuts them; `offsets` says where a tap lies in a source of src.phases = stride *
// dst.phases sub-planes, whose `lead` covers the taps that look beyond it
// (dgc/kernels/cpu/layout.py). Four roads, by what the operation says (dgc/infer/conv.py chooses): a
// 1x1 packs its selected channels per span (point_span); few pixels take scaled copies of whole
// planes (kernel_scaled, or lanes.h); many pixels, for a 1x1 also few outputs, take a panel of
// scaled weights (kernel_span); a static group reads its own channels (kernel_span). Scratch: see
// the checks in point_span and kernel_scaled. dst overlaps no input but the residual, which is read
// just before it is written. An item is a head (or a share of its rows), or a span of pixels. Called
// by items.h.
#pragma once
#include "lanes.h"
#include "tile.h"

namespace DGC_ISA {

constexpr int64_t kMostParts = 4;  // sub-planes of an output that lanes take

struct Span {  // vectors [first, first + count) of one output sub-plane
    int64_t subplane, first, count;
};

DGC_INLINE Sink sink_at(const DgcOp& op, const Context& c, int64_t head, int64_t row,
                        const Span& q) {
    const int64_t channel = row * op.out_step + head * op.head_step, i = q.first * VL;
    const auto place = [&](const DgcTensor& t) {
        return at(c, t) + channel * t.plane + q.subplane * t.phase_plane + t.lead + i;
    };
    Sink s = {};
    s.bias_step = op.out_step;
    const bool six = op.act == DGC_RELU6 && !op.has_residual;
    s.relu = op.relu != 0 || six;
    s.most = six ? 6.0f : __builtin_inff();
    if (op.bias) s.bias = floats(c, op.bias) + channel;
    s.dst = place(op.dst), s.step = op.out_step * op.dst.plane;
    if (op.has_residual)
        s.residual = place(op.residual), s.residual_step = op.out_step * op.residual.plane;
    s.mask = mask_of(c, op.dst) + q.subplane * op.dst.length + i;
    return s;
}

// All output channels [from, to) of a head over one span; `source` comes with its pixels, its
// weights are set here.
inline void conv_rows(const DgcOp& op, const Context& c, Source source, const float* weight,
                      int64_t per_row, int64_t head, Range rows, const Span& q) {
    DGC_CHECK(rows.begin >= 0 && rows.begin <= rows.end && rows.end <= op.outs);
    for (int64_t row = rows.begin; row < rows.end;) {
        const int64_t whole = row / kBlock * kBlock,
                      start = op.outs - whole < kBlock ? row : whole;  // of this block
        source.block = block_of(op.outs - start);
        source.w = weight + start * per_row + (row - start);
        const bool next = source.w_index && op.outs - start >= 2 * kBlock && start + kBlock < rows.end;
        source.ahead = next ? weight + (start + kBlock) * per_row : nullptr;
        source.w_step = op.taps * source.block;
        const int64_t height = smaller(start + source.block, rows.end) - row;
        const Sink sink = sink_at(op, c, head, row, q);
        sweep(source, sink, height, q.count);
        if (op.act != DGC_NO_ACT && sink.most > 6.0f)  // while the rows are near
            activate_rows(op, sink.dst, height, sink.step, sink.mask, q.count);
        row += height;
    }
}

// One selected channel: BatchNorm, ReLU and its gate in one go (the gate is positive, so it moves
// inside the ReLU).
inline void pack_span(const DgcOp& op, const Context& c, const float* from, const int32_t* mask,
                      float* to, int64_t channel, float gate, int64_t vectors) {
    const V scale = splat((op.in_scale ? floats(c, op.in_scale)[channel] : 1.0f) * gate);
    const V shift = splat((op.in_shift ? floats(c, op.in_shift)[channel] : 0.0f) * gate);
    for (int64_t v = 0; v < vectors; ++v) {
        V x = load(from + v * VL) * scale + shift;
        if (op.in_relu) x = relu(x);
        store(to + v * VL, mask ? keep(x, load_int(mask + v * VL)) : x);
    }
}

// 1x1: the selected channels of one span, side by side in the worker's scratch, then all the head's
// outputs from there.
inline void point_span(const DgcOp& op, const Context& c, int64_t head, Range rows, const Span& q) {
    const Selection s = selection(c, op, head);
    const int64_t width = q.count * VL, per_row = op.channels;
    DGC_CHECK(*s.count * width <= c.program->scratch_floats);
    DGC_CHECK((q.first + q.count) * VL <= op.dst.length);
    const float* from =
        at(c, op.src) + op.src.lead + constant<int64_t>(c, op.offsets)[q.subplane] + q.first * VL;
    for (int64_t k = 0; k < *s.count; ++k)
        pack_span(op, c, from + s.index[k] * op.src.plane, nullptr, c.scratch + k * width,
                  s.index[k], s.gate[k], q.count);
    const Source source = {c.scratch, nullptr, width, nullptr, s.index, 0, 0, *s.count, 1, nullptr};
    conv_rows(op, c, source, floats(c, op.weight) + head * op.outs * per_row, per_row, head, rows,
              q);
}

// Vectors of pixels that the packed channels of a 1x1 may span.
inline int64_t point_vectors(const DgcOp& op) {
    const int64_t kept = op.channels - op.inactive;
    const int64_t vectors = kPointFloats / (kept * VL) / 3 * 3;
    return vectors < 3 ? 3 : vectors > 24 ? 24 : vectors;
}

DGC_INLINE int64_t row_unit(const DgcOp& op) {
    return op.lanes ? kLaneBlock : 8;
}  // blocks of 16 may be cut in two

inline Range rows_of(const DgcOp& op, int64_t part, int64_t parts) {
    const int64_t unit = row_unit(op), blocks = ceil_div(op.outs, unit);
    const Range mine = cut(blocks, part, parts);
    return {smaller(op.outs, mine.begin * unit), smaller(op.outs, mine.end * unit)};
}

// On few pixels each head's selected planes, times their gates, are copied; weights are read where
// they lie.
inline void scaled_planes(const DgcOp& op, const Context& c, int64_t head) {
    const Selection s = selection(c, op, head);
    const DgcTensor& t = op.src;
    const float* from = at(c, t);
    for (int64_t k = 0; k < *s.count; ++k)
        for (int64_t p = 0; p < subplanes(t); ++p) {
            float* to = c.scratch + k * t.plane + p * t.phase_plane;
            __builtin_memset(to, 0, t.lead * 4);
            pack_span(op, c, from + s.index[k] * t.plane + p * t.phase_plane + t.lead,
                      mask_of(c, t) + p * t.length, to + t.lead, s.index[k], s.gate[k],
                      t.length / VL);
        }
    __builtin_memset(c.scratch + *s.count * t.plane, 0, (t.lead + 4 * kAlign) * 4);
}

// Of a 1x1 only what its tap meets: [channel][output sub-plane][pixel], where a strided one leaves
// three pixels of four alone.
inline void scaled_pixels(const DgcOp& op, const Context& c, int64_t head) {
    const Selection s = selection(c, op, head);
    const int64_t parts = subplanes(op.dst), vectors = used_vectors(op.dst);
    const int64_t* offsets = constant<int64_t>(c, op.offsets);
    const float* from = at(c, op.src) + op.src.lead;
    DGC_CHECK(*s.count * parts * op.dst.length <= c.program->scratch_floats);
    for (int64_t k = 0; k < *s.count; ++k)
        for (int64_t p = 0; p < parts; ++p)
            pack_span(op, c, from + s.index[k] * op.src.plane + offsets[p], nullptr,
                      c.scratch + (k * parts + p) * op.dst.length, s.index[k], s.gate[k], vectors);
}

// Where the sums of lanes lie in the scratch: behind all channels, of which NaN may let every one
// through.
DGC_INLINE int64_t lane_sums_at(const DgcOp& op) {
    const DgcTensor &s = op.src, &d = op.dst;
    return op.taps == 1 ? op.channels * subplanes(d) * d.length
                        : op.channels * s.plane + s.lead + 4 * kAlign;
}

inline void lane_head(const DgcOp& op, const Context& c, int64_t head, Range rows) {
    float* sums = c.scratch + lane_sums_at(op);
    if (op.taps > 1) {
        scaled_planes(op, c, head);
        return lane_rows(op, c,
                         {c.scratch + op.src.lead, op.src.plane, constant<int64_t>(c, op.offsets)},
                         sums, head, rows);
    }
    scaled_pixels(op, c, head);
    const int64_t length = op.dst.length, parts = subplanes(op.dst);
    int64_t places[kMostParts];
    DGC_CHECK(parts <= kMostParts);
    for (int64_t p = 0; p < parts; ++p) places[p] = p * length;
    lane_rows(op, c, {c.scratch, parts * length, places}, sums, head, rows);
}

inline void kernel_scaled(const DgcOp& op, const Context& c, int64_t head, Range rows) {
    if (op.lanes) return lane_head(op, c, head, rows);
    const Selection s = selection(c, op, head);
    const DgcTensor& t = op.src;
    DGC_CHECK(*s.count * t.plane + t.lead + 4 * kAlign <= c.program->scratch_floats);
    scaled_planes(op, c, head);
    const float* x = c.scratch + t.lead;
    const int64_t per_row = op.channels * op.taps;
    for (int64_t p = 0; p < subplanes(op.dst); ++p) {
        const Source source = {
            x, nullptr, t.plane,  nullptr, s.index,
            0, 0,       *s.count, op.taps, constant<int64_t>(c, op.offsets) + p * op.taps};
        conv_rows(op, c, source, floats(c, op.weight) + head * op.outs * per_row, per_row, head,
                  rows, {p, 0, used_vectors(op.dst)});
    }
}

// k x k with the weights scaled beforehand (scale_panel), or static: group `head` reads its own
// channels.
inline void kernel_span(const DgcOp& op, const Context& c, int64_t head, Range rows,
                        const Span& q) {
    const int64_t i = q.first * VL;
    DGC_CHECK(i + q.count * VL <= op.dst.length && (!op.dynamic || op.scale_weights));
    const float* x = at(c, op.src) + op.src.lead + i;
    const int64_t* offsets = constant<int64_t>(c, op.offsets) + q.subplane * op.taps;
    if (op.dynamic) {
        const Selection s = selection(c, op, head);
        const Source source = {x, s.index, op.src.plane, nullptr, nullptr,
                               0, 0,       *s.count,     op.taps, offsets};
        const float* panel = at(c, op.panel) + head * op.outs * op.channels * op.taps;
        return conv_rows(op, c, source, panel, *s.count * op.taps, head, rows, q);
    }
    const int64_t own = op.channels / op.heads, per_row = own * op.taps;
    const Source source = {x + head * own * op.src.plane,
                           nullptr,
                           op.src.plane,
                           nullptr,
                           nullptr,
                           0,
                           0,
                           own,
                           op.taps,
                           offsets};
    conv_rows(op, c, source, floats(c, op.weight) + head * op.outs * per_row, per_row, head, rows,
              q);
}

inline void conv_span(const DgcOp& op, const Context& c, int64_t head, Range rows, const Span& q) {
    if (op.taps == 1 && op.dynamic && !op.scale_weights) return point_span(op, c, head, rows, q);
    kernel_span(op, c, head, rows, q);
}

// Spans of one output: [subplane][piece].
struct Spans {
    int64_t per_subplane, vectors, length;
    int64_t count;
    Span get(int64_t i) const {
        const int64_t first = i % per_subplane * vectors;
        return {i / per_subplane, first, smaller(vectors, length - first)};
    }
};

inline Spans spans_of(const DgcOp& op, int64_t threads) {
    const int64_t length = used_vectors(op.dst);
    const bool point = op.taps == 1 && op.dynamic && !op.scale_weights;
    int64_t vectors = smaller(length, point ? point_vectors(op) : kSpan);
    // Some for each worker, but tiles of three vectors stay whole.
    if (threads > 1) vectors = smaller(vectors, ceil_div(ceil_div(length, 4 * threads), 3) * 3);
    const int64_t pieces = ceil_div(length, vectors);
    return {pieces, vectors, length, pieces * subplanes(op.dst)};
}

// `parts`: into how many pieces each head's rows are cut so that all workers get the same.
inline int64_t row_parts(const DgcOp& op, const Context& c) {
    return op.heads % c.threads == 0 ? 1 : smaller(c.threads, ceil_div(op.outs, row_unit(op)));
}

// All pixels of a head at once, from a scaled copy of its channels.
DGC_INLINE bool from_copy(const DgcOp& op) {
    return op.dynamic && !op.scale_weights && (op.taps > 1 || op.lanes);
}

inline void conv_item(const DgcOp& op, const Context& c, int64_t item, int64_t parts) {
    const int64_t head = item / parts;
    const Range rows = rows_of(op, item % parts, parts);
    if (rows.begin == rows.end) return;
    if (from_copy(op)) return kernel_scaled(op, c, head, rows);
    const Spans spans = spans_of(op, 1);
    for (int64_t i = 0; i < spans.count; ++i) conv_span(op, c, head, rows, spans.get(i));
}

// Workers share the spans of a large image, the heads (or rows) of a small one. What the other worker
// has written is far away: with spans each reads half of the pixels and all weights, with heads half
// of the weights and most pixels.
inline bool by_spans(const DgcOp& op, const Context& c) {
    if (from_copy(op)) return false;
    if (c.threads == 1) return true;
    return op.dst.height * op.dst.width >= op.heads * op.outs &&
           spans_of(op, c.threads).count >= 2 * c.threads;
}

// A head's outputs over one span.
inline void span_item(const DgcOp& op, const Context& c, int64_t item) {
    conv_span(op, c, item % op.heads, {0, op.outs}, spans_of(op, c.threads).get(item / op.heads));
}

}  // namespace DGC_ISA
