// Images combined with images and vectors, channels in another order, pixels from other places. An
// item is a channel of the result, unless a line says otherwise.
//
// Whoever writes an image leaves its padding zero. Result and operands lie alike (same sub-planes
// and rows) where whole vectors are read; resampling and flattening go pixel by pixel. The result
// overlaps no operand but where it is the same image. Scratch: none but for resampling (two lines
// of src.width + 64 floats). Called by items.h.
#pragma once
#include "activation.h"
#include "planes.h"

namespace DGC_ISA {

struct Plane {  // one channel of an image
    float* start;
    const DgcTensor& t;
    DGC_INLINE float* row(int64_t subplane, int64_t i) const {
        return start + subplane * t.phase_plane + t.lead + i;
    }
};

DGC_INLINE Plane plane_of(const Context& c, const DgcTensor& t, int64_t channel) {
    return {at(c, t) + channel * t.plane, t};
}

template <class Value>
DGC_INLINE void each_vector(const DgcOp& op, const Context& c, int64_t channel, const Value& value) {
    const DgcTensor& d = op.dst;
    const Plane to = plane_of(c, d, channel);
    const V slope = splat(slope_of(op));
    with_act(op.act, [&](auto act) {
        for (int64_t p = 0; p < subplanes(d); ++p) {
            const int32_t* mask = mask_of(c, d) + p * d.length;
            for (int64_t i = 0; i < d.length; i += VL) {
                const V y = act_of<decltype(act)::value>(value(p, i), slope);
                store(to.row(p, i), keep(y, load_int(mask + i)));
            }
        }
    });
}

// y = act(src o residual), or act(src o vector[channel]) where `vector` is set.
inline void combine_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &r = op.residual, &d = op.dst;
    const Plane a = plane_of(c, s, channel);
    DGC_CHECK(s.phases == d.phases && s.row == d.row);
    if (op.has_vector) {
        const V b = splat(at(c, op.in)[channel]);
        if (op.mode == DGC_TIMES)
            return each_vector(op, c, channel,
                               [&](int64_t p, int64_t i) { return load(a.row(p, i)) * b; });
        const V plus = op.mode == DGC_MINUS ? -b : b;
        return each_vector(op, c, channel,
                           [&](int64_t p, int64_t i) { return load(a.row(p, i)) + plus; });
    }
    const Plane b = plane_of(c, r, channel);
    DGC_CHECK(r.phases == d.phases && r.row == d.row);
    each_vector(op, c, channel, [&](int64_t p, int64_t i) {
        const V x = load(a.row(p, i)), y = load(b.row(p, i));
        return op.mode == DGC_TIMES ? x * y : op.mode == DGC_MINUS ? x - y : x + y;
    });
}

inline void combine_item(const DgcOp& op, const Context& c, int64_t channel) {
    combine_plane(op, c, channel);
    tell_mean(op, c, channel);
}

// Channel i of the result is channel index[i] of the source.
inline void gather_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const int64_t from = constant<int32_t>(c, op.index)[channel];
    DGC_CHECK(from >= 0 && from < op.src.channels);
    DGC_CHECK(op.src.phases == op.dst.phases && op.src.row == op.dst.row);
    const Plane a = plane_of(c, op.src, from), b = plane_of(c, op.dst, channel);
    for (int64_t p = 0; p < subplanes(op.dst); ++p)
        __builtin_memcpy(b.row(p, 0), a.row(p, 0), op.dst.length * 4);
}

// Each number of the vector as an image of one pixel. One item.
inline void spread_item(const DgcOp& op, const Context& c, int64_t) {
    for (int64_t k = 0; k < op.dst.channels; ++k)
        *pixel(op.dst, at(c, op.dst) + k * op.dst.plane, 0, 0) = at(c, op.in)[k];
}

// Pixels of a channel, row after row, to their places in a vector.
inline void flatten_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor& s = op.src;
    float* to = at(c, op.out) + channel * s.height * s.width;
    for (int64_t y = 0; y < s.height; ++y)
        gather_row(s, at(c, s) + channel * s.plane, y, to + y * s.width);
    if (channel + 1 < s.channels) return;
    const int64_t n = s.channels * s.height * s.width;
    for (int64_t i = n; i < round_up(n); ++i) at(c, op.out)[i] = 0.0f;
}

// Row y of the result is made of rows places[0][y] and places[1][y], the second with the share
// shares[y]; columns alike, behind the rows in both tables. A place of -1 gives zeros.
inline void resample_plane(const DgcOp& op, const Context& c, int64_t channel) {
    const DgcTensor &s = op.src, &d = op.dst;
    const int32_t* rows = constant<int32_t>(c, op.index);
    const int32_t* columns = rows + 2 * d.height;
    const float *row_share = floats(c, op.weight), *column_share = row_share + d.height;
    const float* from = at(c, s) + channel * s.plane;
    float* to = at(c, d) + channel * d.plane;
    DGC_CHECK(2 * (s.width + 64) <= c.program->scratch_floats);
    float* line = c.scratch;
    float* other = line + s.width + 64;
    for (int64_t y = 0; y < d.height; ++y) {
        const int64_t a = rows[y], b = rows[d.height + y];
        const float share = row_share[y];
        DGC_CHECK(a >= -1 && a < s.height && b >= -1 && b < s.height);
        if (a >= 0)
            gather_row(s, from, a, line);
        else
            __builtin_memset(line, 0, s.width * 4);
        if (share != 0.0f) {
            gather_row(s, from, b, other);
            for (int64_t x = 0; x < s.width; ++x) line[x] += (other[x] - line[x]) * share;
        }
        for (int64_t x = 0; x < d.width; ++x) {
            const int64_t left = columns[x], right = columns[d.width + x];
            const float first = left < 0 ? 0.0f : line[left];
            const float second = right < 0 ? 0.0f : line[right], part = column_share[x];
            *pixel(d, to, y, x) = part == 0.0f ? first : first + (second - first) * part;
        }
    }
}

}  // namespace DGC_ISA
