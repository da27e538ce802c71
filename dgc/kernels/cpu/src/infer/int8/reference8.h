// The layer once more, one output pixel after another, from the definition in int8_abi.h: no
// packing, no vectors. What tests compare with.
#pragma once
#include "conv8.h"

namespace DGC_ISA {

// A value as a byte holds it. Padding is zero, also behind a BatchNorm: where it lies, the mask says.
inline float reference_value(const DgcInt8& q, const Head& h, int64_t k, int64_t at) {
    const int64_t channel = h.channel(k);
    float v = q.x[h.sample * q.x_step + channel * q.src.plane + q.src.lead + at];
    if (q.in_scale) {
        const int64_t in_plane = at + q.src.lead, sub = in_plane / q.src.phase_plane;
        const int64_t inside = in_plane % q.src.phase_plane - q.src.lead;
        const bool pixel = in_plane >= 0 && sub < q.src.phases * q.src.phases && inside >= 0 &&
                           inside < q.src.length && q.src_mask[sub * q.src.length + inside];
        v = v * q.in_scale[channel];
        v = pixel ? relu(v + q.in_shift[channel]) : 0.0f;
    }
    const float rounded = __builtin_nearbyintf(v * (h.gate_of(k) * h.inverse));
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
