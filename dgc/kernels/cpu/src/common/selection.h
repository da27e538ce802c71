// Which channels a head reads: those whose gate is greater than its n-th smallest one. Used by
// inference (gates.h) and training (train_planes.h), so that both select the same channels.
//
// Gates are what a ReLU gives: >= 0 (minus zero too) or NaN. Selected are gates > the n-th smallest
// (so ties with it are off) and > 0; NaN counts as the largest, so a broken sample stays visible.
// `bits`, [round_up(channels)], is the caller's scratch; `index` and `gate` have room for `room`
// entries, written from the front with ascending channels. 0 <= n <= channels. Integers only: the
// same channels on every instruction set.
#pragma once
#include "counts.h"

namespace DGC_ISA {

constexpr int32_t kNanBits = 0x7fc00000;

// How many of the first n (padded with the largest integer) are <= limit. Non-negative floats order
// as their bits do.
inline int64_t count_at_most(const int32_t* bits, int64_t n, int32_t limit) {
    VI total = VI{};
    const VI bound = limit - VI{};
    for (int64_t i = 0; i < n; i += VL) total -= load_int(bits + i) <= bound;
    int64_t count = 0;
    for (int i = 0; i < VL; ++i) count += total[i];
    return count;
}

// A number below which, or at which, n gates lie: the n-th smallest one, or any that has as many; -1
// (as bits: below every gate) for n = 0. By bisection over bit patterns: at most 31 passes over a few
// cache lines are cheaper than any sort.
inline int32_t threshold(const int32_t* bits, int64_t width, int64_t n) {
    int32_t low = -1, high = kNanBits;  // count(low) < n <= count(high)
    if (n == 0) return -1;
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        const int64_t count = count_at_most(bits, width, middle);
        if (count == n) return middle;
        (count > n ? high : low) = middle;
    }
    return high;
}

// Gates as integers that order as they do; a NaN counts as the largest, and what pads the width is
// beyond all.
inline void gate_bits(const float* gates, int64_t channels, int64_t width, int32_t* bits) {
    for (int64_t i = 0; i < channels; ++i) {
        int32_t b;
        __builtin_memcpy(&b, gates + i, 4);
        b = b == INT32_MIN ? 0 : b;  // minus zero
        bits[i] = gates[i] != gates[i] ? kNanBits : b;
    }
    for (int64_t i = channels; i < width; ++i) bits[i] = INT32_MAX;
}

// Every gate <= `limit` is off; so is a gate of zero. A NaN stays on: of many, as many as there is
// `room` for. How many are on.
inline int32_t list_selected(const float* gates, const int32_t* bits, int64_t channels,
                             int64_t room, int32_t limit, int32_t* index, float* gate) {
    int32_t count = 0;
    for (int32_t i = 0; i < channels && count < room; ++i) {
        // no branch: which gate is on is what no processor guesses
        const bool on = (bits[i] > limit || bits[i] == kNanBits) && bits[i] != 0;
        index[count] = i, gate[count] = gates[i];
        count += on;
    }
    return count;
}

// The three together: the n smallest gates are off. How many channels are selected.
inline int32_t select_channels(const float* gates, int64_t channels, int64_t n, int64_t room,
                               int32_t* bits, int32_t* index, float* gate) {
    DGC_CHECK(channels > 0 && n >= 0 && n <= channels && room >= 0);
    const int64_t width = round_up(channels);
    gate_bits(gates, channels, width, bits);
    return list_selected(gates, bits, channels, room, threshold(bits, width, n), index, gate);
}

}  // namespace DGC_ISA
