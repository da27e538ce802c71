// Training: one sample's pixels and gradients in a worker's scratch, and where a head's terms find
// them. What forward and both gradients begin with.
//
// A piece is a run of pixels of a 1x1 convolution whose planes stay near, or all pixels of any
// other. Scratch as train_planes.h cuts it. Called by train_forward.h, train_weights.h and
// train_input.h.
#pragma once
#include "train_tiles.h"

namespace DGC_ISA {

struct Piece {  // pixels [first, first + count) of a 1x1 convolution; everything of any other
    int64_t first, count;
};

DGC_INLINE int64_t pieces(const DgcTrain& t) {
    return flat(t) ? ceil_div(pixels_in(t), piece(t)) : 1;
}

DGC_INLINE Piece piece_at(const DgcTrain& t, int64_t i) {
    const int64_t first = i * piece(t);
    return flat(t) ? Piece{first, smaller(piece(t), pixels_in(t) - first)} : Piece{0, pixels_in(t)};
}

inline void bring_input(const DgcTrain& t, int64_t sample, const Piece& p, const Room& room) {
    const float* x = t.x + sample * t.x_step;
    for (int64_t c = 0; c < t.channels; ++c) {
        float* plane = room.in + c * plane_in(t);
        const float* from = x + c * pixels_in(t);
        if (flat(t))
            fill_piece(from + p.first, plane, p.count, affine_of(t, c));
        else
            spread(t, from, plane, affine_of(t, c), room.line);
    }
}

struct Planes {  // of the output's gradient, at the first pixel of a head's first output
    const float* at;
    int64_t step;
};

// The gradient where whole vectors may be read from it: as it lies, or a copy with zeros around.
inline Planes gradient(const DgcTrain& t, int64_t sample, int64_t head, const Piece& p,
                       const Room& room) {
    const float* y = t.y + sample * t.y_step + head * t.head_step * pixels_out(t);
    // as it lies where whole vectors are pixels of this piece: nothing is copied
    if (flat(t) && p.count % VL == 0) return {y + p.first, t.out_step * pixels_out(t)};
    float* to = room.out + head * t.outs * plane_out(t);
    for (int64_t j = 0; j < t.outs; ++j) {
        const float* from = y + j * t.out_step * pixels_out(t);
        if (flat(t))
            fill_piece(from + p.first, to + j * plane_out(t), p.count, {V{}, V{}, false});
        else
            spread_output(t, from, to + j * plane_out(t));
    }
    return {to + t.planes.lead, plane_out(t)};
}

DGC_INLINE int64_t vectors_of(const DgcTrain& t, const Piece& p) {
    return flat(t) ? ceil_div(p.count, VL) : t.planes.length / VL;
}

// Where each term of a head finds its pixels.
inline void locate(const DgcTrain& t, const Chosen& s, int32_t* where) {
    for (int64_t k = 0; k < s.count; ++k) {
        DGC_CHECK(s.channel(k) >= 0 && s.channel(k) < t.channels &&
                  (k == 0 || s.channel(k) > s.channel(k - 1)));
        const int64_t plane = s.channel(k) * plane_in(t) + t.planes.lead;
        if (flat(t))
            // 32 bits: places within the planes of one sample
            where[k] = int32_t(plane);
        else
            for (int64_t i = 0; i < t.taps; ++i)
                where[k * t.taps + i] =
                    int32_t(plane + t.planes.phase[i] * phase_plane(t) + t.planes.shift[i]);
    }
}

}  // namespace DGC_ISA
