// Runs one pass over a batch: each worker takes its share of the samples. Compiled once for each
// instruction set.
#include "train_forward.h"
#include "train_input.h"
#include "train_weights.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace DGC_ISA {

inline void moments_sample(const DgcTrain& t, int64_t sample, int64_t, const Room&) {
    for (int64_t c = 0; c < t.channels; ++c) {
        const int64_t i = sample * t.channels + c;
        moments(t.x + sample * t.x_step + c * pixels_in(t), pixels_in(t), t.plane_mean + i,
                t.plane_square + i);
    }
}

inline void pooled_sample(const DgcTrain& t, int64_t sample, int64_t, const Room&) {
    for (int64_t c = 0; c < t.channels; ++c) pooled(t, sample, c);
}

inline void choose_sample(const DgcTrain& t, int64_t sample, int64_t, const Room& room) {
    for (int64_t head = 0; head < t.heads; ++head) choose(t, sample, head, (int32_t*)room.in);
}

inline void add_affine_sample(const DgcTrain& t, int64_t sample, int64_t, const Room&) {
    for (int64_t c = 0; c < t.channels; ++c) {
        const int64_t n = pixels_in(t);
        const float* x = t.x + sample * t.x_step + c * n;
        float* to = t.grad_x + sample * t.grad_x_step + c * n;
        const float scale = t.scale[c], shift = t.shift[c];
        for (int64_t i = 0; i < n; ++i) to[i] += x[i] * scale + shift;
    }
}

typedef void (*Visit)(const DgcTrain&, int64_t sample, int64_t thread, const Room&);

inline Visit visit_of(const DgcTrain& t) {
    // one table instead of a branch a sample: the pass is the same for the whole batch
    switch (t.pass) {
        case DGC_MOMENTS:
            return moments_sample;
        case DGC_POOLED:
            return pooled_sample;
        case DGC_CHOOSE:
            return choose_sample;
        case DGC_ADD_AFFINE:
            return add_affine_sample;
        case DGC_FORWARD:
            return forward_sample;
        case DGC_GRAD_WEIGHT:
            return weights_sample;
        default:
            return back_sample;
    }
}

// The samples of one share; what pads the planes is zero throughout.
inline void work(const DgcTrain& t, int64_t thread) {
    const Room room = room_of(t, thread);
    if (t.pass >= DGC_FORWARD) __builtin_memset(room.in, 0, (floats_in(t) + floats_out(t)) * 4);
    const Visit visit = visit_of(t);
    // whole samples: each is visited by one worker, which alone writes what belongs to it
    const int64_t end = t.samples * (thread + 1) / t.threads;
    for (int64_t s = t.samples * thread / t.threads; s < end; ++s) visit(t, s, thread, room);
}

int64_t train_room(const DgcTrain& t) {
    return floats_room(t);
}

// Shares are those of `threads`, whoever does them: sums come out the same inside another parallel
// region, too.
void train(const DgcTrain& t) {
    DGC_CHECK(t.threads >= 1 && t.samples >= 0 && (t.heads == 0 || t.channels > 0));
    DGC_CHECK(t.own == 0 || t.own * t.heads == t.channels);
    DGC_CHECK(t.planes.length % kAlign == 0 && t.planes.lead % kAlign == 0);
#ifdef _OPENMP
    // a parallel region may give fewer threads than
    // were asked for: each then takes every n-th share
    if (t.threads > 1) {
#pragma omp parallel num_threads(int(t.threads))
        for (int64_t i = omp_get_thread_num(); i < t.threads; i += omp_get_num_threads())
            work(t, i);
        return;
    }
#endif
    for (int64_t i = 0; i < t.threads; ++i) work(t, i);
}

}  // namespace DGC_ISA
