// Training: the forward pass, one visit to every sample.
//
// A visit writes only what belongs to its sample (y, plane_mean, plane_square). Scratch: planes of
// the input, a head's output planes, and its panel of weights times gates. Called by train.cpp.
#pragma once
#include "train_pieces.h"

namespace DGC_ISA {

// `blocks` neighbouring blocks of a panel, each [term][MR]: what a cache line brings is used at
// once.
template <int MR>
inline void fill_blocks(const DgcTrain& t, const float* weight, const Chosen& s, float* to,
                        int64_t blocks) {
    const int64_t step = MR * s.count * t.taps;
    for (int64_t k = 0; k < s.count; ++k) {
        const float *from = weight + s.index[k] * t.taps * t.outs, gate = s.gate[k];
        for (int64_t i = 0; i < t.taps; ++i, from += t.outs, to += MR)
            for (int64_t b = 0; b < blocks; ++b)
                for (int m = 0; m < MR; ++m) to[b * step + m] = from[b * MR + m] * gate;
    }
}

template <int MR>
inline void fill_panel(const DgcTrain& t, const float* weight, const Chosen& s, float* to,
                       int64_t rows) {
    while (rows >= MR) {
        // so many blocks side by side as fill whole lines of
        // the cache of `weight`, whose rows are [tap][outs]
        const int64_t blocks = smaller(rows / MR, kPanelRows / MR), n = blocks * MR;
        fill_blocks<MR>(t, weight, s, to, blocks);
        rows -= n, weight += n, to += n * s.count * t.taps;
    }
    if constexpr (MR > 1) {
        if (rows) fill_panel<MR / 2>(t, weight, s, to, rows);
    }
}

// The head's weights of what it chose, times the gates. A static group's lie well already.
inline Terms terms_of(const DgcTrain& t, int64_t head, const Chosen& s, const Room& room) {
    const float* weight = weights_of(t, head);
    const int64_t count = s.count * t.taps;
    // a static group has no gates to multiply with: its weights are read where they lie
    if (!s.index) return {room.in, room.where, weight, t.outs, 0, count, 0};
    fill_panel<kRows>(t, weight, s, room.panel, t.outs);
    return {room.in, room.where, room.panel, 0, 0, count, count};
}

// A span of pixels: so many channels at a time that their pixels stay in the first-level cache.
inline void forward_span(const DgcTrain& t, Terms terms, Rows rows, int64_t vectors) {
    // the taps of a wider kernel read a row before and a row behind the span, too
    const int64_t reach = flat(t) ? 0 : 2 * t.planes.row,
                  near = larger_of(8, kNearFloats / (vectors * VL + reach)) * t.taps;
    const int64_t all = terms.count, parts = larger_of(1, ceil_div(all, near)),
                  channels = all / t.taps;
    for (int64_t i = 0; i < parts; ++i) {
        // cut between channels, never between the taps of one, whose pixels are the same
        terms.first = channels * i / parts * t.taps;
        terms.count = channels * (i + 1) / parts * t.taps - terms.first;
        // the first part writes, the others add: what lies there before is never read
        rows.add = i > 0;
        sweep_terms<kRows>(terms, rows, t.outs, vectors);
    }
}

inline void forward_flat(const DgcTrain& t, Terms terms, float* y, int64_t step, int64_t count,
                         float* line) {
    const int64_t whole = count / VL, rest = count % VL;
    const float* start = terms.x;
    for (int64_t v = 0; v < whole; v += kSpan, terms.x += kSpan * VL)
        forward_span(t, terms, {y + v * VL, step, false}, smaller(kSpan, whole - v));
    if (!rest) return;
    // the last pixels through a line of scratch: a whole vector would write over the next output
    terms.x = start + whole * VL;
    forward_span(t, terms, {line, VL, false}, 1);
    for (int64_t j = 0; j < t.outs; ++j)
        __builtin_memcpy(y + j * step + whole * VL, line + j * VL, rest * 4);
}

inline void forward_planes(const DgcTrain& t, Terms terms, float* y, int64_t step, float* planes) {
    const int64_t vectors = t.planes.length / VL;
    for (int64_t v = 0; v < vectors; v += kSpan, terms.x += kSpan * VL)
        forward_span(t, terms, {planes + v * VL, t.planes.length, false},
                     smaller(kSpan, vectors - v));
    for (int64_t j = 0; j < t.outs; ++j)
        // rows lie apart in planes, with what the taps computed on padding between them
        for (int64_t r = 0; r < t.out_height; ++r)
            __builtin_memcpy(y + j * step + r * t.out_width,
                             planes + j * t.planes.length + r * t.planes.row, t.out_width * 4);
}

inline void forward_head(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p,
                         const Room& room) {
    const Chosen s = chosen(t, sample, head);
    locate(t, s, room.where);
    const Terms terms = terms_of(t, head, s, room);
    float* y = t.y + sample * t.y_step + head * t.head_step * pixels_out(t) + p.first;
    const int64_t step = t.out_step * pixels_out(t);
    if (flat(t))
        forward_flat(t, terms, y, step, p.count, room.line);
    else
        forward_planes(t, terms, y, step, room.out);
}

inline void output_moments(const DgcTrain& t, int64_t sample) {
    if (!t.plane_mean) return;
    for (int64_t o = 0; o < outputs(t); ++o) {
        const int64_t i = sample * outputs(t) + o;
        moments(t.y + sample * t.y_step + o * pixels_out(t), pixels_out(t), t.plane_mean + i,
                t.plane_square + i);
    }
}

inline void forward_sample(const DgcTrain& t, int64_t sample, int64_t, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        bring_input(t, sample, p, room);
        // heads inside of the piece: they read the same pixels, which are near
        for (int64_t head = 0; head < t.heads; ++head) forward_head(t, sample, head, p, room);
    }
    output_moments(t, sample);
}

}  // namespace DGC_ISA
