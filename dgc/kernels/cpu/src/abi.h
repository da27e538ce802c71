// What Python hands over: plain structs of 64-bit fields, so that ctypes can mirror them one to one. Who adds or moves a
// field does so in structs.py and mirror.h too, and raises dgc_abi_version.
#pragma once
#include <stdint.h>

extern "C" {

// A tensor of one sample, plane after plane. A plane of `phases`*`phases` sub-planes (1 or 2 or the stride of its reader) keeps
// pixels (y, x) of equal (y % phases, x % phases) together, so that a strided or Winograd reader finds its pixels side by side.
// Rows are `row` apart; the columns between width and row are zero and serve as right padding of one row and left padding of
// the next; `lead` zeros come before the first row.
struct DgcTensor {
    int64_t arena;        // 0: belongs to the thread, 1: belongs to the sample
    int64_t offset;       // floats from the start of the arena
    int64_t plane;        // floats from channel to channel
    int64_t phases;
    int64_t phase_plane;  // floats from sub-plane to sub-plane
    int64_t lead;
    int64_t row;
    int64_t length;       // floats of a sub-plane's rows, a multiple of 16
    int64_t height, width;
    int64_t channels;
    const int32_t* mask;  // [phases * phases][length]: all bits set on pixels, zero on padding
};

struct DgcRegion {        // numbers that are no image: means, gates, lists
    int64_t arena, offset;
};

enum DgcKind : int64_t {
    DGC_INPUT, DGC_OUTPUT, DGC_MEAN, DGC_LINEAR, DGC_GATES, DGC_SELECT, DGC_PACK, DGC_CONV, DGC_WINO, DGC_POOL, DGC_ADD
};

struct DgcOp {
    int64_t kind;
    int64_t batched;              // run over all samples at once: its weights are heavier than its activations
    DgcTensor src, dst, residual;
    DgcRegion in, out, list;      // list: what was selected (see gates.h)
    int64_t channels;             // C: input channels (of all groups together)
    int64_t heads, outs;          // G heads or groups, outs = O / G
    int64_t dynamic;              // 1: the channels of `list`; 0: group i reads its own C / G channels
    int64_t taps;                 // kernel positions
    const int64_t* offsets;       // [output sub-planes][taps]: where each tap lies, relative to the output position
    const float* weight;
    const float* external;        // DGC_SELECT: the gates of all samples, or null: they are in `in`
    const float* bias;            // per output channel, in the order of the output
    const float *in_scale, *in_shift;  // BatchNorm in front (may be null); ReLU after it
    int64_t relu, in_relu;
    int64_t has_residual;         // 1: `residual` is added before the ReLU
    int64_t out_step, head_step;  // output channel of head i, row j = j * out_step + i * head_step
    int64_t inactive;             // n
    int64_t hidden;               // hidden units per head
    int64_t scale_weights;        // 1: gates multiply the weights (a scaled copy in `panel`), 0: they multiply the input
    DgcRegion panel;
    int64_t lanes;                // 1: few pixels, weights for vectors over output channels (lanes.h)
    int64_t span;                 // DGC_WINO: tiles that a head takes at once
    const int32_t* edges;         // [2][dst.length]: all bits set on tiles with a neighbour to the left, to the right
    int64_t pool_kind, pool_kernel, pool_stride, pool_pad;  // kind 0: max, 1: average
};

struct DgcProgram {
    const DgcOp* ops;
    int64_t count;
    int64_t thread_floats, sample_floats, scratch_floats;
    int64_t in_floats, out_floats;  // per sample, of the caller's contiguous arrays
};

struct DgcRun {
    const DgcProgram* program;
    const float* input;
    float* output;
    float* arena;  // threads * thread_floats, then samples * sample_floats, then threads * scratch_floats
    int64_t samples, threads;
    double* seconds;  // per operation, as the first thread sees them; null: nobody asks
};
}
