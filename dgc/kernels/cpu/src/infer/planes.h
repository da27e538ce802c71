// What works on whole planes: input, output, means, repacking, addition. An item is a
// channel of one sample.
//
// Whoever writes an image leaves its padding zero: rows are written pixel by pixel, or by whole
// vectors through the mask. An image's `length` and `lead` are multiples of 16 floats, so whole
// vectors never reach the next sub-plane. Source and target may be the same memory only where they
// have the same layout (pack_plane, add_plane: an item reads each vector before it writes it).
// Scratch: src.width + 64 floats for repacking. Called by items.h, one item at a time.
#pragma once
#include "../common/rows.h"
#include "activation.h"
#include "context.h"

namespace DGC_ISA {

DGC_INLINE int64_t subplanes(const DgcTensor& t) {
    return t.phases * t.phases;
}

// A contiguous row of the image to its place in a tensor.
inline void scatter_row(const DgcTensor& t, float* plane, int64_t y, const float* from) {
    split(from, pixel(t, plane, y, 0), t.width, t.phases, t.phase_plane);
}

inline void gather_row(const DgcTensor& t, const float* plane, int64_t y, float* to) {
    join(pixel(t, (float*)plane, y, 0), to, t.width, t.phases, t.phase_plane);
}

inline void input_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const int64_t area = op.dst.height * op.dst.width;
    const float* from = c.run->input + c.sample * c.program->in_floats + channel * area;
    float* plane = at(c, op.dst) + channel * op.dst.plane;
    for (int64_t y = 0; y < op.dst.height; ++y)
        scatter_row(op.dst, plane, y, from + y * op.dst.width);
}

inline void output_plane(const DgcOp& op, const Context& c, int64_t channel) {
    float* to = c.run->output + c.sample * c.program->out_floats + op.out_first;
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

DGC_INLINE Norm norm_of(const DgcOp& op, const Context& c, int64_t channel) {
    if (!op.in_scale) return {splat(1.0f), V{}, false, op.in_relu != 0};
    return {splat(floats(c, op.in_scale)[channel]), splat(floats(c, op.in_shift)[channel]), true,
            op.in_relu != 0};
}

DGC_INLINE V apply(const Norm& n, V x) {
    if (n.affine) x = x * n.scale + n.shift;
    return n.positive ? relu(x) : x;
}

inline float mean_of(const Context& c, const DgcTensor& t, int64_t channel, const Norm& norm) {
    const float* plane = at(c, t) + channel * t.plane + t.lead;
    // Two sums, so that an addition does not wait for the one before.
    V a = V{}, b = V{};
    for (int64_t p = 0; p < subplanes(t); ++p) {
        const float* x = plane + p * t.phase_plane;
        const int32_t* mask = mask_of(c, t) + p * t.length;
        int64_t i = 0;
        for (; i + 2 * VL <= t.length; i += 2 * VL) {
            a += keep(apply(norm, load(x + i)), load_int(mask + i));
            b += keep(apply(norm, load(x + i + VL)), load_int(mask + i + VL));
        }
        for (; i < t.length; i += VL) a += keep(apply(norm, load(x + i)), load_int(mask + i));
    }
    return sum(a + b) / float(t.height * t.width);
}

inline void mean_plane(const DgcOp& op, const Context& c, int64_t channel) {
    at(c, op.out)[channel] = mean_of(c, op.src, channel, norm_of(op, c, channel));
}

// The mean of what an operation has just written, while it is near (op.span).
inline void tell_mean(const DgcOp& op, const Context& c, int64_t channel) {
    const Norm none = {splat(1.0f), V{}, false, false};
    if (op.span) at(c, op.out)[channel] = mean_of(c, op.dst, channel, none);
}

// Same sub-planes, other distance of rows: vector by vector, each row over what the one before has
// written too much.
inline void pack_rows(const DgcTensor& d, const float* from, int64_t from_row, const int32_t* mask,
                      float* to, const Norm& norm) {
    const int64_t rows = ceil_div(d.height, d.phases), columns = ceil_div(d.width, d.phases),
                  last = (rows - 1) * d.row;
    for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; x += VL) {
            const int64_t i = y * d.row + x;
            V pixels = apply(norm, load(from + y * from_row + x));
            // The last row must not write behind the sub-plane, where another image may lie.
            if (i + VL <= last)
                store(to + i, pixels);
            else
                for (int64_t k = 0; k < smaller(VL, d.length - i); ++k) to[i + k] = pixels[k];
        }
    for (int64_t i = 0; i < d.length; i += VL)
        store(to + i, keep(load(to + i), load_int(mask + i)));
}

// Same arrangement on both sides: vector by vector. Otherwise row by row through a buffer.
inline void pack_pixels(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const Norm norm = norm_of(op, c, channel);
    DGC_CHECK(s.height == d.height && s.width == d.width);
    const float* from = at(c, s) + channel * s.plane;
    float* to = at(c, d) + channel * d.plane;
    const int32_t* mask = mask_of(c, d);
    if (s.phases == d.phases && s.row == d.row) {
        for (int64_t p = 0; p < subplanes(s); ++p)
            for (int64_t i = 0; i < s.length; i += VL)
                store(to + p * d.phase_plane + d.lead + i,
                      keep(apply(norm, load(from + p * s.phase_plane + s.lead + i)),
                           load_int(mask + p * d.length + i)));
        return;
    }
    if (s.phases == d.phases) {
        for (int64_t p = 0; p < subplanes(s); ++p)
            pack_rows(d, from + p * s.phase_plane + s.lead, s.row, mask + p * d.length,
                      to + p * d.phase_plane + d.lead, norm);
        return;
    }
    for (int64_t y = 0; y < d.height; ++y) {
        float* line = c.scratch;
        DGC_CHECK(round_up(d.width) <= c.program->scratch_floats);
        gather_row(s, from, y, line);
        for (int64_t x = 0; x < d.width; x += VL) store(line + x, apply(norm, load(line + x)));
        scatter_row(d, to, y, line);
    }
}

inline void activate_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor& d = op.dst;
    if (op.act == DGC_NO_ACT) return;
    for (int64_t p = 0; p < subplanes(d); ++p)
        activate(op, at(c, d) + channel * d.plane + p * d.phase_plane + d.lead,
                 mask_of(c, d) + p * d.length, d.length / VL);
}

inline void pack_plane(const DgcOp& op, const Context& c, int64_t channel) {
    pack_pixels(op, c, channel);
    activate_plane(op, c, channel);
}

inline void add_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &r = op.residual, &d = op.dst;
    DGC_CHECK(s.phases == d.phases && s.row == d.row && r.phases == d.phases && r.row == d.row);
    for (int64_t p = 0; p < subplanes(d); ++p)
        for (int64_t i = 0; i < d.length; i += VL) {
            V y = load(at(c, s) + channel * s.plane + p * s.phase_plane + s.lead + i);
            y += load(at(c, r) + channel * r.plane + p * r.phase_plane + r.lead + i);
            store(at(c, d) + channel * d.plane + p * d.phase_plane + d.lead + i,
                  op.relu ? relu(y) : y);
        }
    activate_plane(op, c, channel);
}

}  // namespace DGC_ISA
