// Zeros around the pixels of an image whose memory held another image before (DgcTensor.reused).
//
// Kernels rely on zeros in front of a sub-plane, between its rows and behind its pixels. Memory is
// zero at first, and an image that keeps its place for itself keeps them; where images of different
// forms follow each other, each one's writer makes its own padding zero. An item does it for its
// share of the channels, before it computes: no other item of the operation writes there, but for
// zeros as well (behind short rows, depthwise.h). Called by steps.h.
#pragma once
#include "../common/counts.h"
#include "../common/vec.h"
#include "context.h"

namespace DGC_ISA {

// `count` floats, a multiple of the vector. (Most are one to eight vectors: a call would cost more.)
DGC_INLINE void zero_vectors(float* from, int64_t count) {
    for (int64_t i = 0; i < count; i += VL) store(from + i, V{});
}

DGC_INLINE void zero_some(float* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) from[i] = 0.0f;
}

// Everything of sub-plane `p` that is no pixel. Pixels are written later, by the same item.
inline void clear_around(const DgcTensor& t, float* rows, int64_t p) {
    const auto [height, width] = pixels_of(t, p);
    int64_t pixels = 0;  // where those of the row before ended
    for (int64_t y = 0; y < height; ++y) {
        const int64_t next = y * t.row;
        if (y > 0 && next - pixels <= VL && pixels + VL <= t.length)
            store(rows + pixels, V{});
        else
            zero_some(rows + pixels, next - pixels);
        pixels = next + width;
    }
    zero_some(rows + pixels, t.length - pixels);
}

// How a kernel writes a sub-plane: pixel by pixel, or all numbers of its rows up to some place, the
// padding as zeros.
struct Written {
    bool pixels;
    int64_t floats;
};

inline Written written_by(const DgcOp& op) {
    const DgcTensor& t = op.dst;
    switch (op.kind) {
        case DGC_CONV:
        case DGC_WINO:
        case DGC_CONV8: {
            // By whole vectors and through the mask; lanes (lanes.h) to the end of a sub-plane.
            const bool lanes = op.kind == DGC_CONV && op.lanes;
            return {false, lanes ? t.length : used_vectors(t) * VL};
        }
        case DGC_ADD:
        case DGC_COMBINE:
        case DGC_GATHER:
            return {false, t.length};
        case DGC_PACK:
            return {op.src.phases != t.phases, t.length};
        case DGC_DEPTHWISE:
            if (op.mode != DGC_BY_ROWS) return {false, t.length};
            // It puts zeros between its rows by itself (depth_gap).
            return {false,
                    smaller(t.length, (t.height - 1) * t.row + larger_of(t.width, VL))};
        default:
            return {true, 0};
    }
}

// The share of item `item` of `items`; where an item is a channel, that channel.
inline void clear_share(const DgcOp& op, const Context& c, int64_t item, int64_t items) {
    const DgcTensor& t = op.dst;
    const Range mine =
        items == t.channels ? Range{item, item + 1} : cut(t.channels, item, items);
    if (mine.begin == mine.end) return;
    const Written written = written_by(op);
    float* plane = at(c, t) + mine.begin * t.plane;
    for (int64_t channel = mine.begin; channel < mine.end; ++channel, plane += t.plane)
        for (int64_t p = 0; p < t.phases * t.phases; ++p) {
            float* rows = plane + p * t.phase_plane + t.lead;
            zero_vectors(rows - t.lead, t.lead);
            if (written.pixels)
                clear_around(t, rows, p);
            else
                zero_some(rows + written.floats, t.length - written.floats);
        }
    // Behind the last channel taps reach as far as in front of the first.
    if (mine.end == t.channels) zero_vectors(plane, t.lead);
}

}  // namespace DGC_ISA
