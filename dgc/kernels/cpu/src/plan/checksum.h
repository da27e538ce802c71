// XXH64 (Yann Collet's xxHash, seed 0), as its specification says: guards against damage, not
// against a forger. Some 10 GB/s, so that every load can afford it.
#pragma once
#include <stdint.h>
#include <string.h>

namespace dgc_plan {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u, kPrime2 = 0xC2B2AE3D27D4EB4Fu,
                   kPrime3 = 0x165667B19E3779F9u, kPrime4 = 0x85EBCA77C2B2AE63u,
                   kPrime5 = 0x27D4EB2F165667C5u;

inline uint64_t rotated(uint64_t x, int bits) {
    return x << bits | x >> (64 - bits);
}
template <class T>
T word_at(const unsigned char* p) {
    T word;
    memcpy(&word, p, sizeof word);
    return word;
}
inline uint64_t round_of(uint64_t sum, uint64_t word) {
    return rotated(sum + word * kPrime2, 31) * kPrime1;
}
inline uint64_t merged(uint64_t hash, uint64_t sum) {
    return (hash ^ round_of(0, sum)) * kPrime1 + kPrime4;
}

inline uint64_t checksum(const void* bytes, uint64_t size) {
    const unsigned char *p = (const unsigned char*)bytes, *end = p + size;
    uint64_t hash = kPrime5;
    if (size >= 32) {
        uint64_t a = kPrime1 + kPrime2, b = kPrime2, c = 0, d = 0 - kPrime1;
        for (; end - p >= 32; p += 32) {
            a = round_of(a, word_at<uint64_t>(p)), b = round_of(b, word_at<uint64_t>(p + 8));
            c = round_of(c, word_at<uint64_t>(p + 16)), d = round_of(d, word_at<uint64_t>(p + 24));
        }
        hash = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18);
        hash = merged(merged(merged(merged(hash, a), b), c), d);
    }
    hash += size;
    for (; end - p >= 8; p += 8)
        hash = rotated(hash ^ round_of(0, word_at<uint64_t>(p)), 27) * kPrime1 + kPrime4;
    if (end - p >= 4) {
        hash = rotated(hash ^ word_at<uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
        p += 4;
    }
    for (; p < end; ++p) hash = rotated(hash ^ *p * kPrime5, 11) * kPrime1;
    hash = (hash ^ hash >> 33) * kPrime2;
    hash = (hash ^ hash >> 29) * kPrime3;
    return hash ^ hash >> 32;
}

}  // namespace dgc_plan
