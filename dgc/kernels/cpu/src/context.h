// Where the operations of one sample find their memory, and how work is shared out.
#pragma once
#include "abi.h"
#include "vec.h"

namespace DGC_ISA {

struct Context {
    const DgcRun* run;
    const char* block;         // what constants are offsets into
    const DgcProgram* program;
    const DgcOp* ops;
    int64_t thread, threads;   // this worker among those that share the operation
    int64_t sample;
    float* bases[2];           // thread arena, sample arena
    float* scratch;            // private to the worker
    bool first_worker;         // the one whose time counts, if somebody asks
};

struct Range {
    int64_t begin, end;
};

// A share depends on nothing but the counts, and no sum is split between workers: same bits for any number of threads.
DGC_INLINE Range cut(int64_t items, int64_t part, int64_t parts) {
    return {items * part / parts, items * (part + 1) / parts};
}
DGC_INLINE Range share(int64_t items, const Context& c) { return cut(items, c.thread, c.threads); }

// A constant of the program. An optional one is asked for only where its offset is not 0.
template <class T>
DGC_INLINE const T* constant(const Context& c, int64_t offset) { return (const T*)(c.block + offset); }
DGC_INLINE const float* floats(const Context& c, int64_t offset) { return constant<float>(c, offset); }
DGC_INLINE const int32_t* mask_of(const Context& c, const DgcTensor& t) { return constant<int32_t>(c, t.mask); }
DGC_INLINE float bias_of(const DgcOp& op, const Context& c, int64_t i) { return op.bias ? floats(c, op.bias)[i] : 0.0f; }

DGC_INLINE float* at(const Context& c, const DgcTensor& t) { return c.bases[t.arena] + t.offset; }
DGC_INLINE float* at(const Context& c, const DgcRegion& r) { return c.bases[r.arena] + r.offset; }

DGC_INLINE float* pixel(const DgcTensor& t, float* plane, int64_t y, int64_t x) {
    const int64_t s = t.phases;
    if (s == 1) return plane + t.lead + y * t.row + x;
    if (s == 2) return plane + ((y & 1) * 2 + (x & 1)) * t.phase_plane + t.lead + (y >> 1) * t.row + (x >> 1);
    return plane + ((y % s) * s + x % s) * t.phase_plane + t.lead + (y / s) * t.row + x / s;
}

DGC_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DGC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Output channels that lie together in packed weights: sixteens (a line of the cache), then an 8, a 4, a 2, a 1.
constexpr int64_t kBlock = 16;
DGC_INLINE int64_t block_of(int64_t left) {
    return left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

}  // namespace DGC_ISA
