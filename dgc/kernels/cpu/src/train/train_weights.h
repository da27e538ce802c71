// Training: the gradients of weights and gates, one visit to every sample.
//
// A visit adds to its thread's grad_weight and writes its sample's grad_gate: no sum is shared
// between threads, so results depend on their number alone. The activated input is computed again
// from x: nothing is kept between passes. Called by train.cpp.
#pragma once
#include "train_pieces.h"

namespace DGC_ISA {

DGC_INLINE bool over_outputs(const DgcTrain& t) {
    // few pixels are few steps of a sum over pixels, whose lanes must be
    // added up in the end; many outputs fill lanes that need no such sum
    return t.outs % VL == 0 && pixels_out(t) <= kLanePixels;
}

// The gradient of a head as [pixel][outs].
inline void transposed(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, float* to) {
    const float* y = t.y + sample * t.y_step + head * t.head_step * pixels_out(t) + p.first;
    const int64_t step = t.out_step * pixels_out(t), count = flat(t) ? p.count : pixels_out(t);
    for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < t.outs; ++j) to[i * t.outs + j] = y[j * step + i];
}

struct Heard {  // a head's weights, their gradients, and those of its gates (null: no gates)
    const float* weight;
    float *grad, *gates;
};

inline Heard heard_of(const DgcTrain& t, int64_t sample, int64_t thread, int64_t head) {
    const int64_t all = t.heads * (t.own ? t.own : t.channels) * t.taps * t.outs;
    const float* weight = weights_of(t, head);
    float* gates = t.own ? nullptr : t.grad_gate + (sample * t.heads + head) * t.kept;
    return {weight, t.grad_weight + thread * all + (weight - t.weight), gates};
}

// Small images: lanes run over outputs.
inline void correlate_lanes(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p,
                            const Room& room, const Chosen& s, const Heard& to) {
    const int64_t count = s.count * t.taps;
    int32_t *rows = (int32_t*)room.panel, *owner = rows + count;
    for (int64_t i = 0; i < count; ++i)
        // a tile takes terms of several channels, so each
        // term says which weights and which gate are its own
        owner[i] = int32_t(i / t.taps), rows[i] = int32_t(s.row(owner[i]) * t.taps + i % t.taps);
    transposed(t, sample, head, p, room.out);
    // a piece of a 1x1 convolution is one long row
    const int64_t height = flat(t) ? 1 : t.out_height, width = flat(t) ? p.count : t.out_width;
    const Lanes lanes = {room.in, room.where, room.out, t.outs,    height,  width,   t.planes.row,
                         rows,    owner,      s.gate,   to.weight, to.grad, to.gates};
    for (int64_t i = 0; i < count; i += kLaneTerms)
        sweep_lanes<kLaneOutputs>(lanes, smaller(kLaneTerms, count - i), i, t.outs);
}

// The raw sums of one channel, to its weights; what its gate hears is returned.
inline float deposit(const float* raw, const float* weight, float* grad, float gate, int64_t n) {
    V heard = V{};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        const V r = load(raw + i);
        // y depends on w * g: its gradient times g is the weight's, times w the gate's
        store(grad + i, load(grad + i) + r * gate);
        heard += r * load(weight + i);
    }
    float total = sum(heard);
    for (; i < n; ++i) grad[i] += raw[i] * gate, total += raw[i] * weight[i];
    return total;
}

// Large images: lanes run over pixels; [term][outs] is what the weights would get if all gates
// were 1.
inline void correlate_pixels(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p,
                             const Room& room, const Chosen& s, const Heard& to) {
    const Planes y = gradient(t, sample, head, p, room);
    const int64_t chunk = t.taps * t.outs;
    sweep_pixels<kTermOutputs>(
        {room.in, room.where, y.at, y.step, vectors_of(t, p), room.panel, t.outs}, s.count * t.taps,
        t.outs);
    for (int64_t k = 0; k < s.count; ++k) {
        const int64_t row = s.row(k) * chunk;
        const float gate = s.gate ? s.gate[k] : 1.0f;
        const float heard =
            deposit(room.panel + k * chunk, to.weight + row, to.grad + row, gate, chunk);
        // a gate's gradient comes together from all pieces of the image
        if (to.gates) to.gates[k] += heard;
    }
}

inline void weights_head(const DgcTrain& t, int64_t sample, int64_t thread, int64_t head,
                         const Piece& p, const Room& room) {
    const Chosen s = chosen(t, sample, head);
    const Heard to = heard_of(t, sample, thread, head);
    locate(t, s, room.where);
    if (over_outputs(t))
        correlate_lanes(t, sample, head, p, room, s, to);
    else
        correlate_pixels(t, sample, head, p, room, s, to);
}

inline void weights_sample(const DgcTrain& t, int64_t sample, int64_t thread, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        bring_input(t, sample, p, room);
        for (int64_t head = 0; head < t.heads; ++head)
            weights_head(t, sample, thread, head, p, room);
    }
}

}  // namespace DGC_ISA
