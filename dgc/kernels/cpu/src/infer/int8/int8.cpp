// One 8-bit layer over a batch, for one instruction set: samples and heads are shared out to
// threads. What plans run is in ops8.h; both compute the same.
#include "reference8.h"

namespace DGC_ISA {

int64_t int8_room(const DgcInt8& q) {
    return room_of(q).bytes();
}

// Items of a pass are shared out in parts that depend on nothing but their number.
void int8(const DgcInt8& q) {
    const int64_t own = q.pass == DGC_INT8_MEANS ? q.channels : q.heads, items = q.samples * own;
#pragma omp parallel for num_threads(int(q.threads)) schedule(static)
    for (int64_t part = 0; part < q.threads; ++part) {
        const Range mine = cut(items, part, q.threads);
        for (int64_t i = mine.begin; i < mine.end; ++i)
            if (q.pass == DGC_INT8_MEANS)
                means_of(q, i / own, i % own);
            else if (q.pass == DGC_INT8_REFERENCE)
                reference_head(q, i / own, i % own);
            else
                convolve_head(q, i / own, i % own, {0, q.outs}, q.scratch + part * q.scratch_step);
    }
}

}  // namespace DGC_ISA
