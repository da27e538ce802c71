// Where the operations of one sample find their memory, and how work is shared out.
//
// A Context belongs to one worker and one sample. Arenas and scratch do not overlap, nor do those
// of two threads or samples; scratch has scratch_floats and holds nothing when an operation starts.
// Workers that share an operation write different items of its output, and everybody waits before
// the next operation (crew.h). Used by all of infer/.
#pragma once
#include "../common/counts.h"
#include "abi.h"

namespace DGC_ISA {

struct Context {
    const DgcRun* run;
    const char* block;  // what constants are offsets into
    const DgcProgram* program;
    const DgcOp* ops;
    int64_t worker, threads;  // this worker among those that share the operation
    int64_t sample;
    float* bases[2];    // thread arena, sample arena
    float* scratch;   // private to the worker
};

// A constant of the program. An optional one is asked for only where its offset is not 0.
template <class T>
DGC_INLINE const T* constant(const Context& c, int64_t offset) {
    return (const T*)(c.block + offset);
}
DGC_INLINE const float* floats(const Context& c, int64_t offset) {
    return constant<float>(c, offset);
}
DGC_INLINE const int32_t* mask_of(const Context& c, const DgcTensor& t) {
    return constant<int32_t>(c, t.mask);
}
DGC_INLINE float bias_of(const DgcOp& op, const Context& c, int64_t i) {
    return op.bias ? floats(c, op.bias)[i] : 0.0f;
}

DGC_INLINE float* at(const Context& c, const DgcTensor& t) {
    return c.bases[t.arena] + t.offset;
}
DGC_INLINE float* at(const Context& c, const DgcRegion& r) {
    return c.bases[r.arena] + r.offset;
}

DGC_INLINE float* pixel(const DgcTensor& t, float* plane, int64_t y, int64_t x) {
    const int64_t s = t.phases;
    if (s == 1) return plane + t.lead + y * t.row + x;
    if (s == 2)
        return plane + ((y & 1) * 2 + (x & 1)) * t.phase_plane + t.lead + (y >> 1) * t.row +
               (x >> 1);
    return plane + ((y % s) * s + x % s) * t.phase_plane + t.lead + (y / s) * t.row + x / s;
}

struct Pixels {  // of one sub-plane
    int64_t height, width;
};

DGC_INLINE Pixels pixels_of(const DgcTensor& t, int64_t subplane) {
    // A division for each of many small planes would cost as much as what is done with it.
    if (t.phases == 1) return {t.height, t.width};
    return {ceil_div(t.height - subplane / t.phases, t.phases),
            ceil_div(t.width - subplane % t.phases, t.phases)};
}

// Vectors of a sub-plane up to its last pixel: so far convolutions write. What lies behind is padding.
DGC_INLINE int64_t used_vectors(const DgcTensor& t) {
    const Pixels most = pixels_of(t, 0);
    return ceil_div((most.height - 1) * t.row + most.width, VL);
}

}  // namespace DGC_ISA
