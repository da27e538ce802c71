// Gates: means -> hidden units -> gates -> which channels each head reads.
//
// Vectors of C numbers (means, gates, rows of weights) have room for C rounded up to 16, and zeros
// behind the C-th but in gates, where a NaN of a broken sample may stand; biases of gates are
// padded alike. Weights: linear_row's [row][C rounded up]; gate_block's [head][hidden unit][C
// rounded up]; scale_panel's as conv.h reads them. An item is a row, a block of kGateBlock gates, a
// head. Regions do not overlap. Scratch: C rounded up, for select_head. A list has at most C
// entries, ascending; the convolution's scratch counts on at most C - inactive of them, but for NaN
// and ties it may be fewer. Called by items.h.
#pragma once
#include "../common/selection.h"
#include "../common/tuning.h"
#include "activation.h"
#include "context.h"

namespace DGC_ISA {

// A head's entry in a list region: [count, 15 unused][index: int32 x C][gate: float x C], C rounded
// up to 16.
DGC_INLINE int64_t list_step(int64_t channels) {
    return kAlign + 2 * round_up(channels);
}

struct Selection {
    int32_t* count;
    int32_t* index;
    float* gate;
};

DGC_INLINE Selection selection(const Context& c, const DgcOp& op, int64_t head) {
    DGC_CHECK(head >= 0 && head < op.heads);
    float* entry = at(c, op.list) + head * list_step(op.channels);
    return {(int32_t*)entry, (int32_t*)(entry + kAlign), entry + kAlign + round_up(op.channels)};
}

// Dot product over a row that is padded with zeros to a multiple of 16.
inline float dot(const float* a, const float* b, int64_t n) {
    V acc[4] = {V{}, V{}, V{}, V{}};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) acc[v] += load(a + i + v * VL) * load(b + i + v * VL);
    for (; i < n; i += VL) acc[0] += load(a + i) * load(b + i);
    return sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

// Rows of a matrix times a vector: the gates' first layer, and the classifier.
inline void linear_row(const DgcOp& op, const Context& c, int64_t row) {
    const int64_t width = round_up(op.channels);
    float y = dot(floats(c, op.weight) + row * width, at(c, op.in), width) + bias_of(op, c, row);
    at(c, op.out)[row] = op.act ? activated(op, y) : op.relu ? relu(y) : y;
}

constexpr int64_t kGateBlock = kGateVectors * VL;

// A block of one head's gates. The second layer's weights lie input-major, and rows of idle hidden
// units are not read.
inline void gate_block(const DgcOp& op, const Context& c, int64_t head, int64_t first) {
    const int64_t width = round_up(op.channels), left = (width - first) / VL;
    const int vectors = int(smaller(kGateVectors, left));
    DGC_CHECK(vectors >= 1 && op.weight && op.bias && op.hidden >= 0);
    const float* hidden = at(c, op.in) + head * op.hidden;
    const float* w = floats(c, op.weight) + head * op.hidden * width + first;
    V acc[kGateVectors];
    for (int v = 0; v < vectors; ++v)
        acc[v] = load(floats(c, op.bias) + head * width + first + v * VL);
    for (int64_t j = 0; j < op.hidden; ++j) {
        if (hidden[j] == 0.0f) continue;
        const V h = splat(hidden[j]);
        if (vectors == kGateVectors) {
#pragma GCC unroll 4
            for (int v = 0; v < kGateVectors; ++v) acc[v] += h * load(w + j * width + v * VL);
        } else {
            for (int v = 0; v < vectors; ++v) acc[v] += h * load(w + j * width + v * VL);
        }
    }
    float* out = at(c, op.out) + head * width + first;
    for (int v = 0; v < vectors; ++v) store(out + v * VL, relu(acc[v]));
}

inline void select_head(const DgcOp& op, const Context& c, int64_t head) {
    const int64_t width = round_up(op.channels);
    const float* all =
        op.external ? floats(c, op.external) + c.sample * op.heads * width : at(c, op.in);
    const float* gates = all + head * width;
    const Selection s = selection(c, op, head);
    *s.count = select_channels(gates, op.channels, op.inactive, op.channels, (int32_t*)c.scratch,
                               s.index, s.gate);
}

// The selected channels' weights times their gates, block by block as the tile reads them.
inline void scale_panel(const DgcOp& op, const Context& c, int64_t head) {
    const Selection s = selection(c, op, head);
    const int64_t per_row = op.channels * op.taps, kept = *s.count;
    DGC_CHECK(kept >= 0 && kept <= op.channels);
    const float* weight = floats(c, op.weight) + head * op.outs * per_row;
    float* panel = at(c, op.panel) + head * op.outs * per_row;
    for (int64_t row = 0; row < op.outs;) {
        const int64_t block = block_of(op.outs - row);
        const int64_t chunk = op.taps * block;
        const float* from = weight + row * per_row;
        float* to = panel + row * kept * op.taps;
        for (int64_t k = 0; k < kept; ++k, to += chunk) {
            const float* w = from + s.index[k] * chunk;
            const float g = s.gate[k];
            for (int64_t i = 0; i < chunk; ++i) to[i] = w[i] * g;
        }
        row += block;
    }
}

}  // namespace DGC_ISA
