// The inner step of every register tile, in inference and training: NV vectors, each times MR
// single numbers.
//
// Reads NV * VL floats at `vectors`, at any alignment, and number(0) to number(MR - 1), in this
// order. Every accumulator gets exactly one fused multiply-add (where the instruction set has one),
// so the order of a tile's sums is that of its steps. MR and NV are constants, and MR * NV + NV + 1
// at most the number of registers: else accumulators live in memory.
#pragma once
#include "vec.h"

namespace DGC_ISA {

template <int MR, int NV, class Number>
DGC_INLINE void add_products(V (&acc)[MR][NV], const float* vectors, const Number& number) {
    static_assert(MR <= 16 && NV <= 16, "the loops below would not be unrolled whole");
    V x[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) x[v] = load(vectors + v * VL);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
        const V factor = splat(number(m));
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) acc[m][v] += factor * x[v];
    }
}

}  // namespace DGC_ISA
