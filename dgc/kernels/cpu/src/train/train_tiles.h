// Training: the three register tiles. All sums run over terms: a channel's pixels, seen through one
// tap, times a weight.
//
// Tiles read and write whole vectors: planes lie in a worker's scratch, with kGuard floats behind
// the last one. Weights are [head][channel][tap][outs], so MR of them side by side are MR
// neighbouring outputs (sum_pixels takes any number of outputs, sum_lanes only whole vectors). What
// is written overlaps nothing that is read. Called by train_pieces.h and what includes it.
#pragma once
#include "../common/product.h"
#include "train_planes.h"

namespace DGC_ISA {

// ---- forward: rows of outputs x vectors of pixels ----

struct Terms {  // term i: pixels at x + where[i], weights at w + i * step
    const float* x;
    const int32_t* where;
    const float* w;
    int64_t step, first, count;
    int64_t panel;  // terms of a panel, whose rows lie in blocks of [term][rows]; 0: `step` holds
                    // all rows
};

struct Rows {  // of pixels, `step` apart, written or added to
    float* to;
    int64_t step;
    bool add;
};

template <int MR, int NV>
__attribute__((noinline)) void sum_terms(const Terms& t, const Rows& r) {
    V acc[MR][NV] = {};
    for (int64_t i = 0; i < t.count; ++i) {
        const float* w = t.w + i * t.step;
        // a term's vectors are loaded once and meet all MR outputs while they are in registers
        add_products(acc, t.x + t.where[i], [&](int m) { return w[m]; });
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            float* to = r.to + m * r.step + v * VL;
            store(to, r.add ? load(to) + acc[m][v] : acc[m][v]);
        }
}

// ---- backward to the input: rows of chosen channels x vectors of pixels, summed over outputs and
// taps ---------------

struct Back {
    const float* x;  // gradient planes of the head's outputs, at the tile's first pixel
    int64_t x_step;
    const int64_t* taps;    // how many, then (weight offset, pixel offset) of each
    const float* const* w;  // a row of weights for each channel
    float* const* to;       // a plane for each channel
    const float* gate;      // null: 1
    int64_t outs, first;    // `first`: pixel of the tile
};

template <int MR, int NV>
__attribute__((noinline)) void sum_outputs(const Back& b) {
    V acc[MR][NV] = {};
    const int64_t taps = b.taps[0];
    for (int64_t t = 0; t < taps; ++t) {
        const float* w[MR];
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) w[m] = b.w[m] + b.taps[1 + 2 * t];
        const float* x = b.x + b.first + b.taps[2 + 2 * t];
        for (int64_t j = 0; j < b.outs; ++j)
            add_products(acc, x + j * b.x_step, [&](int m) { return w[m][j]; });
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        float* to = b.to[m] + b.first;
        const V gate = splat(b.gate ? b.gate[m] : 1.0f);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(to + v * VL, load(to + v * VL) + acc[m][v] * gate);
    }
}

// Halves added until one is left.
template <int N>
struct Wide {
    typedef float T __attribute__((vector_size(N * 4)));
};

template <int N>
DGC_INLINE float across(typename Wide<N>::T v) {
    if constexpr (N == 1) {
        return v[0];
    } else {
        typename Wide<N / 2>::T half[2];
        __builtin_memcpy(half, &v, sizeof(v));
        return across<N / 2>(half[0] + half[1]);
    }
}

// ---- backward to the weights: terms x outputs, summed over pixels ----

struct Correlate {
    const float* x;        // input planes
    const int32_t* where;  // of each term
    const float* y;        // gradient planes of the outputs
    int64_t y_step, vectors;
    float* to;  // [terms][outs]
    int64_t to_step;
};

template <int NT, int MJ>
__attribute__((noinline)) void sum_pixels(const Correlate& c) {
    V acc[NT][MJ] = {};
    const float *x[NT], *y = c.y;
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) x[t] = c.x + c.where[t];
    for (int64_t i = 0; i < c.vectors * VL; i += VL) {
        V pixels[MJ];
#pragma GCC unroll 8
        for (int j = 0; j < MJ; ++j) pixels[j] = load(y + j * c.y_step + i);
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) {
            const V a = load(x[t] + i);
#pragma GCC unroll 8
            for (int j = 0; j < MJ; ++j) acc[t][j] += a * pixels[j];
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t)
#pragma GCC unroll 8
        for (int j = 0; j < MJ; ++j) c.to[t * c.to_step + j] = across<VL>(acc[t][j]);
}

// The same where images are small and outputs many: lanes run over outputs, `y` is [pixel][outs],
// and the sums go straight to the weights they belong to, and to the gates.
struct Lanes {
    const float* x;
    const int32_t* where;
    const float* y;
    int64_t outs, height, width, row;
    const int32_t* rows;   // of each term, among the head's rows of weights
    const int32_t* owner;  // of each term: which of the chosen channels
    const float *gate, *weight;
    float *grad, *heard;  // as `weight`, as `gate`
};

