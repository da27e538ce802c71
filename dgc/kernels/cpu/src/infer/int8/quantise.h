// From float32 planes to bytes: means and maxima, the scale of a head, values and weights of the
// kept channels packed four by four. See int8_abi.h for what is computed, in which order.
//
// Values: [four channels][plane] of 32 bits, so a tap lies at the same offset as in the float32
// image; zeros of the image are the byte `zero_byte`. Weights: [block of 8 outputs][four
// channels][tap][8] of 32 bits. Channels that are missing in the last four have weights of zero.
#pragma once
#include "../../common/counts.h"
#include "dot.h"
#include "int8_abi.h"

namespace DGC_ISA {

constexpr int64_t kEight = 8;  // outputs of a block of weights
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
constexpr int32_t kRoundBits = 0x4b400000;
constexpr float kLeast = 1e-30f;  // a head whose largest value is smaller has none

struct Head {  // of one sample
    int64_t sample, head, kept;
    const int32_t* index;  // null: channel `first` + k
    const float* gate;     // null: 1
    int64_t first;
    float largest, inverse, levels;

    int64_t channel(int64_t k) const { return index ? index[k] : first + k; }
    float gate_of(int64_t k) const { return gate ? gate[k] : 1.0f; }
    bool broken() const { return !(largest < __builtin_inff()); }
};

// NaN stays, whichever comes first.
DGC_INLINE float top_of(float largest, float x) {
    return ((x > largest) | (x != x)) ? x : largest;
}

inline Head head_of(const DgcInt8& q, int64_t sample, int64_t head) {
    Head h{};
    h.sample = sample, h.head = head;
    if (q.dynamic) {
        const int64_t at = sample * q.heads + head;
        h.kept = q.count[at];
        h.index = q.index + at * q.channels, h.gate = q.gate + at * q.channels;
    } else {
        h.kept = q.channels / q.heads, h.first = head * h.kept;
    }
    const float* top = q.top + sample * q.channels;
    for (int64_t k = 0; k < h.kept; ++k)
        h.largest = top_of(h.largest, h.gate_of(k) * top[h.channel(k)]);
    h.levels = q.is_signed ? 127.0f : 255.0f;
    h.inverse = h.largest < kLeast ? 0.0f : h.levels / h.largest;
    return h;
}

struct Normal {  // what stands in front of a channel
    V scale, shift;
    bool affine;
};

DGC_INLINE Normal normal_of(const DgcInt8& q, int64_t channel) {
    if (!q.in_scale) return {V{}, V{}, false};
    return {splat(q.in_scale[channel]), splat(q.in_shift[channel]), true};
}
// Padding is zero before and after.
DGC_INLINE V normal(const Normal& n, V x, const int32_t* mask) {
    return n.affine ? keep(relu(x * n.scale + n.shift), load_int(mask)) : x;
}

// Mean and largest magnitude of a channel. Sums go into 16 places, pixel i into place i % 16, and
// these are added from the first to the last: the same on vectors of any length.
inline void means_of(const DgcInt8& q, int64_t sample, int64_t channel) {
    const DgcTensor& t = q.src;
    const Normal n = normal_of(q, channel);
    const float* plane = q.x + sample * q.x_step + channel * t.plane + t.lead;
    V sums[16 / VL] = {}, tops[16 / VL] = {};
    for (int64_t p = 0; p < t.phases * t.phases; ++p)
        for (int64_t i = 0; i < t.length; i += 16)
            for (int64_t j = 0; j < 16 / VL; ++j) {
                const int64_t at = i + j * VL;
                const int32_t* mask = q.src_mask + p * t.length + at;
                const V pixels = normal(n, load(plane + p * t.phase_plane + at), mask);
                const V x = keep(pixels, load_int(mask));
                const V size = (V)((VI)x & 0x7fffffff);
                sums[j] += x;
                tops[j] = (VI)((size > tops[j]) | (size != size)) ? size : tops[j];
            }
    float sum = 0, top = 0;
    for (int64_t i = 0; i < 16; ++i)
        sum += sums[i / VL][i % VL], top = top_of(top, tops[i / VL][i % VL]);
    q.mean[sample * q.channels + channel] = sum / float(t.height * t.width);
    q.top[sample * q.channels + channel] = top;
}

DGC_INLINE VI clamp(VI x, int32_t least, int32_t most) {
    x = x < least ? least - VI{} : x;
    return x > most ? most - VI{} : x;
}

// The signed bytes -127 to 127 are stored as 1 to 255; what that adds to each sum is taken off
// again (tile8.h). Unsigned ones are stored as they are.
DGC_INLINE int32_t zero_byte(const DgcInt8& q) {
    return q.is_signed ? 128 : 0;
}
DGC_INLINE int32_t zero_bytes(const DgcInt8& q) {
    return q.is_signed ? int32_t(0x80808080u) : 0;
}

DGC_INLINE void fill(int32_t* to, int64_t count, int32_t value) {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// The values of four kept channels, from the k-th on, in one plane of 32 bits.
inline void pack_four(const DgcInt8& q, const Head& h, int64_t k, int32_t* to) {
    const DgcTensor& t = q.src;
    const int32_t zero = zero_byte(q), most = int32_t(h.levels), least = q.is_signed ? -most : 0;
    const float* from[4];
    Normal normals[4];
    V factors[4];
    for (int64_t j = 0; j < 4; ++j) {
        const int64_t channel = h.channel(smaller(k + j, h.kept - 1));
        from[j] = q.x + h.sample * q.x_step + channel * t.plane;
        normals[j] = normal_of(q, channel);
        factors[j] = splat(h.gate_of(smaller(k + j, h.kept - 1)) * h.inverse);
    }
    for (int64_t p = 0; p < t.phases * t.phases; ++p) {
        const int64_t start = p * t.phase_plane;
        fill(to + start, t.lead, zero_bytes(q));
        for (int64_t i = 0; i < t.length; i += VL) {
            VI packed = VI{};
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const V x = load(from[j] + start + t.lead + i);
                const V scaled = normal(normals[j], x, q.src_mask + p * t.length + i) * factors[j];
                const VI rounded = (VI)(scaled + kRound) - kRoundBits;
                packed |= (clamp(rounded, least, most) + zero) << (8 * j);
            }
            *(VILoad*)(to + start + t.lead + i) = packed;
        }
    }
}

inline void pack_values(const DgcInt8& q, const Head& h, int32_t* to) {
    const int64_t fours = ceil_div(h.kept, 4);
    for (int64_t f = 0; f < fours; ++f) pack_four(q, h, 4 * f, to + f * q.src.plane);
    // taps look behind the last plane
    fill(to + fours * q.src.plane, q.src.lead + 64, zero_bytes(q));
}

// 16 outputs of four channels at one tap: two blocks' eights of 32 bits, the four bytes side by side.
DGC_INLINE void interleave(const int8_t* const* row, int64_t at, int32_t* first, int32_t* second) {
#if defined(__SSE2__)
    __m128i r[4];
    for (int j = 0; j < 4; ++j) r[j] = _mm_loadu_si128((const __m128i*)(row[j] + at));
    const __m128i ab = _mm_unpacklo_epi8(r[0], r[1]), ab2 = _mm_unpackhi_epi8(r[0], r[1]);
    const __m128i cd = _mm_unpacklo_epi8(r[2], r[3]), cd2 = _mm_unpackhi_epi8(r[2], r[3]);
    _mm_storeu_si128((__m128i*)first, _mm_unpacklo_epi16(ab, cd));
    _mm_storeu_si128((__m128i*)(first + 4), _mm_unpackhi_epi16(ab, cd));
    _mm_storeu_si128((__m128i*)second, _mm_unpacklo_epi16(ab2, cd2));
    _mm_storeu_si128((__m128i*)(second + 4), _mm_unpackhi_epi16(ab2, cd2));
#else
    for (int64_t m = 0; m < 16; ++m) {
        uint32_t four = 0;
        for (int j = 0; j < 4; ++j) four |= uint32_t(uint8_t(row[j][at + m])) << (8 * j);
        (m < kEight ? first : second)[m % kEight] = int32_t(four);
    }
#endif
}

// The sum of an output's weights over kept channels and taps, times 128, for each output.
inline void sum_weights(const DgcInt8& q, const Head& h, const int8_t* weights, int32_t* sums) {
    const int64_t width = round_up(q.outs), own = width * q.taps;
    for (int64_t i = 0; i < width; ++i) sums[i] = 0;
    for (int64_t k = 0; k < h.kept; ++k) {
        const int8_t* row = weights + (h.index ? h.index[k] : k) * own;
        for (int64_t tap = 0; tap < q.taps; ++tap)
            for (int64_t i = 0; i < width; ++i) sums[i] += row[tap * width + i] * 128;
    }
}

// The weights of the kept channels; for signed values also what they add to each sum. `none` are
// zeros for the channels that the last four lack, as many as a channel has weights.
inline void pack_weights(const DgcInt8& q, const Head& h, int32_t* to, int32_t* sums,
                         const int8_t* none) {
    const int64_t width = round_up(q.outs), fours = ceil_div(h.kept, 4), own = width * q.taps;
    const int64_t all = q.dynamic ? q.channels : q.channels / q.heads;
    const int64_t block = fours * q.taps * kEight;
    const int8_t* weights = q.weight + h.head * all * own;
    if (q.is_signed) sum_weights(q, h, weights, sums);
    for (int64_t f = 0; f < fours; ++f) {
        const int8_t* row[4];
        for (int64_t j = 0; j < 4; ++j) {
            const int64_t k = 4 * f + j;
            row[j] = k < h.kept ? weights + (h.index ? h.index[k] : k) * own : none;
        }
        for (int64_t tap = 0; tap < q.taps; ++tap)
            for (int64_t o = 0; o < width; o += 16) {
                int32_t* first = to + o / kEight * block + (f * q.taps + tap) * kEight;
                interleave(row, tap * width + o, first, first + block);
            }
    }
}

}  // namespace DGC_ISA
