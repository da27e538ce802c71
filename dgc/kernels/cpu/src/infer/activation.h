// What follows a sum: the activations that networks use, on whole vectors. Used by all of infer/.
//
// `act` is a DgcAct (abi.h), `slope` the number that LEAKY and ELU take. NaN stays NaN, so that a
// broken sample stays visible. Whoever applies one whose value at 0 is not 0 (sigmoid and its like)
// masks what it writes to padding. Exponentials are off by at most 2e-7 of their value, on every
// instruction set.
#pragma once
#include "../common/counts.h"
#include "abi.h"

namespace DGC_ISA {

DGC_INLINE V at_least(V x, float least) {
    return splat(least) > x ? splat(least) : x;
}
DGC_INLINE V at_most(V x, float most) {
    return x > splat(most) ? splat(most) : x;
}

// Cephes' expf: 2^n times a polynomial of the rest.
DGC_INLINE V exp_of(V x) {
    x = at_most(at_least(x, -87.0f), 88.0f);
    const V magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const V shifted = x * 1.44269504f + magic, n = shifted - magic;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (V)(((VI)shifted - (VI)magic + 127) << 23);
}

DGC_INLINE V sigmoid_of(V x) {
    return 1.0f / (1.0f + exp_of(-x));
}

// Abramowitz and Stegun 7.1.26: off by at most 1.5e-7.
DGC_INLINE V erf_of(V x) {
    const V positive = V{} > x ? -x : x, t = 1.0f / (1.0f + 0.3275911f * positive);
    V p = splat(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const V y = 1.0f - p * t * exp_of(-positive * positive);
    return V{} > x ? -y : y;
}

DGC_INLINE V tanh_of(V x) {
    const V z = x * x, large = 1.0f - 2.0f / (exp_of(2.0f * x) + 1.0f);
    V p = splat(-5.70498872745e-3f);  // Cephes' tanhf, where the difference above would cancel
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return splat(0.390625f) > z ? p * z * x + x : large;
}

DGC_INLINE V hard_sigmoid_of(V x) {
    return at_most(relu(x + 3.0f), 6.0f) * (1.0f / 6.0f);
}

DGC_INLINE V mish_of(V x) {  // x * tanh(log(1 + e^x))
    const V e = exp_of(at_most(x, 20.0f)), n = e * (e + 2.0f);
    return x * n / (n + 2.0f);
}

template <int64_t ACT>
DGC_INLINE V act_of(V x, V slope) {
    if (ACT == DGC_RELU) return relu(x);
    if (ACT == DGC_RELU6) return at_most(relu(x), 6.0f);
    if (ACT == DGC_HARDSWISH) return x * hard_sigmoid_of(x);
    if (ACT == DGC_HARDSIGMOID) return hard_sigmoid_of(x);
    if (ACT == DGC_SILU) return x * sigmoid_of(x);
    if (ACT == DGC_SIGMOID) return sigmoid_of(x);
    if (ACT == DGC_LEAKY) return V{} > x ? x * slope : x;
    if (ACT == DGC_GELU) return 0.5f * x * (1.0f + erf_of(x * 0.70710678f));
    if (ACT == DGC_GELU_TANH)
        return 0.5f * x * (1.0f + tanh_of(0.79788456f * (x + 0.044715f * x * x * x)));
    if (ACT == DGC_TANH) return tanh_of(x);
    if (ACT == DGC_ELU) return V{} > x ? slope * (exp_of(x) - 1.0f) : x;
    if (ACT == DGC_MISH) return mish_of(x);
    return x;
}

template <int64_t N>
struct ActIs {
    static constexpr int64_t value = N;
};

// Calls `use` with the activation as a constant, so that its loop holds no choice.
template <class Use>
DGC_INLINE void with_act(int64_t act, const Use& use) {
    switch (act) {
        case DGC_NO_ACT:
            return use(ActIs<DGC_NO_ACT>{});
        case DGC_RELU:
            return use(ActIs<DGC_RELU>{});
        case DGC_RELU6:
            return use(ActIs<DGC_RELU6>{});
        case DGC_HARDSWISH:
            return use(ActIs<DGC_HARDSWISH>{});
        case DGC_HARDSIGMOID:
            return use(ActIs<DGC_HARDSIGMOID>{});
        case DGC_SILU:
            return use(ActIs<DGC_SILU>{});
        case DGC_SIGMOID:
            return use(ActIs<DGC_SIGMOID>{});
        case DGC_LEAKY:
            return use(ActIs<DGC_LEAKY>{});
        case DGC_GELU:
            return use(ActIs<DGC_GELU>{});
        case DGC_GELU_TANH:
            return use(ActIs<DGC_GELU_TANH>{});
        case DGC_TANH:
            return use(ActIs<DGC_TANH>{});
        case DGC_ELU:
            return use(ActIs<DGC_ELU>{});
        case DGC_MISH:
            return use(ActIs<DGC_MISH>{});
        default:
            DGC_CHECK(!"an activation of this kind exists");
    }
}

DGC_INLINE float slope_of(const DgcOp& op) {
    const int32_t bits = int32_t(op.slope);
    float slope;
    __builtin_memcpy(&slope, &bits, 4);
    return slope;
}

// The operation's activation over whole vectors of `rows` rows in place, zero where the mask is (null:
// no mask).
__attribute__((noinline)) inline void activate_rows(const DgcOp& op, float* x, int64_t rows,
                                                    int64_t step, const int32_t* mask,
                                                    int64_t vectors) {
    const V slope = splat(slope_of(op));
    with_act(op.act, [&](auto act) {
        for (int64_t r = 0; r < rows; ++r, x += step)
            for (int64_t i = 0; i < vectors * VL; i += VL) {
                const V y = act_of<decltype(act)::value>(load(x + i), slope);
                store(x + i, mask ? keep(y, load_int(mask + i)) : y);
            }
    });
}

inline void activate(const DgcOp& op, float* x, const int32_t* mask, int64_t vectors) {
    activate_rows(op, x, 1, 0, mask, vectors);
}

// One number.
inline float activated(const DgcOp& op, float x) {
    float y[VL];
    store(y, splat(x));
    activate(op, y, nullptr, 1);
    return y[0];
}

}  // namespace DGC_ISA
