// Runs one pass of what stands around the convolutions over a batch: each worker takes its share of
// the samples. Compiled once for each instruction set.
#include "norm_pool.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace DGC_ISA {

inline bool pools(const DgcNorm& t) {
    return t.pass == DGC_NORM_POOL || t.pass == DGC_NORM_POOL_BACK;
}

int64_t norm_room(const DgcNorm& t) {
    return pools(t) ? pool_room(t) : 0;
}

inline void norm_visit(const DgcNorm& t, int64_t sample, double* sums, float* scratch) {
    if (t.pass == DGC_NORM_TURN) return turn(t, sample);
    for (int64_t c = 0; c < t.channels; ++c) {
        // a pool's own images have another size, and are found by it
        const NormPlane p = norm_plane(t, sample, c);
        switch (t.pass) {
            case DGC_NORM_RELU:
                norm_relu(t, p);
                break;
            case DGC_NORM_MASK:
                norm_mask(t, p, sums);
                break;
            case DGC_NORM_BACK:
                norm_back(t, p);
                break;
            case DGC_NORM_POOL:
                pool_forward(t, p, sample, scratch);
                break;
            case DGC_NORM_POOL_SUMS:
                pool_sums(t, p, sample, sums);
                break;
            case DGC_NORM_MEAN:
                mean_forward(t, p, sample);
                break;
            case DGC_NORM_MEAN_BACK:
                mean_back(t, p, sample);
                break;
            default:
                pool_back(t, p, sample, scratch);
        }
    }
}

inline void norm_work(const DgcNorm& t, int64_t thread) {
    float* scratch = t.scratch + thread * t.scratch_step;
    // an offset to null is not defined, and most passes have no sums
    double* sums = t.sums ? t.sums + thread * 3 * t.channels : nullptr;
    if (t.pass == DGC_NORM_POOL)
        for (int64_t i = 0; i < t.scratch_step; ++i) scratch[i] = kBelow;
    const int64_t end = t.samples * (thread + 1) / t.threads;
    for (int64_t s = t.samples * thread / t.threads; s < end; ++s) norm_visit(t, s, sums, scratch);
}

// Shares are those of `threads`, whoever does them, as in train.cpp.
void norm(const DgcNorm& t) {
    DGC_CHECK(t.threads >= 1 && t.samples >= 0 && t.scratch_step >= norm_room(t));
    DGC_CHECK(!pools(t) || t.kernel * t.kernel < kNoPlace);
#ifdef _OPENMP
    if (t.threads > 1) {
#pragma omp parallel num_threads(int(t.threads))
        for (int64_t i = omp_get_thread_num(); i < t.threads; i += omp_get_num_threads())
            norm_work(t, i);
        return;
    }
#endif
    for (int64_t i = 0; i < t.threads; ++i) norm_work(t, i);
}

}  // namespace DGC_ISA
