// Gates: means -> hidden units -> gates -> which channels each head reads.
#pragma once
#include "context.h"
#include "tuning.h"

namespace DGC_ISA {

// A head's entry in a list region: [count, 15 unused][index: int32 x C][gate: float x C], C rounded up to 16.
DGC_INLINE int64_t round_up(int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
DGC_INLINE int64_t list_step(int64_t channels) { return kAlign + 2 * round_up(channels); }

struct Selection {
    int32_t* count;
    int32_t* index;
    float* gate;
};

DGC_INLINE Selection selection(const Context& c, const DgcOp& op, int64_t head) {
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
    at(c, op.out)[row] = op.relu ? relu(y) : y;
}

constexpr int64_t kGateBlock = kGateVectors * VL;

// A block of one head's gates. The second layer's weights lie input-major, and rows of idle hidden units are not read.
inline void gate_block(const DgcOp& op, const Context& c, int64_t head, int64_t first) {
    const int64_t width = round_up(op.channels), left = (width - first) / VL;
    const int vectors = int(smaller(kGateVectors, left));
    const float* hidden = at(c, op.in) + head * op.hidden;
    const float* w = floats(c, op.weight) + head * op.hidden * width + first;
    V acc[kGateVectors];
    for (int v = 0; v < vectors; ++v) acc[v] = load(floats(c, op.bias) + head * width + first + v * VL);
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

// How many of the first n (padded with the largest integer) are <= limit. Non-negative floats order as their bits do.
inline int64_t count_at_most(const int32_t* bits, int64_t n, int32_t limit) {
    VI total = VI{};
    const VI bound = limit - VI{};
    for (int64_t i = 0; i < n; i += VL) total -= load_int(bits + i) <= bound;
    int64_t count = 0;
    for (int i = 0; i < VL; ++i) count += total[i];
    return count;
}

// The n-th smallest gate, by bisection over bit patterns; -1 (as bits: below every gate) for n = 0.
inline int32_t threshold(const int32_t* bits, int64_t width, int64_t n) {
    int32_t low = -1, high = 0x7fc00000;  // count(low) < n <= count(high)
    if (n == 0) return -1;
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        (count_at_most(bits, width, middle) >= n ? high : low) = middle;
    }
    return high;
}

// Gates as integers that order as they do; a NaN counts as the largest, and what pads the width is beyond all.
inline void gate_bits(const float* gates, int64_t channels, int64_t width, int32_t* bits) {
    for (int64_t i = 0; i < width; ++i) {
        int32_t b = INT32_MAX;
        if (i < channels) __builtin_memcpy(&b, gates + i, 4);
        b = b == INT32_MIN ? 0 : b;  // minus zero
        bits[i] = i < channels && gates[i] != gates[i] ? 0x7fc00000 : b;
    }
}

// Every gate <= the n-th smallest is off, ties included; so is a gate of zero. A NaN stays on: of many, as many as there
// is `room` for. How many are on.
inline int32_t list_chosen(const float* gates, const int32_t* bits, int64_t channels, int64_t room, int32_t limit, int32_t* index,
                           float* gate) {
    int32_t count = 0;
    for (int32_t i = 0; i < channels && count < room; ++i) {
        if (bits[i] <= limit && bits[i] != 0x7fc00000) continue;
        if (bits[i] == 0) continue;
        index[count] = i;
        gate[count++] = gates[i];
    }
    return count;
}

inline void select_head(const DgcOp& op, const Context& c, int64_t head) {
    const int64_t width = round_up(op.channels);
    const float* all = op.external ? floats(c, op.external) + c.sample * op.heads * width : at(c, op.in);
    const float* gates = all + head * width;
    int32_t* bits = (int32_t*)c.scratch;
    gate_bits(gates, op.channels, width, bits);
    const Selection s = selection(c, op, head);
    *s.count = list_chosen(gates, bits, op.channels, op.channels, threshold(bits, width, op.inactive), s.index, s.gate);
}

// The selected channels' weights times their gates, block by block as the tile reads them.
inline void scale_panel(const DgcOp& op, const Context& c, int64_t head) {
    const Selection s = selection(c, op, head);
    const int64_t per_row = op.channels * op.taps, kept = *s.count;
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
