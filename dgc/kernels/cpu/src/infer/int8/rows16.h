// Matrices of gates and classifiers inside 8-bit plans: 16-bit weights with a scale for each row,
// products and sums in float32. A weight is off by at most 1/65534 of the largest of its row; half
// the bytes are read, which is what these rows cost.
//
// Sums go into 16 places, number i into place i % 16, added from the first to the last: the same
// bits on vectors of any length. Rows have C numbers rounded up to 16, with zeros behind the C-th.
// Called by ops8.h.
#pragma once
#include "../context.h"

namespace DGC_ISA {

typedef int16_t VH __attribute__((vector_size(VL * 2)));
typedef int16_t VHLoad __attribute__((vector_size(VL * 2), aligned(2), may_alias));

DGC_INLINE V load_short(const int16_t* p) {
    return __builtin_convertvector(__builtin_convertvector(VH(*(const VHLoad*)p), VI), V);
}

constexpr int kRowsAtOnce = 4;

// Rows [row, row + ROWS) times a vector.
template <int ROWS>
inline void some_rows16(const DgcOp& op, const Context& c, int64_t row) {
    const int64_t width = round_up(op.channels);
    const int16_t* w = constant<int16_t>(c, op.weight) + row * width;
    const float *x = at(c, op.in), *scale = floats(c, op.in_scale) + row;
    V acc[ROWS][16 / VL] = {};
    for (int64_t i = 0; i < width; i += 16)
#pragma GCC unroll 4
        for (int j = 0; j < 16 / VL; ++j) {
            const V v = load(x + i + j * VL);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r)
                acc[r][j] += v * load_short(w + r * width + i + j * VL);
        }
    for (int r = 0; r < ROWS; ++r) {
        float sum = 0;
        for (int i = 0; i < 16; ++i) sum += acc[r][i / VL][i % VL];
        const float y = sum * scale[r] + bias_of(op, c, row + r);
        at(c, op.out)[row + r] = op.relu ? relu(y) : y;
    }
}

inline void rows16_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t row = item * kRowsAtOnce;
    if (row + kRowsAtOnce <= op.outs) return some_rows16<kRowsAtOnce>(op, c, row);
    for (int64_t r = row; r < op.outs; ++r) some_rows16<1>(op, c, r);
}

constexpr int64_t kGates16 = 64;  // of one head, that an item computes

// Gates: bias plus the hidden units that are not zero times their rows, in their order; then ReLU.
template <int N>
inline void some_gates16(const DgcOp& op, const Context& c, int64_t head, int64_t first) {
    const int64_t width = round_up(op.channels);
    const float* hidden = at(c, op.in) + head * op.hidden;
    const float* scale = floats(c, op.in_scale) + head * op.hidden;
    const int16_t* w = constant<int16_t>(c, op.weight) + head * op.hidden * width + first;
    V acc[N];
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) acc[v] = load(floats(c, op.bias) + head * width + first + v * VL);
    for (int64_t j = 0; j < op.hidden; ++j) {
        if (hidden[j] == 0.0f) continue;
        const V h = splat(hidden[j] * scale[j]);
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v) acc[v] += h * load_short(w + j * width + v * VL);
    }
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v)
        store(at(c, op.out) + head * width + first + v * VL, relu(acc[v]));
}

inline int64_t gates16_items(const DgcOp& op) {
    return op.heads * ceil_div(round_up(op.channels), kGates16);
}

inline void gates16_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t blocks = ceil_div(round_up(op.channels), kGates16), head = item / blocks;
    const int64_t first = item % blocks * kGates16, left = round_up(op.channels) - first;
    if (left >= kGates16) return some_gates16<kGates16 / VL>(op, c, head, first);
    for (int64_t i = 0; i < left; i += 16) some_gates16<16 / VL>(op, c, head, first + i);
}

}  // namespace DGC_ISA
