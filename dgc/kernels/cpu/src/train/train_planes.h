// Training: pixels on their way into a worker's scratch and back, sums over planes, and which
// channels each head reads.
//
// A worker's scratch (Room) has floats_room() floats and is cut here; its planes start zeroed, and
// only pixels are written into them, so what lies between rows stays zero. Tensors are read to the
// last float and not beyond: rows that are no multiple of a vector go through load_part and
// store_part. Called by train_pieces.h and what includes it.
#pragma once
#include "../common/rows.h"
#include "../common/selection.h"
#include "../common/tuning.h"
#include "train_abi.h"

namespace DGC_ISA {

constexpr int64_t kGuard = 64;  // floats behind the last plane that a tile may read

DGC_INLINE int64_t pixels_in(const DgcTrain& t) {
    return t.height * t.width;
}
DGC_INLINE int64_t pixels_out(const DgcTrain& t) {
    return t.out_height * t.out_width;
}
DGC_INLINE int64_t outputs(const DgcTrain& t) {
    return t.heads * t.outs;
}
DGC_INLINE bool flat(const DgcTrain& t) {
    return t.planes.length == 0;
}

// Pixels of a piece of a 1x1 convolution.
DGC_INLINE int64_t piece(const DgcTrain& t) {
    // a multiple of 48: the widest tile of every vector length (3 x 16, 3 x 8, 3 x 4) divides it
    const int64_t fit = kFlatFloats / (t.channels + outputs(t)) / 48 * 48,
                  all = round_up(pixels_in(t));
    return smaller(all, larger_of(fit, 96));
}

DGC_INLINE int64_t phase_plane(const DgcTrain& t) {
    return t.planes.lead + t.planes.length;
}
DGC_INLINE int64_t plane_in(const DgcTrain& t) {
    return flat(t) ? piece(t) : t.planes.stride * t.planes.stride * phase_plane(t);
}
DGC_INLINE int64_t plane_out(const DgcTrain& t) {
    return flat(t) ? piece(t) : phase_plane(t);
}
DGC_INLINE int64_t floats_in(const DgcTrain& t) {
    return round_up(t.channels * plane_in(t) + t.planes.lead + kGuard);
}
DGC_INLINE int64_t floats_out(const DgcTrain& t) {
    return round_up(outputs(t) * plane_out(t) + t.planes.lead + kGuard);
}
DGC_INLINE int64_t terms(const DgcTrain& t) {
    return (t.own ? t.own : t.kept) * t.taps;
}

// A worker's scratch, in floats: input planes, output planes, weights of a head, positions of its
// terms, a line.
struct Room {
    float *in, *out, *panel, *line;
    int32_t* where;
};

DGC_INLINE int64_t floats_panel(const DgcTrain& t) {
    return round_up(larger_of(terms(t) * t.outs, 4 * terms(t)) + kGuard);
}
DGC_INLINE int64_t floats_line(const DgcTrain& t) {
    return round_up(larger_of(2 * t.width, t.outs * kAlign) + 4 * t.taps + kGuard);
}
DGC_INLINE int64_t floats_room(const DgcTrain& t) {
    return floats_in(t) + floats_out(t) + floats_panel(t) + round_up(terms(t)) + floats_line(t);
}

DGC_INLINE Room room_of(const DgcTrain& t, int64_t thread) {
    DGC_CHECK(thread >= 0 && thread < t.threads && t.scratch_step >= floats_room(t));
    float* in = t.scratch + thread * t.scratch_step;
    float *out = in + floats_in(t), *panel = out + floats_out(t), *where = panel + floats_panel(t);
    return {in, out, panel, where + round_up(terms(t)), (int32_t*)where};
}

// ---- which channels ----

struct Chosen {  // a head's channels and their gates; null: a static group's own, one after the
                 // other
    int64_t count, first;
    const int32_t* index;
    const float* gate;
    DGC_INLINE int64_t channel(int64_t k) const { return index ? index[k] : first + k; }
    DGC_INLINE int64_t row(int64_t k) const {
        return index ? index[k] : k;
    }  // of the head's weights
};

DGC_INLINE Chosen chosen(const DgcTrain& t, int64_t sample, int64_t head) {
    if (t.own) return {t.own, head * t.own, nullptr, nullptr};
    const int64_t i = sample * t.heads + head;
    DGC_CHECK(t.count[i] >= 0 && t.count[i] <= t.kept);
    return {t.count[i], 0, t.index + i * t.kept, t.gate + i * t.kept};
}

DGC_INLINE const float* weights_of(const DgcTrain& t, int64_t head) {
    return t.weight + head * (t.own ? t.own : t.channels) * t.taps * t.outs;
}

// Every gate <= the n-th smallest is off, ties included; so is a gate of zero (see select_head).
inline void choose(const DgcTrain& t, int64_t sample, int64_t head, int32_t* bits) {
    const int64_t i = sample * t.heads + head;
    t.count[i] = select_channels(t.gates + i * t.channels, t.channels, t.inactive, t.kept, bits,
                                 t.index + i * t.kept, t.gate + i * t.kept);
}

// ---- rows ----

DGC_INLINE V load_part(const float* from, int64_t n) {
    float part[VL] = {};
    __builtin_memcpy(part, from, n * 4);
    return load(part);
}

DGC_INLINE void store_part(float* to, V v, int64_t n) {
    float part[VL];
    store(part, v);
    __builtin_memcpy(to, part, n * 4);
}

struct Affine {  // relu(x * scale + shift), or x
    V scale, shift;
    bool on;
    DGC_INLINE V operator()(V x) const { return on ? relu(x * scale + shift) : x; }
};

DGC_INLINE Affine affine_of(const DgcTrain& t, int64_t channel) {
    if (!t.scale) return {V{}, V{}, false};
    return {splat(t.scale[channel]), splat(t.shift[channel]), true};
}

inline void activate(const float* from, float* to, int64_t n, const Affine& a) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) store(to + i, a(load(from + i)));
    if (i < n) store_part(to + i, a(load_part(from + i, n - i)), n - i);
}

