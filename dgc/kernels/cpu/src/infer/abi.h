// The C interface of inference: what Python hands over. Plain structs of 64-bit fields, mirrored
// one to one by ctypes. Who adds or moves a field does so in structs.py and mirror.h too, and
// raises dgc_abi_version.
//
// A block holds everything of one or several programs: their DgcProgram, their operations, and the
// constants these read (weights, biases, masks, tables). Inside a block nothing is an address: each
// place is an offset in bytes from the block's start, so a block may be copied, or mapped read-only
// from a file, as it is. Offset 0, where a block has its first bytes, is never a constant: it says
// "there is none". What changes during a run lies in the workspace, whose places are offsets in
// floats. Where both lie, the run says (DgcRun).
//
// Alignment: a block starts at a multiple of 8 bytes and the workspace at one of 4; with 64 both
// are faster, since no vector crosses a line of the cache. In its block each constant starts at a
// multiple of 64. Aliasing: `output` overlaps nothing; block and input are only read.
#pragma once
#include <stdint.h>

// Of the structures in this file. A plan file that was written with another number is refused.
constexpr int kDgcAbi = 8;

extern "C" {

// A tensor of one sample, plane after plane. A plane of `phases`*`phases` sub-planes (1 or 2 or the
// stride of its reader) keeps pixels (y, x) of equal (y % phases, x % phases) together, so that a
// strided or Winograd reader finds its pixels side by side. Rows are `row` apart; the columns
// between width and row are zero and serve as right padding of one row and left padding of the
// next; `lead` zeros come before the first row.
struct DgcTensor {
    int64_t arena;   // 0: belongs to the thread, 1: belongs to the sample
    int64_t offset;  // floats from the start of the arena
    int64_t plane;   // floats from channel to channel
    int64_t phases;
    int64_t phase_plane;  // floats from sub-plane to sub-plane
    int64_t lead;
    int64_t row;
    int64_t length;  // floats of a sub-plane's rows, a multiple of 16
    int64_t height, width;
    int64_t channels;
    int64_t mask;  // int32 [phases * phases][length]: all bits set on pixels, zero on padding
    int64_t reused;  // of a `dst`: 1: another image lies in this memory at another time, so that
                     // who writes this one makes its padding zero, too (padding.h)
};

struct DgcRegion {  // numbers that are no image: means, gates, lists
    int64_t arena, offset;
};

enum DgcKind : int64_t {
    DGC_INPUT,
    DGC_OUTPUT,
    DGC_MEAN,
    DGC_LINEAR,
    DGC_GATES,
    DGC_SELECT,
    DGC_PACK,
    DGC_CONV,
    DGC_WINO,
    DGC_POOL,
    DGC_ADD,
    DGC_COMBINE,
    DGC_GATHER,
    DGC_RESAMPLE,
    DGC_FLATTEN,
    DGC_SPREAD,
    DGC_VECTOR,
    DGC_SOFTMAX,
    DGC_ALONG,
    DGC_DEPTHWISE,
    DGC_ADAPTIVE,
    // Those of 8-bit plans alone (int8/ops8.h); what they read of a DgcOp is said there.
    DGC_CONV8 = 100,  // weight: bytes, external: their scales, lanes: 1 where values may be
                      // negative, in: largest magnitudes of src, span: 1: mean and largest
                      // magnitude of each output go to `out` and `panel`
    DGC_STATS,        // mean and largest magnitude of each channel, to `out` and `panel`
    DGC_READERS,      // the same for `heads` readers of an image, each through its own BatchNorm and
                      // ReLU (bias); weight: where in `out`, of `hidden` numbers, they find it
    DGC_ROWS16,       // as DGC_LINEAR, weights of 16 bits, in_scale: a scale for each row
    DGC_GATES16       // as DGC_GATES, likewise
};

// What follows the sum of an operation (activation.h).
enum DgcAct : int64_t {
    DGC_NO_ACT,
    DGC_RELU,
    DGC_RELU6,
    DGC_HARDSWISH,
    DGC_HARDSIGMOID,
    DGC_SILU,
    DGC_SIGMOID,
    DGC_LEAKY,
    DGC_GELU,
    DGC_GELU_TANH,
    DGC_TANH,
    DGC_ELU,
    DGC_MISH
};

// How an operation combines its operands, or goes through its image.
enum DgcMode : int64_t { DGC_ALONE, DGC_PLUS, DGC_MINUS, DGC_TIMES, DGC_BY_ROWS };

struct DgcOp {
    int64_t kind;
    int64_t batched;  // run over all samples at once: its weights are heavier than its activations
    DgcTensor src, dst, residual;
    DgcRegion in, out, list;  // list: what was selected (see gates.h)
    int64_t channels;         // C: input channels (of all groups together)
    int64_t heads, outs;      // G heads or groups, outs = O / G
    int64_t dynamic;          // 1: the channels of `list`; 0: group i reads its own C / G channels
    int64_t taps;             // kernel positions
    int64_t offsets;   // int64 [output sub-planes][taps]: where each tap lies, relative to the
                       // output position
    int64_t weight;    // float, in the order that the kind reads
    int64_t external;  // DGC_SELECT: float, the gates of all samples; 0: they are in `in`
    int64_t bias;      // float, per output channel, in the order of the output
    int64_t in_scale, in_shift;  // float [channels]: BatchNorm in front; 0: none. ReLU after it
    int64_t relu, in_relu;
    int64_t has_residual;         // 1: `residual` is added before the ReLU
    int64_t out_step, head_step;  // output channel of head i, row j = j * out_step + i * head_step
    int64_t inactive;             // n
    int64_t hidden;               // hidden units per head
    int64_t scale_weights;  // 1: gates multiply the weights (a scaled copy in `panel`), 0: they
                            // multiply the input
    DgcRegion panel;
    int64_t lanes;  // 1: few pixels, weights for vectors over output channels (lanes.h)
    int64_t span;   // DGC_WINO: tiles that a head takes at once. DGC_DEPTHWISE, DGC_COMBINE: 1: the
                    // mean of each channel of the result goes to `out`
    int64_t edges;  // int32 [2][dst.length]: all bits set on tiles with a neighbour to the left, to
                    // the right
    int64_t pool_kind, pool_kernel, pool_stride, pool_pad;  // kind 0: max, 1: average; of rows
    int64_t pool_kernel_w, pool_stride_w, pool_pad_w;       // of columns
    int64_t act, slope;  // DgcAct behind everything but `relu`, and its number: a float's bits
    int64_t mode;        // DgcMode
    int64_t has_vector;  // DGC_COMBINE: 1: the second operand is a number a channel, in `in`
    int64_t index;       // int32, which channel, number, row or column is read; 0: each its own
    int64_t out_first;   // where the result begins: in the region `out`, or in the run's output
    // Of DGC_CONV8, layouts without a place in the workspace; phases 0: there is none.
    DgcTensor bytes;     // how the values of `src` lie as bytes, where a stride wants its pixels
                         // apart and `src` has them side by side
    DgcTensor unpooled;  // the convolution's own result, eight channels of which at a time lie in
                         // scratch and are pooled (pool_*, the largest of each window) into `dst`
};

struct DgcProgram {
    int64_t ops, count;  // `count` operations lie at `ops` of the block
    int64_t thread_floats, sample_floats,
        scratch_floats;             // of the workspace: per thread, sample, thread; multiples of 16
    int64_t in_floats, out_floats;  // per sample, of the caller's contiguous arrays
    int64_t exact;  // 1: an 8-bit plan, whose results are the same bits on every machine
};

struct DgcRun {
    const void* block;
    int64_t block_bytes;
    int64_t program;  // where the DgcProgram to be run lies in the block
    const float* input;
    float* output;
    float* workspace;  // threads * thread_floats, then threads * scratch_floats, then samples *
                       // sample_floats; zero at first, and as the last run left it where threads
                       // are as many as then (samples come last, so that a run of fewer finds its own)
    int64_t workspace_floats;
    int64_t samples, threads;
    int64_t features;  // those that may be used, as dgc_features says them
    double* seconds;  // per operation, as the first thread sees them; null: nobody asks
};

// What dgc_run answers. Nothing has been computed unless it is DGC_DONE.
enum DgcAnswer : int64_t { DGC_DONE, DGC_NO_SUCH_ISA, DGC_BAD_BLOCK, DGC_BAD_WORKSPACE };
}

// Static: each instruction set's object has its own, so that the linker never takes one compiled
// for another machine.
static inline const DgcProgram& program_of(const DgcRun& run) {
    return *(const DgcProgram*)((const char*)run.block + run.program);
}
