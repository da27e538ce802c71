// Whole numbers: sizes rounded up, shares of work, widths picked at run time. Used by inference and
// training.
//
// Ranges: counts are >= 0, divisors and `parts` > 0, 0 <= part < parts. Products of two of them
// stay below 2^63: they count floats of one image or weights of one layer.
#pragma once
#include "vec.h"

namespace DGC_ISA {

DGC_INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
DGC_INLINE int64_t larger_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}
DGC_INLINE int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
DGC_INLINE int64_t round_up(int64_t n) {
    return (n + kAlign - 1) / kAlign * kAlign;
}

struct Range {
    int64_t begin, end;
};

// The part-th of `parts` nearly equal parts. A share depends on nothing but the counts, and no sum
// is split between workers, so results are the same bits for any number of threads.
DGC_INLINE Range cut(int64_t items, int64_t part, int64_t parts) {
    return {items * part / parts, items * (part + 1) / parts};
}

// Output channels that lie together in packed weights: sixteens (a line of the cache), then an 8, a
// 4, a 2, a 1.
constexpr int64_t kBlock = 16;
DGC_INLINE int64_t block_of(int64_t left) {
    return left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// Calls `use` with n as a constant (`decltype(width)::value`), for n from 1 to MOST: a tile's
// accumulators stay in registers only where their number is known to the compiler.
template <int N>
struct Width {
    static constexpr int value = N;
};

template <int MOST, class Use>
DGC_INLINE auto with_width(int64_t n, const Use& use) {
    DGC_CHECK(n >= 1 && n <= MOST);
    if constexpr (MOST > 1) {
        if (n < MOST) return with_width<MOST - 1>(n, use);
    }
    return use(Width<MOST>{});
}

}  // namespace DGC_ISA