DGC_INLINE float* row_in(const DgcTrain& t, float* plane, int64_t y) {
    const DgcPlanes& g = t.planes;
    return plane + y % g.stride * g.stride * phase_plane(t) + g.lead + y / g.stride * g.row;
}

// One channel of a sample, activated, to its plane; whatever lies between the rows there stays as
// it is (zero).
inline void spread(const DgcTrain& t, const float* from, float* plane, const Affine& a,
                   float* line) {
    for (int64_t y = 0; y < t.height; ++y, from += t.width) {
        float* to = row_in(t, plane, y);
        if (t.planes.stride == 1) {
            activate(from, to, t.width, a);
        } else {
            activate(from, line, t.width, a);
            split(line, to, t.width, t.planes.stride, phase_plane(t));
        }
    }
}

// A piece of a channel of a 1x1 convolution; zeros fill the last vector.
inline void fill_piece(const float* from, float* to, int64_t n, const Affine& a) {
    activate(from, to, n, a);
    for (int64_t i = n; i < round_up(n); ++i) to[i] = 0.0f;
}

inline void spread_output(const DgcTrain& t, const float* from, float* plane) {
    for (int64_t y = 0; y < t.out_height; ++y, from += t.out_width)
        __builtin_memcpy(plane + t.planes.lead + y * t.planes.row, from, t.out_width * 4);
}

// ---- sums over a plane ----

template <class F>
DGC_INLINE double total(int64_t n,
                        const F& value) {  // value(i, count): a vector, with zeros behind `count`
    V a = V{}, b = V{};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL)
        a += value(i, int64_t(VL)), b += value(i + VL, int64_t(VL));
    for (; i < n; i += VL) a += value(i, smaller(VL, n - i));
    return sum(a + b);
}

DGC_INLINE V first_of(V v, int64_t n) {
    if (n == VL) return v;
    float part[VL] = {};
    store_part(part, v, n);
    return load(part);
}

DGC_INLINE V some(const float* from, int64_t n) {
    return n == VL ? load(from) : load_part(from, n);
}

// Mean, and sum of squares around it: the plane is near, so a second look costs little and nothing
// cancels.
inline void moments(const float* plane, int64_t n, float* mean, float* square) {
    const double m = total(n, [&](int64_t i, int64_t k) { return some(plane + i, k); }) / double(n);
    const V middle = splat(float(m));
    *mean = float(m);
    *square = float(total(n, [&](int64_t i, int64_t k) {
        const V d = some(plane + i, k) - middle;
        return first_of(d * d, k);
    }));
}

inline void pooled(const DgcTrain& t, int64_t sample, int64_t channel) {
    const int64_t n = pixels_in(t);
    const float* plane = t.x + sample * t.x_step + channel * n;
    const Affine a = affine_of(t, channel);
    const double s =
        total(n, [&](int64_t i, int64_t k) { return first_of(a(some(plane + i, k)), k); });
    t.plane_mean[sample * t.channels + channel] = float(s / double(n));
}

}  // namespace DGC_ISA
