// What has to be known of float32 planes before they become bytes: means and maxima of channels, what
// a head keeps, the scale of its values. See int8_abi.h for what is computed, in which order.
#pragma once
#include "../../common/counts.h"
#include "../../common/vec.h"
#include "int8_abi.h"

namespace DGC_ISA {

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

// What the values of a layer are: behind a BatchNorm and ReLU, not negative, or of either sign.
enum class Form { kNormed, kPositive, kSigned };

template <Form FORM>
struct Formed {
    static constexpr Form value = FORM;
};

template <class Use>
DGC_INLINE void with_form(const DgcInt8& q, const Use& use) {
    if (q.in_scale) return use(Formed<Form::kNormed>{});
    q.is_signed ? use(Formed<Form::kSigned>{}) : use(Formed<Form::kPositive>{});
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
    const DgcTensor& t = q.image;
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

}  // namespace DGC_ISA
