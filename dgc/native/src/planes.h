// What works on whole planes: input, output, means, repacking, pooling, addition.
#pragma once
#include "context.h"

namespace DGC_ISA {

DGC_INLINE int64_t subplanes(const DgcTensor& t) { return t.phases * t.phases; }

template <int S>
inline void split_row(const float* from, float* to, int64_t width, int64_t step) {
    for (int p = 0; p < S; ++p)
        for (int64_t x = p; x < width; x += S) to[p * step + x / S] = from[x];
}

// A contiguous row of the image to its place in a tensor.
inline void scatter_row(const DgcTensor& t, float* plane, int64_t y, const float* from) {
    float* to = pixel(t, plane, y, 0);
    if (t.phases == 1) return (void)__builtin_memcpy(to, from, t.width * 4);
    if (t.phases == 2) return split_row<2>(from, to, t.width, t.phase_plane);
    for (int64_t x = 0; x < t.width; ++x) to[(x % t.phases) * t.phase_plane + x / t.phases] = from[x];
}

inline void gather_row(const DgcTensor& t, const float* plane, int64_t y, float* to) {
    const float* from = pixel(t, (float*)plane, y, 0);
    if (t.phases == 1) return (void)__builtin_memcpy(to, from, t.width * 4);
    for (int64_t x = 0; x < t.width; ++x) to[x] = from[(x % t.phases) * t.phase_plane + x / t.phases];
}

inline void input_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const int64_t area = op.dst.height * op.dst.width;
    const float* from = c.run->input + c.sample * c.run->program->in_floats + channel * area;
    float* plane = at(c, op.dst) + channel * op.dst.plane;
    for (int64_t y = 0; y < op.dst.height; ++y) scatter_row(op.dst, plane, y, from + y * op.dst.width);
}

inline void output_plane(const DgcOp& op, const Context& c, int64_t channel) {
    float* to = c.run->output + c.sample * c.run->program->out_floats;
    if (op.src.plane == 0) {  // a vector: the logits
        to[channel] = at(c, op.in)[channel];
        return;
    }
    const float* plane = at(c, op.src) + channel * op.src.plane;
    to += channel * op.src.height * op.src.width;
    for (int64_t y = 0; y < op.src.height; ++y) gather_row(op.src, plane, y, to + y * op.src.width);
}

struct Norm {  // y = x * scale + shift, then ReLU where `positive`
    V scale, shift;
    bool affine, positive;
};

DGC_INLINE Norm norm_of(const DgcOp& op, int64_t channel) {
    const bool affine = op.in_scale != nullptr;
    return {splat(affine ? op.in_scale[channel] : 1.0f), splat(affine ? op.in_shift[channel] : 0.0f), affine, op.in_relu != 0};
}

DGC_INLINE V apply(const Norm& n, V x) {
    if (n.affine) x = x * n.scale + n.shift;
    return n.positive ? relu(x) : x;
}

inline void mean_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor& t = op.src;
    const Norm norm = norm_of(op, channel);
    const float* plane = at(c, t) + channel * t.plane + t.lead;
    V a = V{}, b = V{};
    for (int64_t p = 0; p < subplanes(t); ++p) {
        const float* x = plane + p * t.phase_plane;
        const int32_t* mask = t.mask + p * t.length;
        int64_t i = 0;
        for (; i + 2 * VL <= t.length; i += 2 * VL) {
            a += keep(apply(norm, load(x + i)), load_int(mask + i));
            b += keep(apply(norm, load(x + i + VL)), load_int(mask + i + VL));
        }
        for (; i < t.length; i += VL) a += keep(apply(norm, load(x + i)), load_int(mask + i));
    }
    at(c, op.out)[channel] = sum(a + b) / float(t.height * t.width);
}

// Same arrangement on both sides: vector by vector. Otherwise row by row through a buffer.
inline void pack_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const Norm norm = norm_of(op, channel);
    const float* from = at(c, s) + channel * s.plane;
    float* to = at(c, d) + channel * d.plane;
    if (s.phases == d.phases && s.row == d.row) {
        for (int64_t p = 0; p < subplanes(s); ++p)
            for (int64_t i = 0; i < s.length; i += VL)
                store(to + p * d.phase_plane + d.lead + i,
                      keep(apply(norm, load(from + p * s.phase_plane + s.lead + i)), load_int(d.mask + p * d.length + i)));
        return;
    }
    for (int64_t y = 0; y < d.height; ++y) {
        gather_row(s, from, y, c.scratch);
        for (int64_t x = 0; x < d.width; x += VL) store(c.scratch + x, apply(norm, load(c.scratch + x)));
        scatter_row(d, to, y, c.scratch);
    }
}

DGC_INLINE V pooled(V acc, V x, bool average) {
    if (average) return acc + x;
    const VI take = (x > acc) | (x != x);
    return take ? x : acc;
}

// Windows whose taps lie at fixed offsets (see DgcOp.offsets), so that vectors run over output pixels.
inline void pool_taps(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const bool average = op.pool_kind == 1;
    const V factor = splat(average ? 1.0f / float(op.taps) : 1.0f);
    const float* from = at(c, s) + channel * s.plane + s.lead;
    float* to = at(c, d) + channel * d.plane + d.lead;
    for (int64_t p = 0; p < subplanes(d); ++p) {
        const int64_t* offsets = op.offsets + p * op.taps;
        for (int64_t i = 0; i < d.length; i += VL) {
            V acc = load(from + offsets[0] + i);
            for (int64_t t = 1; t < op.taps; ++t) acc = pooled(acc, load(from + offsets[t] + i), average);
            store(to + p * d.phase_plane + i, keep(acc * factor, load_int(d.mask + p * d.length + i)));
        }
    }
}

inline float pool_window(const DgcOp& op, const float* plane, int64_t y0, int64_t x0) {
    const DgcTensor& s = op.src;
    float acc = op.pool_kind == 1 ? 0.0f : -__builtin_inff();
    for (int64_t y = y0; y < y0 + op.pool_kernel; ++y)
        for (int64_t x = x0; x < x0 + op.pool_kernel; ++x) {
            if (y < 0 || x < 0 || y >= s.height || x >= s.width) continue;
            const float value = *pixel(s, (float*)plane, y, x);
            if (op.pool_kind == 1) acc += value;
            else if (value > acc || value != value) acc = value;
        }
    return op.pool_kind == 1 ? acc / float(op.pool_kernel * op.pool_kernel) : acc;
}

inline void pool_plane(const DgcOp& op, const Context& c, int64_t channel) {
    if (op.offsets) return pool_taps(op, c, channel);
    const float* from = at(c, op.src) + channel * op.src.plane;
    float* to = at(c, op.dst) + channel * op.dst.plane;
    for (int64_t y = 0; y < op.dst.height; ++y)
        for (int64_t x = 0; x < op.dst.width; ++x)
            *pixel(op.dst, to, y, x) =
                pool_window(op, from, y * op.pool_stride - op.pool_pad, x * op.pool_stride - op.pool_pad);
}

inline void add_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &r = op.residual, &d = op.dst;
    for (int64_t p = 0; p < subplanes(d); ++p)
        for (int64_t i = 0; i < d.length; i += VL) {
            V y = load(at(c, s) + channel * s.plane + p * s.phase_plane + s.lead + i);
            y += load(at(c, r) + channel * r.plane + p * r.phase_plane + r.lead + i);
            store(at(c, d) + channel * d.plane + p * d.phase_plane + d.lead + i, op.relu ? relu(y) : y);
        }
}

}  // namespace DGC_ISA
