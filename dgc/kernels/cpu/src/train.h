// Training: forward, gradients of weights and gates, and gradient of the input, each one visit to every sample.
#pragma once
#include "train_tiles.h"

namespace DGC_ISA {

constexpr int64_t kLanePixels = 256;   // up to here lanes run over outputs where there are enough
constexpr int64_t kNearFloats = 6144;  // of pixels that many rows of weights meet

struct Piece {  // pixels [first, first + count) of a 1x1 convolution; everything of any other
    int64_t first, count;
};

DGC_INLINE int64_t pieces(const DgcTrain& t) { return flat(t) ? ceil_div(pixels_in(t), piece(t)) : 1; }

DGC_INLINE Piece piece_at(const DgcTrain& t, int64_t i) {
    const int64_t first = i * piece(t);
    return flat(t) ? Piece{first, smaller(piece(t), pixels_in(t) - first)} : Piece{0, pixels_in(t)};
}

// ---- into scratch ---------------------------------------------------------------------------------------------------

inline void bring_input(const DgcTrain& t, int64_t sample, const Piece& p, const Room& room) {
    const float* x = t.x + sample * t.x_step;
    for (int64_t c = 0; c < t.channels; ++c) {
        float* plane = room.in + c * plane_in(t);
        const float* from = x + c * pixels_in(t);
        if (flat(t)) cut(from + p.first, plane, p.count, affine_of(t, c));
        else spread(t, from, plane, affine_of(t, c), room.line);
    }
}

struct Planes {  // of the output's gradient, at the first pixel of a head's first output
    const float* at;
    int64_t step;
};

// The gradient where whole vectors may be read from it: as it lies, or a copy with zeros around.
inline Planes gradient(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, const Room& room) {
    const float* y = t.y + sample * t.y_step + head * t.head_step * pixels_out(t);
    if (flat(t) && p.count % VL == 0) return {y + p.first, t.out_step * pixels_out(t)};
    float* to = room.out + head * t.outs * plane_out(t);
    for (int64_t j = 0; j < t.outs; ++j) {
        const float* from = y + j * t.out_step * pixels_out(t);
        if (flat(t)) cut(from + p.first, to + j * plane_out(t), p.count, {V{}, V{}, false});
        else spread_output(t, from, to + j * plane_out(t));
    }
    return {to + t.planes.lead, plane_out(t)};
}

DGC_INLINE int64_t vectors_of(const DgcTrain& t, const Piece& p) { return flat(t) ? ceil_div(p.count, VL) : t.planes.length / VL; }

// Where each term of a head finds its pixels.
inline void locate(const DgcTrain& t, const Chosen& s, int32_t* where) {
    for (int64_t k = 0; k < s.count; ++k) {
        const int64_t plane = s.channel(k) * plane_in(t) + t.planes.lead;
        if (flat(t)) where[k] = int32_t(plane);
        else
            for (int64_t i = 0; i < t.taps; ++i)
                where[k * t.taps + i] = int32_t(plane + t.planes.phase[i] * phase_plane(t) + t.planes.shift[i]);
    }
}

// ---- forward --------------------------------------------------------------------------------------------------------

// `blocks` neighbouring blocks of a panel, each [term][MR]: what a cache line brings is used at once.
template <int MR>
inline void fill_blocks(const DgcTrain& t, const float* weight, const Chosen& s, float* to, int64_t blocks) {
    const int64_t step = MR * s.count * t.taps;
    for (int64_t k = 0; k < s.count; ++k) {
        const float *from = weight + s.index[k] * t.taps * t.outs, gate = s.gate[k];
        for (int64_t i = 0; i < t.taps; ++i, from += t.outs, to += MR)
            for (int64_t b = 0; b < blocks; ++b)
                for (int m = 0; m < MR; ++m) to[b * step + m] = from[b * MR + m] * gate;
    }
}

template <int MR>
inline void fill_panel(const DgcTrain& t, const float* weight, const Chosen& s, float* to, int64_t rows) {
    while (rows >= MR) {
        const int64_t blocks = smaller(rows / MR, 32 / MR), n = blocks * MR;
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
    if (!s.index) return {room.in, room.where, weight, t.outs, 0, count, 0};
    fill_panel<kRows>(t, weight, s, room.panel, t.outs);
    return {room.in, room.where, room.panel, 0, 0, count, count};
}

// A span of pixels: so many channels at a time that their pixels stay in the first-level cache.
inline void forward_span(const DgcTrain& t, Terms terms, Rows rows, int64_t vectors) {
    const int64_t reach = flat(t) ? 0 : 2 * t.planes.row, near = larger_of(8, kNearFloats / (vectors * VL + reach)) * t.taps;
    const int64_t all = terms.count, parts = larger_of(1, ceil_div(all, near)), channels = all / t.taps;
    for (int64_t i = 0; i < parts; ++i) {
        terms.first = channels * i / parts * t.taps;
        terms.count = channels * (i + 1) / parts * t.taps - terms.first;
        rows.add = i > 0;
        sweep_terms<kRows>(terms, rows, t.outs, vectors);
    }
}

inline void forward_flat(const DgcTrain& t, Terms terms, float* y, int64_t step, int64_t count, float* line) {
    const int64_t whole = count / VL, rest = count % VL;
    const float* start = terms.x;
    for (int64_t v = 0; v < whole; v += kSpan, terms.x += kSpan * VL)
        forward_span(t, terms, {y + v * VL, step, false}, smaller(kSpan, whole - v));
    if (!rest) return;
    terms.x = start + whole * VL;
    forward_span(t, terms, {line, VL, false}, 1);
    for (int64_t j = 0; j < t.outs; ++j) __builtin_memcpy(y + j * step + whole * VL, line + j * VL, rest * 4);
}

inline void forward_planes(const DgcTrain& t, Terms terms, float* y, int64_t step, float* planes) {
    const int64_t vectors = t.planes.length / VL;
    for (int64_t v = 0; v < vectors; v += kSpan, terms.x += kSpan * VL)
        forward_span(t, terms, {planes + v * VL, t.planes.length, false}, smaller(kSpan, vectors - v));
    for (int64_t j = 0; j < t.outs; ++j)
        for (int64_t r = 0; r < t.out_height; ++r)
            __builtin_memcpy(y + j * step + r * t.out_width, planes + j * t.planes.length + r * t.planes.row, t.out_width * 4);
}

inline void forward_head(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, const Room& room) {
    const Chosen s = chosen(t, sample, head);
    locate(t, s, room.where);
    const Terms terms = terms_of(t, head, s, room);
    float* y = t.y + sample * t.y_step + head * t.head_step * pixels_out(t) + p.first;
    const int64_t step = t.out_step * pixels_out(t);
    if (flat(t)) forward_flat(t, terms, y, step, p.count, room.line);
    else forward_planes(t, terms, y, step, room.out);
}

inline void output_moments(const DgcTrain& t, int64_t sample) {
    if (!t.plane_mean) return;
    for (int64_t o = 0; o < outputs(t); ++o) {
        const int64_t i = sample * outputs(t) + o;
        moments(t.y + sample * t.y_step + o * pixels_out(t), pixels_out(t), t.plane_mean + i, t.plane_square + i);
    }
}

inline void forward_sample(const DgcTrain& t, int64_t sample, int64_t, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        bring_input(t, sample, p, room);
        for (int64_t head = 0; head < t.heads; ++head) forward_head(t, sample, head, p, room);
    }
    output_moments(t, sample);
}

// ---- gradients of weights and gates -----------------------------------------------------------------------------------

DGC_INLINE bool over_outputs(const DgcTrain& t) { return t.outs % VL == 0 && pixels_out(t) <= kLanePixels; }

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
inline void correlate_lanes(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, const Room& room, const Chosen& s,
                            const Heard& to) {
    const int64_t count = s.count * t.taps;
    int32_t *rows = (int32_t*)room.panel, *owner = rows + count;
    for (int64_t i = 0; i < count; ++i) owner[i] = int32_t(i / t.taps), rows[i] = int32_t(s.row(owner[i]) * t.taps + i % t.taps);
    transposed(t, sample, head, p, room.out);
    const int64_t height = flat(t) ? 1 : t.out_height, width = flat(t) ? p.count : t.out_width;
    const Lanes lanes = {room.in, room.where, room.out, t.outs, height, width, t.planes.row, rows, owner, s.gate,
                         to.weight, to.grad, to.gates};
    for (int64_t i = 0; i < count; i += kLaneTerms) sweep_lanes<2>(lanes, smaller(kLaneTerms, count - i), i, t.outs);
}

// The raw sums of one channel, to its weights; what its gate hears is returned.
inline float deposit(const float* raw, const float* weight, float* grad, float gate, int64_t n) {
    V heard = V{};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        const V r = load(raw + i);
        store(grad + i, load(grad + i) + r * gate);
        heard += r * load(weight + i);
    }
    float total = sum(heard);
    for (; i < n; ++i) grad[i] += raw[i] * gate, total += raw[i] * weight[i];
    return total;
}

