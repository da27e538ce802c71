// The layer once more, one output pixel after another, from the definition in int8_abi.h: no
// packing, no vectors. What tests compare with.
#pragma once
#include "conv8.h"

namespace DGC_ISA {

// A value as a byte holds it. Padding is zero, also behind a BatchNorm: where it lies, the mask says.
inline float reference_value(const DgcInt8& q, const Head& h, int64_t k, int64_t at) {
    const int64_t channel = h.channel(k);
    const DgcTensor& t = q.src;
    const int64_t in_plane = at + t.lead, sub = in_plane / t.phase_plane;
    const int64_t inside = in_plane % t.phase_plane - t.lead;
    const bool pixel = in_plane >= 0 && sub < t.phases * t.phases && inside >= 0 &&
                       inside < t.length && q.src_mask[sub * t.length + inside];
    const float* plane = q.x + h.sample * q.x_step + channel * q.image.plane + q.image.lead;
    float x = 0.0f;
    if (t.phases == q.image.phases) {
        x = plane[at];
    } else if (pixel) {
        const int64_t y = inside / t.row * t.phases + sub / t.phases;
        x = plane[y * q.image.row + inside % t.row * t.phases + sub % t.phases];
    }
    const float factor = h.gate_of(k) * h.inverse;
    float v = x * factor;
    if (q.in_scale) {
        v = x * (q.in_scale[channel] * factor);
        v = pixel ? relu(v + q.in_shift[channel] * factor) : 0.0f;
    }
    const float rounded = __builtin_nearbyintf(v);
    const float least = q.is_signed ? -h.levels : 0.0f;
    return rounded < least ? least : rounded > h.levels ? h.levels : rounded;
}

inline void reference_pixel(const DgcInt8& q, const Head& h, int64_t row, int64_t p, int64_t i) {
    const int64_t all = q.dynamic ? q.channels : q.channels / q.heads, width = round_up(q.outs);
    int64_t total = 0;
    for (int64_t k = 0; k < h.kept; ++k) {
        const int64_t own = q.dynamic ? h.channel(k) : k;
        const int8_t* w = q.weight + (h.head * all + own) * q.taps * width + row;
        for (int64_t t = 0; t < q.taps; ++t)
            total += int64_t(reference_value(q, h, k, q.offsets[p * q.taps + t] + i)) *
                     w[t * width];
    }
    const int64_t o = output_channel(q, h.head, row);
    const int64_t to =
        h.sample * q.y_step + o * q.dst.plane + p * q.dst.phase_plane + q.dst.lead + i;
    float y = float(total) * (h.largest / h.levels * q.weight_scale[h.head * q.outs + row]);
    y += q.bias ? q.bias[o] : 0.0f;
    if (q.residual) y += q.residual[to];
    q.y[to] = h.broken() ? __builtin_nanf("") : q.relu ? relu(y) : y;
}

inline void reference_head(const DgcInt8& q, int64_t sample, int64_t head) {
    const Head h = head_of(q, sample, head);
    for (int64_t row = 0; row < q.outs; ++row)
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p)
            for (int64_t i = 0; i < q.dst.length; ++i)
                if (q.dst_mask[p * q.dst.length + i]) reference_pixel(q, h, row, p, i);
}

}  // namespace DGC_ISA
