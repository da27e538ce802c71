// Training: max-pool of relu(x * scale + shift), which keeps a byte for each maximum, so that
// nothing is pooled again on the way back.
//
// Ties go to the first in order of rows, NaN wins, as in PyTorch. A plane is activated once into a
// worker's scratch, split by the stride, with kBelow around it, which is below every value there.
// Called by norm.cpp.
#pragma once
#include "norm_rows.h"

namespace DGC_ISA {

constexpr float kBelow = -1.0f;
typedef uint8_t Bytes __attribute__((vector_size(VL)));

struct PoolRows {  // of a plane in scratch: `stride` parts of each padded row, `part` floats each
    int64_t part, row;
};

DGC_INLINE PoolRows pool_rows(const DgcNorm& t) {
    // a vector beyond the last output may be read
    const int64_t reach = round_up(t.out_width) + t.kernel / t.stride + 1;
    const int64_t part = round_up(larger_of(reach, (t.width + 2 * t.padding) / t.stride + 1));
    return {part, part * t.stride};
}

inline int64_t pool_room(const DgcNorm& t) {
    const int64_t forward = pool_rows(t).row * t.height + round_up(t.width + 2 * t.padding);
    return larger_of(forward, round_up(t.height * t.width)) + kGuard;
}

inline void pool_fill(const DgcNorm& t, const NormPlane& p, float* plane, float* line) {
    const PoolRows g = pool_rows(t);
    const Affine a = {splat(t.scale[p.c]), splat(t.shift[p.c]), true};
    for (int64_t y = 0; y < t.height; ++y) {
        activate(p.x + y * t.width, line + t.padding, t.width, a);
        split(line, plane + y * g.row, t.width + 2 * t.padding, t.stride, g.part);
    }
}

struct Maxima {
    V value;
    VI place;
};

DGC_INLINE void pool_meet(Maxima& m, V v, int place) {
    const VI wins = (v > m.value) | ~(v == v);
    m.value = wins ? v : m.value;
    m.place = wins ? VI{} + place : m.place;
}

inline void pool_forward(const DgcNorm& t, const NormPlane& p, int64_t sample, float* scratch) {
    const PoolRows g = pool_rows(t);
    float *plane = scratch, *line = scratch + g.row * t.height;
    pool_fill(t, p, plane, line);
    const int64_t n = t.out_height * t.out_width;
    float* y = t.y + sample * t.y_step + p.c * n;
    uint8_t* place = t.place + p.at * n;
    for (int64_t o = 0; o < t.out_height; ++o, y += t.out_width, place += t.out_width)
        for (int64_t i = 0; i < t.out_width; i += VL) {
            Maxima m = {splat(kBelow), VI{}};
            for (int64_t ky = 0; ky < t.kernel; ++ky) {
                const int64_t r = o * t.stride - t.padding + ky;
                if (r < 0 || r >= t.height) continue;
                for (int64_t kx = 0; kx < t.kernel; ++kx)
                    pool_meet(m, load(plane + r * g.row + kx % t.stride * g.part + kx / t.stride + i),
                              int(ky * t.kernel + kx));
            }
            const int64_t k = smaller(VL, t.out_width - i);
            put(y + i, m.value, k);
            m.place = m.value <= V{} ? VI{} + int(kNoPlace) : m.place;
            const Bytes bytes = __builtin_convertvector(m.place, Bytes);
            __builtin_memcpy(place + i, &bytes, k);
        }
    if (t.plane_mean) moments(y - n, n, t.plane_mean + p.at, t.plane_square + p.at);
}

// Calls visit(gradient, pixel of the plane) for each maximum that hears something.
template <class F>
DGC_INLINE void each_maximum(const DgcNorm& t, const NormPlane& p, int64_t sample, const F& visit) {
    const int64_t n = t.out_height * t.out_width, k = t.kernel;
    int64_t jump[kNoPlace];
    for (int64_t i = 0; i < k * k; ++i) jump[i] = i / k * t.width + i % k;
    const float* grad = t.grad + sample * t.grad_step + p.c * n;
    const uint8_t* place = t.place + p.at * n;
    for (int64_t o = 0; o < t.out_height; ++o) {
        const int64_t start = (o * t.stride - t.padding) * t.width - t.padding;
        for (int64_t i = 0; i < t.out_width; ++i, ++grad, ++place)
            if (*place != kNoPlace) visit(*grad, start + i * t.stride + jump[*place]);
    }
}

inline void pool_sums(const DgcNorm& t, const NormPlane& p, int64_t sample, double* sums) {
    double sum_g = 0, sum_gx = 0;
    const float mean = t.mean[p.c];
    each_maximum(t, p, sample, [&](float g, int64_t pixel) {
        sum_g += g, sum_gx += double(g * (p.x[pixel] - mean));
    });
    sums[p.c] += sum_g, sums[t.channels + p.c] += sum_gx;
}

inline void pool_back(const DgcNorm& t, NormPlane p, int64_t sample, float* scratch) {
    __builtin_memset(scratch, 0, p.n * 4);
    each_maximum(t, p, sample, [&](float g, int64_t pixel) { scratch[pixel] += g; });
    p.grad = scratch;
    norm_back(t, p);
}

// ---- means ----

inline void mean_forward(const DgcNorm& t, const NormPlane& p, int64_t sample) {
    const int64_t k = t.kernel, n = t.out_height * t.out_width;
    float* y = t.y + sample * t.y_step + p.c * n;
    const float area = float(k * k);
    for (int64_t o = 0; o < t.out_height; ++o, y += t.out_width)
        for (int64_t i = 0; i < t.out_width; ++i) {
            float total = 0;
            for (int64_t ky = 0; ky < k; ++ky)
                for (int64_t kx = 0; kx < k; ++kx)
                    total += p.x[(o * k + ky) * t.width + i * k + kx];
            y[i] = total / area;
        }
}

inline void mean_back(const DgcNorm& t, const NormPlane& p, int64_t sample) {
    const int64_t k = t.kernel, n = t.out_height * t.out_width;
    const float* grad = t.grad + sample * t.grad_step + p.c * n;
    const float area = float(k * k);
    for (int64_t y = 0; y < t.height; ++y) {
        float* to = p.to + y * t.width;
        const float* from = grad + y / k * t.out_width;
        // what no window takes gets nothing
        const int64_t inside = y < t.out_height * k ? t.out_width * k : 0;
        if (k == 2)
            for (int64_t i = 0; i < inside / 2; ++i) to[2 * i] = to[2 * i + 1] = from[i] / area;
        else
            for (int64_t i = 0; i < inside; ++i) to[i] = from[i / k] / area;
        for (int64_t i = inside; i < t.width; ++i) to[i] = 0;
    }
}

}  // namespace DGC_ISA
