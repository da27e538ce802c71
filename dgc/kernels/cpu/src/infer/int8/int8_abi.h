// The C interface of 8-bit convolutions: one layer over a batch, with addresses, as in training
// (train_abi.h). Mirrored by structs.py and mirror.h.
//
// What is computed, for each sample and head (or group), with K kept channels:
//   v = x of a kept channel; behind a BatchNorm relu(x * in_scale + in_shift)
//   largest = the largest gate * top of the kept channels; levels = 127 where values may be
//             negative, else 255; inverse = levels / largest, and 0 where largest < 1e-30
//   q = x * factor with factor = gate * inverse, behind a BatchNorm relu(x * (in_scale * factor) +
//       in_shift * factor); rounded to the nearest integer (to even between two), at most levels,
//       at least 0 or -levels
//   y = float(sum of q * weight) * ((largest / levels) * weight_scale) + bias, + residual, ReLU
// The sum is of integers and exact. The rest is float32 in this order, each step rounded by itself
// (no fused multiply-add), so y has the same bits on every instruction set, for any number of
// threads, and whatever samples stand beside. Where `largest` is NaN or infinite the head says NaN.
#pragma once
#include "../abi.h"

extern "C" {

enum DgcInt8Pass : int64_t {
    DGC_INT8_MEANS,      // mean and top of each channel
    DGC_INT8_CONVOLVE,   // the layer
    DGC_INT8_REFERENCE,  // the layer once more, by plain loops over pixels: what tests compare with
};

struct DgcInt8 {
    int64_t pass;  // a DgcInt8Pass
    int64_t samples, threads;
    DgcTensor src, dst;  // how planes lie: the bytes of what is read, and the result; their arena,
                         // offset and mask are not read
    DgcTensor image;     // how x itself lies: as src, or, where src has 2 x 2 sub-planes, without
    const float* x;      // with image.lead floats of zero and 64 more behind each sample's last plane
    int64_t x_step;      // floats from sample to sample
    const int32_t* src_mask;  // as DgcTensor.mask; of DGC_INT8_MEANS that of `image`
    const int32_t* dst_mask;
    float* y;
    int64_t y_step;
    const float* residual;               // lies as y; null: none
    int64_t channels, heads, outs, taps;  // channels of all groups together; outs of one head
    int64_t dynamic;            // 1: count, index, gate say what is kept; 0: a group's own channels
    const int64_t* offsets;     // as DgcOp.offsets
    const int8_t* weight;       // [head][channel][tap][outs, padded with zeros to 16]
    const float* weight_scale;  // [head][outs]
    const float* bias;          // [output channel]; null: none
    const float* in_scale;      // [channels]; null: no BatchNorm in front
    const float* in_shift;
    int64_t is_signed;  // 1: values may be negative; 0: they are not, or are behind a ReLU
    int64_t relu, out_step, head_step;  // as in DgcOp
    float* mean;        // [samples][channels], written by DGC_INT8_MEANS
    float* top;         // [samples][channels]: the largest magnitude, written by it, read by others
    const float* list;  // [samples][heads]: what a head keeps, as in gates.h
    float* out_mean;    // [samples][output channels]; null: nobody asks. Mean and largest
    float* out_top;     // magnitude of what was written, as DGC_INT8_MEANS would find them
    uint8_t* scratch;   // threads * scratch_step bytes, at a multiple of 64
    int64_t scratch_step;  // at least what dgc_int8_room says
};
}