// Large images: lanes run over pixels; [term][outs] is what the weights would get if all gates were 1.
inline void correlate_pixels(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, const Room& room, const Chosen& s,
                             const Heard& to) {
    const Planes y = gradient(t, sample, head, p, room);
    const int64_t chunk = t.taps * t.outs;
    sweep_pixels<4>({room.in, room.where, y.at, y.step, vectors_of(t, p), room.panel, t.outs}, s.count * t.taps, t.outs);
    for (int64_t k = 0; k < s.count; ++k) {
        const int64_t row = s.row(k) * chunk;
        const float gate = s.gate ? s.gate[k] : 1.0f;
        const float heard = deposit(room.panel + k * chunk, to.weight + row, to.grad + row, gate, chunk);
        if (to.gates) to.gates[k] += heard;
    }
}

inline void weights_head(const DgcTrain& t, int64_t sample, int64_t thread, int64_t head, const Piece& p, const Room& room) {
    const Chosen s = chosen(t, sample, head);
    const Heard to = heard_of(t, sample, thread, head);
    locate(t, s, room.where);
    if (over_outputs(t)) correlate_lanes(t, sample, head, p, room, s, to);
    else correlate_pixels(t, sample, head, p, room, s, to);
}

inline void weights_sample(const DgcTrain& t, int64_t sample, int64_t thread, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        bring_input(t, sample, p, room);
        for (int64_t head = 0; head < t.heads; ++head) weights_head(t, sample, thread, head, p, room);
    }
}

