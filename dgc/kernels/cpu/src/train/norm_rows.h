// Training: BatchNorm with ReLU and a sum, forward and both ways back, one plane at a time.
//
// A plane is read once and written once; sums of a plane go to its thread's. Called by norm.cpp.
#pragma once
#include "norm_abi.h"
#include "train_planes.h"

namespace DGC_ISA {

struct NormPlane {  // one channel of one sample
    const float *x, *other, *grad;
    float *y, *to;
    int64_t n, c, at;  // pixels, channel, place among all planes
};

inline NormPlane norm_plane(const DgcNorm& t, int64_t sample, int64_t c) {
    const int64_t n = t.height * t.width;
    const auto of = [&](auto* base, int64_t step) {
        return base ? base + sample * step + c * n : base;
    };
    return {of(t.x, t.x_step), of(t.other, t.other_step), of(t.grad, t.grad_step),
            of(t.y, t.y_step), of(t.to, t.to_step), n, c, sample * t.channels + c};
}

// Whole vectors by load and store, the last pixels by their parts.
template <class F>
DGC_INLINE void each_vector(int64_t n, const F& visit) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) visit(i, int64_t(VL));
    if (i < n) visit(i, n - i);
}

DGC_INLINE void put(float* to, V v, int64_t n) {
    if (n == VL)
        store(to, v);
    else
        store_part(to, v, n);
}

DGC_INLINE V at_channel(const float* values, int64_t c, float otherwise) {
    return splat(values ? values[c] : otherwise);
}

inline void norm_relu(const DgcNorm& t, const NormPlane& p) {
    const V scale = splat(t.scale[p.c]), shift = splat(t.shift[p.c]);
    const V more = at_channel(t.other_scale, p.c, 1), behind = at_channel(t.other_shift, p.c, 0);
    if (!p.other)
        each_vector(p.n, [&](int64_t i, int64_t k) {
            put(p.y + i, relu(some(p.x + i, k) * scale + shift), k);
        });
    else
        each_vector(p.n, [&](int64_t i, int64_t k) {
            const V o = some(p.other + i, k) * more + behind;
            put(p.y + i, relu(some(p.x + i, k) * scale + shift + o), k);
        });
    if (t.plane_mean) moments(p.y, p.n, t.plane_mean + p.at, t.plane_square + p.at);
}

inline void norm_mask(const DgcNorm& t, const NormPlane& p, double* sums) {
    const V scale = at_channel(t.scale, p.c, 1), shift = at_channel(t.shift, p.c, 0);
    const V a = at_channel(t.a, p.c, 0), b = at_channel(t.b, p.c, 0);
    const V mean = splat(t.mean[p.c]), its = at_channel(t.other_mean, p.c, 0);
    V sum_g = V{}, sum_gx = V{}, sum_go = V{};
    // a mean of the plane gives each pixel the same
    const V all = splat(p.grad ? 0.0f : t.plane_mean[p.at]);
    const bool own = !p.y, apart = t.other_mean != nullptr;
    each_vector(p.n, [&](int64_t i, int64_t k) {
        const V x = some(p.x + i, k), u = own ? x * scale + shift : some(p.y + i, k);
        V g = p.grad ? some(p.grad + i, k) : all;
        if (t.a) g += relu(u) * a + b;
        // the negation keeps NaN visible, as everywhere
        g = first_of(keep(g, ~(u <= V{})), k);
        sum_g += g, sum_gx += g * (x - mean);
        if (apart) sum_go += g * (some(p.other + i, k) - its);
        put(p.to + i, g, k);
    });
    sums[p.c] += sum(sum_g);
    sums[t.channels + p.c] += sum(sum_gx);
    if (apart) sums[2 * t.channels + p.c] += sum(sum_go);
}

inline void norm_back(const DgcNorm& t, const NormPlane& p) {
    const V scale = splat(t.scale[p.c]), a = splat(t.a[p.c]), b = splat(t.b[p.c]);
    each_vector(p.n, [&](int64_t i, int64_t k) {
        put(p.to + i, some(p.grad + i, k) * scale + (some(p.x + i, k) * a + b), k);
    });
}

// Rows of 16 by columns of 16, so that lines of the cache are used whole on both sides.
inline void turn(const DgcNorm& t, int64_t sample) {
    const int64_t rows = t.height, columns = t.width, edge = 16;
    const float* from = t.x + sample * t.x_step;
    float* to = t.y + sample * t.y_step;
    for (int64_t c = 0; c < columns; c += edge)
        for (int64_t r = 0; r < rows; r += edge) {
            const int64_t h = smaller(edge, rows - r), w = smaller(edge, columns - c);
            for (int64_t i = 0; i < w; ++i)
                for (int64_t j = 0; j < h; ++j)
                    to[(c + i) * rows + r + j] = from[(r + j) * columns + c + i];
        }
}

}  // namespace DGC_ISA
