// The C interface of training: what Python hands over for one pass over a batch. Plain 64-bit
// fields, mirrored by ctypes (structs.py). Unlike a program's, its places are addresses: they are
// tensors of PyTorch, and a pass is never stored.
//
// All floats are float32 and contiguous but for the steps between samples; no output overlaps an
// input, but grad_x may be added to (`add`). Alignment as PyTorch gives it (a multiple of 4
// suffices). index and count come from DGC_CHOOSE or are what it would write: ascending, count <=
// kept, index < channels. Written in Python by train_passes.py.
#pragma once
#include <stdint.h>

extern "C" {

enum DgcPass : int64_t {
    DGC_MOMENTS,
    DGC_POOLED,
    DGC_CHOOSE,
    DGC_ADD_AFFINE,
    DGC_FORWARD,
    DGC_GRAD_WEIGHT,
    DGC_GRAD_INPUT
};

// Where the pixels of a channel lie while a kernel wider than 1x1 works on them: `stride`^2
// sub-planes of `length` floats, rows `row` apart with zeros between them, `lead` zeros before each
// sub-plane; tap t of the output at position p reads position p + shift[t] of sub-plane phase[t].
// `length` is 0 for a 1x1 convolution of stride 1 without padding, which takes pixels as they lie.
struct DgcPlanes {
    int64_t stride, row, lead, length;
    const int64_t *phase, *shift;  // [taps]
};

struct DgcTrain {
    int64_t pass, samples, threads;
    int64_t channels, height, width;  // of the input
    int64_t out_height, out_width;
    int64_t heads, outs, taps;    // outs: outputs of a head
    int64_t own;                  // a static group's channels; 0: the heads choose
    int64_t kept;                 // capacity of a head's list
    int64_t inactive;             // n, for DGC_CHOOSE
    int64_t out_step, head_step;  // output channel of head i, row j: j * out_step + i * head_step
    DgcPlanes planes;
    const float* x;  // planes are contiguous, samples x_step floats apart
    int64_t x_step;
    const float *scale, *shift, *mean;  // [channels]; a = relu(x * scale + shift); null: a = x
    const float* gates;                 // [samples][heads][channels], all of them, for DGC_CHOOSE
    int32_t* count;                     // [samples][heads]
    int32_t* index;                     // [samples][heads][kept], ascending
    float* gate;                        // [samples][heads][kept]
    const float* weight;                // [heads][channels or own][taps][outs]
    float* y;                           // the output, or the gradient of it
    int64_t y_step;
    float* plane_mean;    // [samples][outputs], or of the input for DGC_MOMENTS and DGC_POOLED; may
                          // be null
    float* plane_square;  // [samples][outputs]: sum of (value - plane's mean)^2; may be null
    float* grad_weight;   // [threads][as weight], zeroed
    float* grad_gate;     // [samples][heads][kept]
    const float* grad_pooled;  // [samples][channels]: what each pixel of `a` gets from the gates;
                               // may be null
    float* grad_x;  // of x * scale + shift, times `factor`, written or added; DGC_ADD_AFFINE adds
                    // x * scale + shift to it
    int64_t grad_x_step;
    const float* factor;  // [channels]; null: 1
    int64_t add;
    double* sums;    // [threads][2][channels], zeroed: sum of g, sum of g * (x - mean)
    float* scratch;  // threads * scratch_step floats
    int64_t scratch_step;
};
}