// ---- gradient of the input --------------------------------------------------------------------------------------------

// The taps through which sub-plane `phase` was read: how many, then (weight offset, pixel offset) of each.
inline int64_t* taps_of(const DgcTrain& t, int64_t phase, int64_t* taps) {
    int64_t n = 0;
    for (int64_t i = 0; i < t.taps; ++i) {
        if (!flat(t) && t.planes.phase[i] != phase) continue;
        taps[1 + 2 * n] = i * t.outs;
        taps[2 + 2 * n++] = flat(t) ? 0 : -t.planes.shift[i];
    }
    taps[0] = n;
    return taps;
}

inline void back_head(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p, const Room& room) {
    const Chosen s = chosen(t, sample, head);
    const Planes y = gradient(t, sample, head, p, room);
    const float** w = (const float**)room.panel;
    float** to = (float**)(w + terms(t));
    const int64_t vectors = vectors_of(t, p), phases = flat(t) ? 1 : t.planes.stride * t.planes.stride;
    for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t* taps = taps_of(t, phase, (int64_t*)room.line);
        if (taps[0] == 0) continue;
        for (int64_t k = 0; k < s.count; ++k) {
            w[k] = weights_of(t, head) + s.row(k) * t.taps * t.outs;
            to[k] = room.in + s.channel(k) * plane_in(t) + phase * phase_plane(t) + t.planes.lead;
        }
        const Back b = {y.at, y.step, taps, w, to, s.gate, t.outs, 0};
        for (int64_t v = 0; v < vectors; v += kSpan) sweep_back<kRows>(b, s.count, v * VL, smaller(kSpan, vectors - v));
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
    if (f.affine.on) g = keep(g, ~(x * f.affine.scale + f.affine.shift <= V{}));
    sums.g += g;
    sums.gx += g * (x - f.mean);
    return g * f.factor;
}

inline void finish_row(const Finish& f, const float* grad, const float* x, float* to, int64_t n, Pair& sums) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        const V g = finish_vector(f, load(grad + i), load(x + i), sums);
        store(to + i, f.add ? load(to + i) + g : g);
    }
    if (i == n) return;
    Pair last = {V{}, V{}};
    const V g = finish_vector(f, load_part(grad + i, n - i), load_part(x + i, n - i), last);
    sums.g += first_of(last.g, n - i), sums.gx += first_of(last.gx, n - i);
    store_part(to + i, f.add ? load_part(to + i, n - i) + g : g, n - i);
}

inline Finish finish_of(const DgcTrain& t, int64_t sample, int64_t c) {
    const float pooled = t.grad_pooled ? t.grad_pooled[sample * t.channels + c] : 0.0f;
    return {affine_of(t, c), splat(pooled), splat(t.factor ? t.factor[c] : 1.0f), splat(t.mean ? t.mean[c] : 0.0f), t.add != 0};
}

inline void finish_channel(const DgcTrain& t, int64_t sample, int64_t thread, int64_t c, const Piece& p, const Room& room) {
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
            if (t.planes.stride > 1) join(row, room.line, t.width, t.planes.stride, phase_plane(t)), row = room.line;
            finish_row(f, row, x + y * t.width, to + y * t.width, t.width, sums);
        }
    }
    if (!t.sums) return;
    t.sums[thread * 2 * t.channels + c] += sum(sums.g);
    t.sums[(thread * 2 + 1) * t.channels + c] += sum(sums.gx);
}

inline void back_sample(const DgcTrain& t, int64_t sample, int64_t thread, const Room& room) {
    for (int64_t i = 0; i < pieces(t); ++i) {
        const Piece p = piece_at(t, i);
        __builtin_memset(room.in, 0, t.channels * plane_in(t) * 4);
        for (int64_t head = 0; head < t.heads; ++head) back_head(t, sample, head, p, room);
        for (int64_t c = 0; c < t.channels; ++c) finish_channel(t, sample, thread, c, p, room);
    }
}

}  // namespace DGC_ISA
