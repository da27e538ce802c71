// Values and weights of the channels that a head keeps, packed four by four as bytes.
//
// Values: [four channels][plane] of 32 bits, so a tap lies at the same offset as in the float32
// image; zeros of the image are the byte `zero_byte`. Where a stride wants pixels apart that lie side
// by side, planes have 2 x 2 sub-planes that the image has not. Weights: [block of 8 outputs][four
// channels][tap][8] of 32 bits, or twice as many (kPairs, dot.h). Channels that are missing in the last four have weights of zero.
#pragma once
#include "quantise.h"
#include "shuffles8.h"

namespace DGC_ISA {

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

// Four kept channels, from the k-th on: a value is x * scale + shift, in levels.
struct Four {
    const float* from[4];
    V scale[4], shift[4];
};

inline Four four_of(const DgcInt8& q, const Head& h, int64_t k) {
    Four four;
    for (int64_t j = 0; j < 4; ++j) {
        const int64_t at = smaller(k + j, h.kept - 1), channel = h.channel(at);
        const float factor = h.gate_of(at) * h.inverse;
        four.from[j] = q.x + h.sample * q.x_step + channel * q.image.plane;
        four.scale[j] = splat(q.in_scale ? q.in_scale[channel] * factor : factor);
        four.shift[j] = splat(q.in_scale ? q.in_shift[channel] * factor : 0.0f);
    }
    return four;
}

template <Form FORM>
DGC_INLINE V value_of(const Four& four, int64_t j, V x) {
    const V y = x * four.scale[j];
    return FORM == Form::kNormed ? y + four.shift[j] : y;
}

// Their values from pixel `start` on, as bytes. No value exceeds the largest one, whose byte is the
// last; what is below zero behind a BatchNorm becomes zero, where ReLU would send it.
template <Form FORM>
DGC_INLINE VI pack_vector(const Four& four, int64_t start) {
    V v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = value_of<FORM>(four, j, load(four.from[j] + start));
    return bytes_of<FORM == Form::kSigned>(v);
}

// The same of every second pixel.
template <Form FORM>
DGC_INLINE VI pack_second(const Four& four, int64_t start, bool wide) {
    V v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const V a = load(four.from[j] + start), b = wide ? load(four.from[j] + start + VL) : a;
        VI even, odd;
        every_other((VI)a, (VI)b, &even, &odd);
        v[j] = value_of<FORM>(four, j, (V)even);
    }
    return bytes_of<FORM == Form::kSigned>(v);
}

DGC_INLINE VI pixels_or(VI none, VI bytes, const int32_t* mask) {
    const VI here = load_int(mask);
    return (bytes & here) | (none & ~here);
}

// Up to VL numbers to their places, `none` where there is no pixel.
DGC_INLINE void put(VI bytes, int64_t count, const int32_t* mask, VI none, int32_t* to) {
    if (count >= VL)
        *(VILoad*)to = pixels_or(none, bytes, mask);
    else
        for (int64_t i = 0; i < count; ++i) to[i] = mask[i] ? bytes[i] : none[0];
}

// From an image with its pixels side by side to 2 x 2 sub-planes. What a vector has too much lies
// where the next row is written.
template <Form FORM>
inline void pack_four_apart(const DgcInt8& q, const Four& four, int32_t* to) {
    const DgcTensor &s = q.image, &t = q.src;
    const VI none = zero_bytes(q) - VI{};
    const int64_t columns = ceil_div(s.width, 2), last = (ceil_div(s.height, 2) - 1) * t.row;
    for (int64_t p = 0; p < 4; ++p) {
        fill(to + p * t.phase_plane, t.lead, none[0]);
        fill(to + p * t.phase_plane + t.lead + last, t.length - last, none[0]);
    }
    for (int64_t y = 0; y < s.height; ++y) {
        const int64_t from = s.lead + y * s.row, at = y / 2 * t.row;
        int32_t* even = to + y % 2 * 2 * t.phase_plane + t.lead + at;
        int32_t* odd = even + t.phase_plane;
        const int32_t* even_mask = q.src_mask + y % 2 * 2 * t.length + at;
        const int32_t* odd_mask = even_mask + t.length;
        int64_t x = 0;
        for (; x < columns; x += VL) {
            const VI a = pack_vector<FORM>(four, from + 2 * x);
            VI b = a, first, second;
            if (2 * x + VL < s.width) b = pack_vector<FORM>(four, from + 2 * x + VL);
            every_other(a, b, &first, &second);
            const int64_t left = t.length - at - x;
            put(first, left, even_mask + x, none, even + x);
            put(second, left, odd_mask + x, none, odd + x);
        }
        for (; x < smaller(t.row, t.length - at); ++x) even[x] = odd[x] = none[0];
    }
}

template <Form FORM>
inline void pack_four(const DgcInt8& q, const Four& four, int32_t* to) {
    const DgcTensor& t = q.src;
    const VI none = zero_bytes(q) - VI{};
    for (int64_t p = 0; p < t.phases * t.phases; ++p) {
        const int64_t start = p * t.phase_plane + t.lead;
        const int32_t* mask = q.src_mask + p * t.length;
        fill(to + p * t.phase_plane, t.lead, none[0]);
        for (int64_t i = 0; i < t.length; i += VL) {
            const VI bytes = pack_vector<FORM>(four, start + i);
            // Behind a BatchNorm the zeros around an image are none any more.
            *(VILoad*)(to + start + i) =
                FORM == Form::kNormed ? pixels_or(none, bytes, mask + i) : bytes;
        }
    }
}

