// Whole numbers that come from a file: sums and products that stop at kHuge instead of overflowing,
// so that "too large" is one comparison. Every operand is >= 0 and at most kHuge.
#pragma once
#include <stdint.h>

namespace dgc_plan {

constexpr int64_t kHuge = int64_t(1) << 61;
constexpr int64_t kLine = 64;    // bytes: constants and sections start at a multiple of it
constexpr int64_t kAlign = 16;  // floats (see common/vec.h)

inline int64_t plus(int64_t a, int64_t b) {
    return a + b < kHuge ? a + b : kHuge;
}
template <class... More>
int64_t plus(int64_t a, int64_t b, More... more) {
    return plus(plus(a, b), more...);
}

inline int64_t times(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > kHuge ? kHuge : product;
}
template <class... More>
int64_t times(int64_t a, int64_t b, More... more) {
    return times(times(a, b), more...);
}

inline int64_t up16(int64_t n) {
    return plus(n, kAlign - 1) / kAlign * kAlign;
}
inline int64_t parts_of(int64_t n, int64_t size) {  // size > 0
    return plus(n, size - 1) / size;
}

}  // namespace dgc_plan
