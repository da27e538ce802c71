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
constexpr int64_t kRowsAhead = 8;  // from where weights are fetched: they come from far

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
            for (int r = 0; r < ROWS; ++r) {
                const int16_t* row_at = w + r * width + i + j * VL;
                if (j == 0) __builtin_prefetch(row_at + kRowsAhead * width, 0, 2);
                acc[r][j] += v * load_short(row_at);
            }
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

constexpr int64_t kGates16 = 16 * VL;  // of one head, that an item computes
constexpr int64_t kUnitsAhead = 4;

// Hidden units that are not zero, in their order.
inline int64_t active_units(const float* hidden, int64_t count, int32_t* active) {
    int64_t found = 0;
    for (int64_t j = 0; j < count; ++j) {
        active[found] = int32_t(j);
        found += hidden[j] != 0.0f;
    }
    return found;
}

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
    int32_t* active = (int32_t*)c.scratch;
    DGC_CHECK(op.hidden + kUnitsAhead <= c.program->scratch_floats);
    const int64_t count = active_units(hidden, op.hidden, active);
    for (int64_t i = 0; i < kUnitsAhead; ++i) active[count + i] = count ? active[count - 1] : 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t j = active[i];
        const int16_t* ahead = w + active[i + kUnitsAhead] * width;
        const V h = splat(hidden[j] * scale[j]);
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v) {
            if (v * VL % 32 == 0) __builtin_prefetch(ahead + v * VL, 0, 2);
            acc[v] += h * load_short(w + j * width + v * VL);
        }
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
    if (left >= kGates16) return some_gates16<16>(op, c, head, first);
    int64_t i = 0;
    for (; i + 4 * VL <= left; i += 4 * VL) some_gates16<4>(op, c, head, first + i);
    for (; i < left; i += VL) some_gates16<1>(op, c, head, first + i);
}

}  // namespace DGC_ISA
