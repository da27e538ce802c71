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

DGC_INLINE int64_t list_width(int64_t channels) {  // of a head's entry: see list_step in gates.h
    return kAlign + 2 * round_up(channels);
}

inline Head head_of(const DgcInt8& q, int64_t sample, int64_t head) {
    Head h{};
    h.sample = sample, h.head = head;
    if (q.dynamic) {
        const float* entry = q.list + (sample * q.heads + head) * list_width(q.channels);
        h.kept = *(const int32_t*)entry, h.index = (const int32_t*)(entry + kAlign);
        h.gate = entry + kAlign + round_up(q.channels);
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
DGC_INLINE VI size_bits(V x) {  // of the magnitude; as integers they order as it does, NaN last
    return (VI)x & 0x7fffffff;
}
DGC_INLINE VI larger_bits(VI a, VI b) {
    return a > b ? a : b;
}

// Mean and largest magnitude of a channel, as it is gone through from its first pixel to its last.
// Sums go into 16 places, pixel i into place i % 16, and these are added from the first to the
// last: the same on vectors of any length.
struct Stats {
    float sums[16];
    int32_t tops[16];

    template <int NV>
    DGC_INLINE void add(int64_t i, const V (&x)[NV]) {  // pixels from i on, zero where there is none
#pragma GCC unroll 4
        for (int j = 0; j < 16 / VL && j < NV; ++j) {  // those that go into the same places
            const int64_t place = (i + j * VL) % 16;
            V sum = load(sums + place);
            VI top = load_int(tops + place);
#pragma GCC unroll 8
            for (int v = j; v < NV; v += 16 / VL)
                sum += x[v], top = larger_bits(top, size_bits(x[v]));
            store(sums + place, sum);
            *(VILoad*)(tops + place) = top;
        }
    }
    float mean(int64_t pixels) const {
        float sum = 0;
        for (int64_t i = 0; i < 16; ++i) sum += sums[i];
        return sum / float(pixels);
    }
    float top() const {
        int32_t bits = 0;
        for (int64_t i = 0; i < 16; ++i) bits = tops[i] > bits ? tops[i] : bits;
        float top;
        __builtin_memcpy(&top, &bits, 4);
        return top;
    }
};

// The same of an image that lies there, 16 pixels at once.
inline void means_of(const DgcInt8& q, int64_t sample, int64_t channel) {
    const DgcTensor& t = q.src;
    const Normal n = normal_of(q, channel);
    const float* plane = q.x + sample * q.x_step + channel * t.plane + t.lead;
    V sums[16 / VL] = {};
    VI tops[16 / VL] = {};
    for (int64_t p = 0; p < t.phases * t.phases; ++p)
        for (int64_t i = 0; i < t.length; i += 16)
#pragma GCC unroll 4
            for (int64_t j = 0; j < 16 / VL; ++j) {
                const int64_t at = i + j * VL;
                const VI mask = load_int(q.src_mask + p * t.length + at);
                const V x = load(plane + p * t.phase_plane + at);
                const V v = keep(n.affine ? relu(x * n.scale + n.shift) : x, mask);
                sums[j] += v;
                tops[j] = larger_bits(tops[j], size_bits(v));
            }
    Stats found;
    for (int64_t j = 0; j < 16 / VL; ++j)
        store(found.sums + j * VL, sums[j]), *(VILoad*)(found.tops + j * VL) = tops[j];
    q.mean[sample * q.channels + channel] = found.mean(t.height * t.width);
    q.top[sample * q.channels + channel] = found.top();
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

// Four kept channels, from the k-th on.
struct Four {
    const float* from[4];
    Normal normals[4];
    V factors[4];
};

inline Four four_of(const DgcInt8& q, const Head& h, int64_t k) {
    Four four;
    for (int64_t j = 0; j < 4; ++j) {
        const int64_t at = smaller(k + j, h.kept - 1), channel = h.channel(at);
        four.from[j] = q.x + h.sample * q.x_step + channel * q.src.plane;
        four.normals[j] = normal_of(q, channel);
        four.factors[j] = splat(h.gate_of(at) * h.inverse);
    }
    return four;
}

// Their values from pixel `start` on, as bytes: the lowest byte of x + round is that of the nearest
// integer. No value exceeds the largest one, whose byte is the last.
template <bool AFFINE, bool MASKED>
DGC_INLINE VI pack_vector(const Four& four, int64_t start, const int32_t* mask, V round) {
    VI packed = VI{};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        V x = load(four.from[j] + start);
        if (AFFINE) x = relu(x * four.normals[j].scale + four.normals[j].shift);
        if (AFFINE && MASKED) x = keep(x, load_int(mask));
        const VI byte = (VI)(x * four.factors[j] + round);
        if (j == 0)
            packed = byte;
        else
            packed = (packed & ((1 << 8 * j) - 1)) | byte << (8 * j);
    }
    return packed;
}

template <bool AFFINE>
inline void pack_four(const DgcInt8& q, const Four& four, int32_t* to) {
    const DgcTensor& t = q.src;
    const V round = splat(kRound + float(zero_byte(q)));
    for (int64_t p = 0; p < t.phases * t.phases; ++p) {
        const int64_t start = p * t.phase_plane;
        fill(to + start, t.lead, zero_bytes(q));
        for (int64_t i = 0; i < t.length; i += VL)
            *(VILoad*)(to + start + t.lead + i) = pack_vector<AFFINE, true>(
                four, start + t.lead + i, q.src_mask + p * t.length + i, round);
    }
}

inline void pack_values(const DgcInt8& q, const Head& h, int32_t* to) {
    const int64_t fours = ceil_div(h.kept, 4);
    for (int64_t f = 0; f < fours; ++f) {
        const Four four = four_of(q, h, 4 * f);
        int32_t* plane = to + f * q.src.plane;
        q.in_scale ? pack_four<true>(q, four, plane) : pack_four<false>(q, four, plane);
    }
    // taps look behind the last plane
    fill(to + fours * q.src.plane, q.src.lead + 64, zero_bytes(q));
}

// A single tap reads each pixel once: `vectors` of them from `start` of each plane on, side by side.
template <bool AFFINE>
inline void pack_piece(const DgcInt8& q, const Head& h, int64_t start, int64_t vectors,
                       int32_t* to) {
    const V round = splat(kRound + float(zero_byte(q)));
    for (int64_t k = 0; k < h.kept; k += 4) {
        const Four four = four_of(q, h, k);
        for (int64_t v = 0; v < vectors; ++v, to += VL)
            *(VILoad*)to = pack_vector<AFFINE, false>(four, start + v * VL, nullptr, round);
    }
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

// Rows of channels that come later: which they are only the list says, so nothing else fetches them.
DGC_INLINE void fetch_weights(const DgcInt8& q, const Head& h, const int8_t* weights, int64_t k,
                              int64_t at, int64_t own) {
    (void)q;
    if (!h.index || at % 64) return;
    for (int64_t j = 0; j < 4; ++j)
        __builtin_prefetch(weights + h.index[smaller(k + j, h.kept - 1)] * own + at, 0, 3);
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
                fetch_weights(q, h, weights, 4 * f + 8, tap * width + o, own);
                int32_t* first = to + o / kEight * block + (f * q.taps + tap) * kEight;
                interleave(row, tap * width + o, first, first + block);
            }
    }
}

}  // namespace DGC_ISA
