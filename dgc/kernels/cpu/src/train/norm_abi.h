// The C interface of what stands around the convolutions in training: BatchNorm with ReLU, a sum,
// a max-pool; and the transposition of weights. Mirrored by ctypes (structs.py), written in Python
// by norm_passes.py.
//
// All floats are float32, planes are contiguous, samples `..._step` floats apart. BatchNorm is
// folded into scale and shift of each channel. No output overlaps an input, but `to` may be `grad`
// in DGC_NORM_MASK and DGC_NORM_BACK.
#pragma once
#include <stdint.h>

extern "C" {

enum DgcNormPass : int64_t {
    DGC_NORM_RELU,       // y = relu(x * scale + shift + other), and the moments of its planes
    DGC_NORM_MASK,       // to = what comes through the ReLU of grad (+ u * a + b), and its sums
    DGC_NORM_BACK,       // to = grad * scale + x * a + b
    DGC_NORM_POOL,       // y = max-pool of relu(x * scale + shift), and the places of the maxima
    DGC_NORM_POOL_SUMS,  // sums of what comes through pool and ReLU of grad
    DGC_NORM_POOL_BACK,  // to = that * scale + x * a + b
    DGC_NORM_MEAN,       // y = means of windows of kernel x kernel, side by side
    DGC_NORM_MEAN_BACK,  // to = grad / kernel^2, for each pixel of a window
    DGC_NORM_TURN        // y[sample] = transposed x[sample], which has `height` rows of `width`
};

constexpr int64_t kNoPlace = 255;  // a maximum of zero: nothing comes through its ReLU

struct DgcNorm {
    int64_t pass, samples, threads;
    int64_t channels, height, width;
    int64_t out_height, out_width, kernel, stride, padding;  // of the pool
    const float* x;
    int64_t x_step;
    const float *scale, *shift, *mean;  // [channels]
    const float* other;                 // as x: what is added before the ReLU; null: nothing
    int64_t other_step;
    const float *other_scale, *other_shift, *other_mean;  // [channels]; null: `other` as it is
    float* y;  // the output; for DGC_NORM_MASK, where it is above zero (null: where x * scale +
               // shift is)
    int64_t y_step;
    float *plane_mean, *plane_square;  // [samples][channels]; may be null. For DGC_NORM_MASK without
                                       // `grad`: the gradient of each pixel of a plane
    uint8_t* place;                    // [samples][channels][out pixels]: ky * kernel + kx
    const float* grad;
    int64_t grad_step;
    float* to;
    int64_t to_step;
    const float *a, *b;  // [channels]; null (in DGC_NORM_MASK): nothing is added
    double* sums;  // [threads][3][channels], zeroed: of g, g * (x - mean), g * (other - its mean)
    float* scratch;  // threads * scratch_step floats
    int64_t scratch_step;
};
}