template <int NJ>
DGC_INLINE void settle(const Lanes& s, int64_t term, const V (&raw)[NJ]) {
    const float *w = s.weight + s.rows[term] * s.outs, gate = s.gate ? s.gate[s.owner[term]] : 1.0f;
    // straight to where they belong: raw sums of all terms would not stay near
    float* grad = s.grad + s.rows[term] * s.outs;
    V heard = V{};
#pragma GCC unroll 8
    for (int j = 0; j < NJ; ++j) {
        store(grad + j * VL, load(grad + j * VL) + raw[j] * gate);
        heard += raw[j] * load(w + j * VL);
    }
    if (s.heard) s.heard[s.owner[term]] += across<VL>(heard);
}

template <int NT, int NJ>
__attribute__((noinline)) void sum_lanes(const Lanes& s, int64_t term) {
    V acc[NT][NJ] = {};
    const float* y = s.y;
    int64_t where[NT];
#pragma GCC unroll 16
    for (int t = 0; t < NT; ++t) where[t] = s.where[term + t];
    for (int64_t r = 0; r < s.height; ++r) {
        const float* x = s.x + r * s.row;
        for (int64_t i = 0; i < s.width; ++i, y += s.outs)
            add_products(acc, y, [&](int t) { return x[where[t] + i]; });
    }
#pragma GCC unroll 16
    for (int t = 0; t < NT; ++t) settle<NJ>(s, term + t, acc[t]);
}

// ---- over a whole head ----

// `rows` outputs over `vectors` vectors of pixels.
template <int MR>
inline void sweep_terms(Terms t, Rows r, int64_t rows, int64_t vectors) {
    for (; rows >= MR; rows -= MR, t.w += t.panel ? MR * t.panel : MR, r.to += MR * r.step) {
        const int64_t pieces = ceil_div(vectors, widest(MR));
        for (int64_t p = 0; p < pieces; ++p) {
            const Range wide = cut(vectors, p, pieces);
            Terms from = t;
            from.x += wide.begin * VL;
            if (t.panel) from.step = MR;
            from.w += t.first * from.step, from.where += t.first;
            const Rows to = {r.to + wide.begin * VL, r.step, r.add};
            with_width<widest(MR)>(wide.end - wide.begin,
                                   [&](auto nv) { sum_terms<MR, decltype(nv)::value>(from, to); });
        }
    }
    if constexpr (MR > 1) {
        if (rows) sweep_terms<MR / 2>(t, r, rows, vectors);
    }
}

template <int MR>
inline void sweep_back(Back b, int64_t rows, int64_t first, int64_t vectors) {
    for (; rows >= MR; rows -= MR, b.w += MR, b.to += MR, b.gate += b.gate ? MR : 0) {
        const int64_t pieces = ceil_div(vectors, widest(MR));
        for (int64_t p = 0; p < pieces; ++p) {
            const Range wide = cut(vectors, p, pieces);
            b.first = first + wide.begin * VL;
            with_width<widest(MR)>(wide.end - wide.begin,
                                   [&](auto nv) { sum_outputs<MR, decltype(nv)::value>(b); });
        }
    }
    if constexpr (MR > 1) {
        if (rows) sweep_back<MR / 2>(b, rows, first, vectors);
    }
}

template <int MJ>
inline void sweep_pixels(Correlate c, int64_t count, int64_t outs) {
    for (; outs >= MJ; outs -= MJ, c.y += MJ * c.y_step, c.to += MJ)
        for (int64_t t = 0; t < count; t += kTerms) {
            Correlate part = c;
            part.where += t;
            part.to += t * c.to_step;
            with_width<kTerms>(smaller(kTerms, count - t),
                               [&](auto n) { sum_pixels<decltype(n)::value, MJ>(part); });
        }
    if constexpr (MJ > 1) {
        if (outs) sweep_pixels<MJ / 2>(c, count, outs);
    }
}

// Some terms and all of a head's outputs, so that rows of weights are walked along.
template <int NJ>
inline void sweep_lanes(Lanes s, int64_t terms, int64_t term, int64_t outs) {
    for (; outs >= NJ * VL; outs -= NJ * VL, s.y += NJ * VL, s.weight += NJ * VL, s.grad += NJ * VL)
        with_width<kLaneTerms>(terms, [&](auto n) { sum_lanes<decltype(n)::value, NJ>(s, term); });
    if constexpr (NJ > 1) {
        if (outs) sweep_lanes<NJ / 2>(s, terms, term, outs);
    }
}

}  // namespace DGC_ISA
