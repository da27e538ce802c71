// Vectors: numbers of a sample that are no image, one after the other in a region (means, what
// linear layers give, the factors of squeeze and excitation).
//
// A region of n numbers has room for n rounded up to 16; what lies behind the n-th is zero, and
// whoever writes here leaves it so, because linear_row reads whole vectors. One item does it all:
// these are some thousand numbers at most. `out` may be `in` where nothing is taken by index.
// Called by items.h.
#pragma once
#include "activation.h"
#include "context.h"

namespace DGC_ISA {

// Rounded up with zeros, after the activation.
inline void finish_vector(const DgcOp& op, float* y, int64_t n) {
    const int64_t width = round_up(n);
    for (int64_t i = n; i < width; ++i) y[i] = 0.0f;
    if (op.act == DGC_NO_ACT) return;
    activate(op, y, nullptr, width / VL);
    for (int64_t i = n; i < width; ++i) y[i] = 0.0f;
}

// y = act((a o b) * scale + shift); the i-th of `in` is a[index[i]] where there is an index, and b
// comes in its own order (`list`; mode DGC_ALONE: there is none).
inline void vector_item(const DgcOp& op, const Context& c, int64_t) {
    const float *a = at(c, op.in), *b = op.mode == DGC_ALONE ? nullptr : at(c, op.list);
    const int32_t* index = op.index ? constant<int32_t>(c, op.index) : nullptr;
    float* y = at(c, op.out);
    const int64_t first = op.out_first;
    for (int64_t i = 0; i < op.outs; ++i) {
        DGC_CHECK(!index || (index[i] >= 0 && index[i] < op.channels));
        float x = a[index ? index[i] : i];
        if (op.mode == DGC_PLUS) x += b[i];
        if (op.mode == DGC_MINUS) x -= b[i];
        if (op.mode == DGC_TIMES) x *= b[i];
        if (op.in_scale) x = x * floats(c, op.in_scale)[i] + floats(c, op.in_shift)[i];
        y[first + i] = x;
    }
    if (first == 0) finish_vector(op, y, op.outs);
}

// Softmax over `taps` numbers that lie `outs` apart, for each of `heads` groups and each of `outs`.
inline void softmax_item(const DgcOp& op, const Context& c, int64_t) {
    const float* x = at(c, op.in);
    float* y = at(c, op.out);
    for (int64_t group = 0; group < op.heads; ++group)
        for (int64_t o = 0; o < op.outs; ++o) {
            const int64_t first = group * op.taps * op.outs + o;
            float most = -__builtin_inff(), total = 0.0f;
            for (int64_t t = 0; t < op.taps; ++t)
                most = x[first + t * op.outs] > most ? x[first + t * op.outs] : most;
            for (int64_t t = 0; t < op.taps; ++t) {
                const int64_t i = first + t * op.outs;
                y[i] = exp_of(splat(x[i] - most))[0];
                total += y[i];
            }
            for (int64_t t = 0; t < op.taps; ++t) y[first + t * op.outs] /= total;
        }
    finish_vector(op, y, op.heads * op.taps * op.outs);
}

// A convolution along the vector with `taps` weights and as many zeros in front as pool_pad says.
inline void along_item(const DgcOp& op, const Context& c, int64_t) {
    const float *x = at(c, op.in), *w = floats(c, op.weight);
    float* y = at(c, op.out);
    for (int64_t i = 0; i < op.outs; ++i) {
        float total = bias_of(op, c, 0);
        for (int64_t t = 0; t < op.taps; ++t) {
            const int64_t from = i + t - op.pool_pad;
            if (from >= 0 && from < op.channels) total += w[t] * x[from];
        }
        y[i] = total;
    }
    finish_vector(op, y, op.outs);
}

}  // namespace DGC_ISA
