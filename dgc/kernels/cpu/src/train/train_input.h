// Training: the gradient of the input, one visit to every sample.
//
// A visit adds up what all heads give to the planes of `a` (in scratch, zeroed for each piece), and
// then takes them through ReLU and BatchNorm to grad_x, which it writes or adds to, and to its
// thread's `sums`. Called by train.cpp.
#pragma once
#include "train_pieces.h"

namespace DGC_ISA {

// The taps through which sub-plane `phase` was read: how many, then (weight offset, pixel offset)
// of each.
inline int64_t* taps_of(const DgcTrain& t, int64_t phase, int64_t* taps) {
    int64_t n = 0;
    for (int64_t i = 0; i < t.taps; ++i) {
        // a tap reads one sub-plane, so the gradient that comes through it goes to that one alone
        if (!flat(t) && t.planes.phase[i] != phase) continue;
        taps[1 + 2 * n] = i * t.outs;
        taps[2 + 2 * n++] = flat(t) ? 0 : -t.planes.shift[i];
    }
    taps[0] = n;
    return taps;
}

inline void back_head(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p,
                      const Room& room) {
    const Chosen s = chosen(t, sample, head);
    const Planes y = gradient(t, sample, head, p, room);
    const float** w = (const float**)room.panel;
    float** to = (float**)(w + terms(t));
    const int64_t vectors = vectors_of(t, p),
                  phases = flat(t) ? 1 : t.planes.stride * t.planes.stride;
    for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t* taps = taps_of(t, phase, (int64_t*)room.line);
        // with a stride wider than the kernel some pixels are never read: they get nothing
        if (taps[0] == 0) continue;
        for (int64_t k = 0; k < s.count; ++k) {
            // pointers for a tile: chosen channels lie apart, in the weights and in the planes
            w[k] = weights_of(t, head) + s.row(k) * t.taps * t.outs;
            to[k] = room.in + s.channel(k) * plane_in(t) + phase * phase_plane(t) + t.planes.lead;
        }
        const Back b = {y.at, y.step, taps, w, to, s.gate, t.outs, 0};
        for (int64_t v = 0; v < vectors; v += kSpan)
            sweep_back<kRows>(b, s.count, v * VL, smaller(kSpan, vectors - v));
    }
}

struct Finish {  // one channel of one sample
    Affine affine;
    V pooled, factor, mean;
    bool add;
};

struct Pair {
    V g, gx;
};

DGC_INLINE V finish_vector(const Finish& f, V grad, V x, Pair& sums) {
    V g = grad + f.pooled;
    // ReLU lets through where its input is above zero,
    // or NaN: the negation keeps a broken value visible
    if (f.affine.on) g = keep(g, ~(x * f.affine.scale + f.affine.shift <= V{}));
    // before the factor: BatchNorm's backward wants the sums of g itself (see native_norm.py)
    sums.g += g;
    sums.gx += g * (x - f.mean);
    return g * f.factor;
}

inline void finish_row(const Finish& f, const float* grad, const float* x, float* to, int64_t n,
                       Pair& sums) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        const V g = finish_vector(f, load(grad + i), load(x + i), sums);
        store(to + i, f.add ? load(to + i) + g : g);
    }
    if (i == n) return;
    // a partial vector's sums apart: its lanes beyond the row are no pixels
    Pair last = {V{}, V{}};
    const V g = finish_vector(f, load_part(grad + i, n - i), load_part(x + i, n - i), last);
    sums.g += first_of(last.g, n - i), sums.gx += first_of(last.gx, n - i);
    store_part(to + i, f.add ? load_part(to + i, n - i) + g : g, n - i);
}

inline Finish finish_of(const DgcTrain& t, int64_t sample, int64_t c) {
    const float pooled = t.grad_pooled ? t.grad_pooled[sample * t.channels + c] : 0.0f;
    return {affine_of(t, c), splat(pooled), splat(t.factor ? t.factor[c] : 1.0f),
            splat(t.mean ? t.mean[c] : 0.0f), t.add != 0};
}

inline void finish_channel(const DgcTrain& t, int64_t sample, int64_t thread, int64_t c,
                           const Piece& p, const Room& room) {
    const Finish f = finish_of(t, sample, c);
    const int64_t start = c * pixels_in(t) + p.first;
    const float* x = t.x + sample * t.x_step + start;
    float *to = t.grad_x + sample * t.grad_x_step + start, *plane = room.in + c * plane_in(t);
    Pair sums = {V{}, V{}};
    if (flat(t)) {
        finish_row(f, plane, x, to, p.count, sums);
    } else {
        for (int64_t y = 0; y < t.height; ++y) {
            const float* row = row_in(t, plane, y);
            if (t.planes.stride > 1)
                join(row, room.line, t.width, t.planes.stride, phase_plane(t)), row = room.line;
            finish_row(f, row, x + y * t.width, to + y * t.width, t.width, sums);
        }
    }
    // lanes are added up once a channel and sample, into double: a thread sums over its whole share
    if (!t.sums) return;
    t.sums[thread * 2 * t.channels + c] += sum(sums.g);
    t.sums[(thread * 2 + 1) * t.channels + c] += sum(sums.gx);
}

inline void back_sample(const DgcTrain& t, int64_t sample, int64_t thread, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        // all heads add to the same planes, so what the last piece left must go
        __builtin_memset(room.in, 0, t.channels * plane_in(t) * 4);
        for (int64_t head = 0; head < t.heads; ++head) back_head(t, sample, head, p, room);
        for (int64_t c = 0; c < t.channels; ++c) finish_channel(t, sample, thread, c, p, room);
    }
}

}  // namespace DGC_ISA