// Whether a stride wants pixels apart that lie side by side.
DGC_INLINE bool comes_apart(const DgcInt8& q) {
    return q.src.phases != q.image.phases;
}

inline void pack_values(const DgcInt8& q, const Head& h, int32_t* to) {
    const int64_t fours = ceil_div(h.kept, 4);
    with_form(q, [&](auto form) {
        for (int64_t f = 0; f < fours; ++f) {
            const Four four = four_of(q, h, 4 * f);
            int32_t* plane = to + f * q.src.plane;
            comes_apart(q) ? pack_four_apart<decltype(form)::value>(q, four, plane)
                           : pack_four<decltype(form)::value>(q, four, plane);
        }
    });
    // taps look behind the last plane
    fill(to + fours * q.src.plane, q.src.lead + 64, zero_bytes(q));
}

// A single tap reads each pixel once: `vectors` of them from the output's v-th on, side by side.
inline void pack_piece(const DgcInt8& q, const Head& h, int64_t v, int64_t vectors, int32_t* to) {
    const int64_t start = q.src.lead + q.offsets[0] + v * VL;
    with_form(q, [&](auto form) {
        for (int64_t k = 0; k < h.kept; k += 4) {
            const Four four = four_of(q, h, k);
            for (int64_t i = 0; i < vectors; ++i, to += VL)
                *(VILoad*)to = pack_vector<decltype(form)::value>(four, start + i * VL);
        }
    });
}

// The same where the tap reads every second pixel: all of them, as the output's lie. What a vector
// has too much lies where the next row, or the next four channels, are written.
inline void pack_seconds(const DgcInt8& q, const Head& h, int64_t plane, int32_t* to) {
    const DgcTensor &s = q.image, &d = q.dst;
    const int64_t sub = q.offsets[0] / q.src.phase_plane;
    const int64_t first = s.lead + sub / 2 * s.row + sub % 2;
    with_form(q, [&](auto form) {
        for (int64_t k = 0; k < h.kept; k += 4, to += plane) {
            const Four four = four_of(q, h, k);
            for (int64_t y = 0; y < d.height; ++y)
                for (int64_t x = 0; x < d.width; x += VL)
                    *(VILoad*)(to + y * d.row + x) = pack_second<decltype(form)::value>(
                        four, first + 2 * y * s.row + 2 * x, 2 * x + VL < s.width);
        }
    });
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

// The kept channels' weights of a head: rows of [tap][outs].
struct WeightRows {
    const int8_t *first, *none;  // `none`: zeros for the channels that the last four lack
    const int32_t* index;
    int64_t kept, own;  // bytes of a row

    DGC_INLINE const int8_t* row(int64_t k) const {
        return k >= kept ? none : first + (index ? index[k] : k) * own;
    }
    // Rows that come later: which they are only the list says, so nothing else fetches them.
    DGC_INLINE void fetch(int64_t k, int64_t at) const {
        if (!index || at % 64) return;
        for (int64_t j = 0; j < 4; ++j)
            __builtin_prefetch(first + index[smaller(k + j, kept - 1)] * own + at, 0, 3);
    }
};

inline WeightRows weight_rows(const DgcInt8& q, const Head& h, const int8_t* none) {
    const int64_t own = round_up(q.outs) * q.taps;
    const int64_t all = q.dynamic ? q.channels : q.channels / q.heads;
    return {q.weight + h.head * all * own, none, h.index, h.kept, own};
}

// Eight fours of bytes become their even ones, then their odd ones, as numbers of 16 bits.
DGC_INLINE void to_pairs(int32_t* eight) {
    int8_t bytes[4 * kEight];
    int16_t* to = (int16_t*)eight;
    __builtin_memcpy(bytes, eight, sizeof bytes);
    for (int i = 0; i < 2 * kEight; ++i) {
        to[i] = bytes[2 * i];
        to[2 * kEight + i] = bytes[2 * i + 1];
    }
}

// The weights of the kept channels, GROUP (8 or 16) outputs side by side; for signed values also what
// they add to each sum. Eights may be pairs (kPairs).
template <int64_t GROUP>
inline void pack_weights(const DgcInt8& q, const Head& h, int32_t* to, int32_t* sums,
                         const int8_t* none) {
    constexpr bool kEights = GROUP == kEight;
    constexpr int64_t kOwn = kEights ? kStep : GROUP;
    const int64_t width = round_up(q.outs), fours = ceil_div(h.kept, 4), taps = q.taps;
    const int64_t block = fours * taps * kOwn;
    const WeightRows rows = weight_rows(q, h, none);
    if (q.is_signed) sum_weights(q, h, rows.first, sums);
    for (int64_t f = 0; f < fours; ++f) {
        const int8_t* row[4];
        for (int64_t j = 0; j < 4; ++j) row[j] = rows.row(4 * f + j);
        for (int64_t tap = 0; tap < taps; ++tap, to += kOwn) {
            const int64_t at = tap * width;
            int64_t o = 0;
#if defined(__AVX512BW__)
            for (; o + 64 <= width; o += 64) {
                rows.fetch(4 * f + 8, at + o);
                int32_t* first = to + o / GROUP * block;
                kEights ? interleave_eights(row, at + o, first, block)
                        : interleave_sixteens(row, at + o, first, block);
            }
#endif
            for (; o < width; o += 16) {
                rows.fetch(4 * f + 8, at + o);
                int32_t* first = to + o / GROUP * block;
                interleave(row, at + o, first, first + (kEights ? block : kEight));
            }
            for (int64_t b = 0; kEights && kPairs && b < width / kEight; ++b) to_pairs(to + b * block);
        }
    }
}

}  // namespace DGC_ISA
