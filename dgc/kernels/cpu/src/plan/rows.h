// What each kind of operation touches, one row a kind: its images, the other memory of the workspace,
// its constants in the block, and what else its kernel relies on. The verifier (program.cpp) knows of
// an operation what stands here and refuses a kind without a row; an operand that a row does not name
// has to be absent.
//
// Sizes rest on the kernels in infer/, whatever the instruction set: vectors of at most 16 floats.
// A function is asked only after every number of the operation was found between 0 and 2^36, a rule
// only after the operands were found inside their memory.
#pragma once
#include "../infer/abi.h"
#include "arithmetic.h"

namespace dgc_plan {

struct Place {  // of one operation
    const DgcOp& op;
    const DgcProgram& program;
    const char* block;
};

enum Access { READS, WRITES, MAKES_LIST, READS_LIST };

struct ImageUse {
    const char* name;
    DgcTensor DgcOp::*at;
    Access access;
    bool (*present)(const DgcOp&);  // null: always
};
struct RegionUse {
    const char* name;
    DgcRegion DgcOp::*at;
    Access access;
    int64_t (*floats)(const DgcOp&);  // -1: it has to be absent
};
struct ConstantUse {
    const char* name;
    int64_t DgcOp::*at;
    int64_t each;                    // bytes of a number
    int64_t (*count)(const DgcOp&);  // -1: it has to be absent
    bool needed;
};
enum Programs { BOTH, IN_FLOATS, IN_BYTES };  // which have such operations (DgcProgram.exact)

struct Row {
    int64_t kind;
    Programs programs;
    const char* name;
    int64_t DgcOp::*counts[3];  // numbers that are at least 1
    ImageUse images[3];
    RegionUse regions[4];
    ConstantUse constants[7];
    const char* (*rule)(const Place&);  // null, or what is wrong
};

// A kernel may read this far behind the last plane of an image, beside its `lead`.
constexpr int64_t kTail = 4 * kAlign;

inline int64_t subplanes(const DgcTensor& t) {
    return times(t.phases, t.phases);
}
inline int64_t own_channels(const DgcOp& op) {
    return op.dynamic ? op.channels : op.channels / (op.heads > 0 ? op.heads : 1);
}
inline int64_t list_floats(const DgcOp& op) {  // see infer/gates.h
    return times(op.heads, plus(kAlign, times(2, up16(op.channels))));
}
inline int64_t all_weights(const DgcOp& op) {
    return times(op.heads, op.outs, op.channels, op.taps);
}
inline int64_t conv_weights(const DgcOp& op) {
    return times(op.heads, op.outs, own_channels(op), op.kind == DGC_WINO ? 16 : op.taps);
}
// How a convolution finds its values, and how it leaves its sums.
inline const DgcTensor& as_read(const DgcOp& op) {
    return op.bytes.phases ? op.bytes : op.src;
}
inline const DgcTensor& as_written(const DgcOp& op) {
    return op.unpooled.phases ? op.unpooled : op.dst;
}
inline int64_t tap_count(const DgcOp& op) {
    return op.kind == DGC_WINO ? 16 : times(subplanes(as_written(op)), op.taps);
}
inline int64_t norm_count(const DgcOp& op) {
    return op.src.channels;
}

inline bool alike(const DgcTensor& a, const DgcTensor& b) {
    return a.phases == b.phases && a.row == b.row && a.length == b.length;
}
inline bool same_size(const DgcTensor& a, const DgcTensor& b) {
    return a.height == b.height && a.width == b.width;
}

// Whether each tap, moved over the whole output, stays inside the source: from its first zeros to
// kTail behind its last.
inline bool taps_inside(const Place& p) {
    const DgcTensor &s = as_read(p.op), &d = as_written(p.op);
    const int64_t* tap = (const int64_t*)(p.block + p.op.offsets);
    for (int64_t i = 0, n = tap_count(p.op); i < n; ++i)
        if (tap[i] < -s.lead || tap[i] > plus(s.plane, kTail) - d.length) return false;
    return true;
}

inline bool reads_copy(const DgcOp& op) {  // conv.h: from_copy
    return op.dynamic && !op.scale_weights && (op.taps > 1 || op.lanes);
}

inline int64_t conv_scratch(const DgcOp& op) {
    const DgcTensor &s = op.src, &d = op.dst;
    if (reads_copy(op)) {
        const int64_t planes = plus(times(op.channels, s.plane), s.lead, kTail);
        if (!op.lanes) return planes;
        const int64_t pixels = times(op.channels, subplanes(d), d.length);
        const int64_t sums = times(parts_of(d.height, d.phases), parts_of(d.width, d.phases), 32);
        return plus(op.taps == 1 ? pixels : planes, sums, d.length);
    }
    if (!op.dynamic || op.scale_weights) return 0;
    return times(op.channels, d.length < 24 * kAlign ? d.length : 24 * kAlign);
}

// Both convolutions: where channels and taps lie.
inline const char* products_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.channels != op.src.channels) return "channels";
    if (times(op.heads, op.outs) != op.dst.channels) return "heads x outputs";
    if (plus(times(op.outs - 1, op.out_step), times(op.heads - 1, op.head_step)) >=
        op.dst.channels)
        return "the steps between output channels";
    if (op.dynamic && op.inactive >= op.channels) return "the number of inactive channels";
    if ((op.in_scale == 0) != (op.in_shift == 0)) return "scale without shift";
    if (as_read(op).row != as_written(op).row) return "the rows of source and target";
    if (op.has_residual && (!alike(op.residual, op.dst) || op.residual.channels != op.dst.channels))
        return "the residual's layout";
    return taps_inside(p) ? nullptr : "a tap that lies outside the source";
}

inline const char* conv_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (const char* wrong = products_rule(p)) return wrong;
    if (!op.dynamic && (op.channels % op.heads || op.lanes || op.scale_weights))
        return "groups of a static convolution";
    if (op.lanes && (op.dst.phases > 2 || op.outs % kAlign || op.scale_weights))
        return "vectors over output channels";
    return conv_scratch(op) <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* wino_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (const char* wrong = products_rule(p)) return wrong;
    if (op.taps != 9 || !op.dynamic || op.src.phases != 2 || op.dst.phases != 2)
        return "the form of a convolution by tiles";
    // pieces end where register tiles do: up to 96 behind their span
    const int64_t most = plus(op.span, 96) < op.dst.length ? plus(op.span, 96) : op.dst.length;
    const int64_t room = times(16, plus(times(plus(op.channels, op.outs), most), 2 * kAlign));
    return room <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* norm_rule(const Place& p) {
    return (p.op.in_scale == 0) == (p.op.in_shift == 0) ? nullptr : "scale without shift";
}

// int8/conv8.h: what Room says, in numbers of 4 bytes; and that no sum leaves 32 bits. Taps that lie
// inside the source (taps_inside) keep an output within a plane and its tail, which Room has.
// Layouts of a convolution in bytes that have no place in the workspace: sub-planes of an image that
// has none, and what is pooled by windows that all lie in the image and its padding.
inline const char* layouts_rule(const Place& p) {
    const DgcOp& op = p.op;
    const DgcTensor &b = op.bytes, &u = op.unpooled;
    if (b.phases && (b.phases != 2 || op.src.phases != 1 || !same_size(b, op.src) ||
                     b.channels != op.src.channels))
        return "the layout of its bytes";
    if (!u.phases) return nullptr;
    const int64_t k = op.pool_kernel, pad = op.pool_pad;
    if (u.phases != 1 || op.dst.phases != 1 || u.channels != op.dst.channels || op.has_residual ||
        op.span)
        return "the layout of what is pooled";
    if ((k != 2 && k != 3) || op.pool_stride != 2 || op.pool_kind != 0 || pad >= k)
        return "the windows";
    if (plus(times(op.dst.height - 1, 2), k) > plus(u.height, times(2, pad)) ||
        plus(times(op.dst.width - 1, 2), k) > plus(u.width, times(2, pad)))
        return "a window that leaves the image";
    return nullptr;
}

// A single tap goes through every second row and column of the image itself (pack8.h: pack_seconds).
inline bool seconds_inside(const Place& p) {
    const DgcTensor &s = p.op.src, &b = p.op.bytes, &d = p.op.dst;
    if (!b.phases || p.op.taps != 1) return true;
    const int64_t tap = *(const int64_t*)(p.block + p.op.offsets), sub = tap / b.phase_plane;
    if (tap < 0 || tap % b.phase_plane) return true;
    return sub < 4 && 2 * (d.height - 1) + sub / 2 < s.height &&
           2 * (d.width - 1) + sub % 2 < s.width;
}

inline const char* conv8_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (const char* wrong = layouts_rule(p)) return wrong;
    if (const char* wrong = products_rule(p)) return wrong;
    if (!seconds_inside(p)) return "a tap that lies outside the source";
    if (!op.dynamic && op.channels % op.heads) return "groups of a static convolution";
    if (op.has_residual &&
        (op.residual.plane != op.dst.plane || op.residual.phase_plane != op.dst.phase_plane ||
         op.residual.lead != op.dst.lead))
        return "the residual's layout";
    const int64_t own = own_channels(op), fours = parts_of(own, 4), width = up16(op.outs);
    if (times(own, op.taps) > 33155) return "more products in a sum than 32 bits hold";
    const int64_t deep = fours < 5 ? fours : up16(fours);
    const DgcTensor &s = as_read(op), &u = op.unpooled;
    const int64_t values = up16(times(deep, plus(s.plane, s.lead, kTail)));
    const int64_t pooled =
        u.phases ? plus(times(8, u.plane), u.width, plus(times(2, op.pool_pad), 128)) : 0;
    const int64_t room = plus(values, up16(times(2, times(deep, op.taps, width))), width,
                              plus(up16(parts_of(times(op.taps, width), 4)), 8192, pooled));
    return room <= p.program.scratch_floats ? nullptr : "the scratch";
}

// int8/ops8.h: where in `out` each reader finds what is told of the image's channels.
inline const char* readers_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.channels != op.src.channels) return "channels";
    if (op.src.phases != 1) return "an image in sub-planes";
    const int64_t* place = (const int64_t*)(p.block + op.weight);
    for (int64_t i = 0; i < 2 * op.heads; ++i)
        if (place[i] < 0 || place[i] > op.hidden - op.channels) return "the place of a reader";
    return nullptr;
}

inline const char* gates16_rule(const Place& p) {
    return plus(p.op.hidden, kAlign) <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* stats_rule(const Place& p) {
    if (p.op.channels != p.op.src.channels) return "channels";
    return norm_rule(p);
}

inline const char* input_rule(const Place& p) {
    const DgcTensor& d = p.op.dst;
    return times(d.channels, d.height, d.width) == p.program.in_floats ? nullptr
                                                                       : "the input's size";
}

inline bool gives_image(const DgcOp& op) {
    return op.src.plane != 0;
}
inline const char* output_rule(const Place& p) {
    const DgcTensor& s = p.op.src;
    if (p.op.out_first) return "where its result begins";
    if (!gives_image(p.op))
        return p.op.channels == p.program.out_floats ? nullptr : "the output's size";
    if (p.op.channels != s.channels) return "channels";
    return times(s.channels, s.height, s.width) == p.program.out_floats ? nullptr
                                                                        : "the output's size";
}

inline const char* select_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.inactive > op.channels) return "the number of inactive channels";
    if (op.scale_weights && (op.outs < 1 || op.taps < 1)) return "the weights to be scaled";
    return up16(op.channels) <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* pack_rule(const Place& p) {
    const DgcTensor &s = p.op.src, &d = p.op.dst;
    if (const char* wrong = norm_rule(p)) return wrong;
    if (s.channels != d.channels || !same_size(s, d)) return "the sizes of source and target";
    if (s.phases == d.phases && s.row == d.row)
        return s.length == d.length ? nullptr : "the lengths of source and target";
    if (s.phases != d.phases)
        return up16(d.width) <= p.program.scratch_floats ? nullptr : "the scratch";
    // whole vectors of the last row reach behind it
    const int64_t rows = parts_of(s.height, s.phases), columns = parts_of(s.width, s.phases);
    const int64_t reach = plus(times(rows - 1, s.row), up16(columns));
    return reach <= plus(s.length, s.lead, kTail) ? nullptr : "the source's length";
}

inline const char* pool_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.src.channels != op.dst.channels) return "channels";
    if (op.pool_kind > 1) return "the kind of pooling";
    if (op.pool_kernel_w < 1 || op.pool_stride_w < 1) return "the windows";
    // rounded up, the last window may reach less than a step over the padding
    const int64_t last = plus(times(op.dst.height - 1, op.pool_stride), op.pool_kernel);
    if (op.pool_pad > op.src.height ||
        last > plus(op.src.height, times(2, op.pool_pad), op.pool_stride - 1))
        return "a window that leaves the image";
    const int64_t windows = plus(times(op.dst.width - 1, op.pool_stride_w), op.pool_kernel_w);
    const int64_t line = plus(op.src.width, op.pool_pad_w);
    const int64_t reach = windows > line ? windows : line;
    const int64_t lines = plus(op.src.width, reach, op.dst.width, 32);
    const int64_t room = p.program.exact && lines < plus(reach, 128) ? plus(reach, 128) : lines;
    return room <= p.program.scratch_floats ? nullptr : "the scratch";
}

// Whether `count` windows, whose begins and then ends stand in the index from `first` on, have at
// least one place each, and none outside of `size`.
inline bool windows_inside(const Place& p, int64_t first, int64_t count, int64_t size) {
    const int32_t* begin = (const int32_t*)(p.block + p.op.index) + first;
    for (int64_t i = 0; i < count; ++i)
        if (begin[i] < 0 || begin[i] >= begin[count + i] || begin[count + i] > size) return false;
    return true;
}

inline const char* adaptive_rule(const Place& p) {
    const DgcTensor &s = p.op.src, &d = p.op.dst;
    if (s.channels != d.channels) return "channels";
    if (p.op.pool_kind > 1) return "the kind of pooling";
    if (!windows_inside(p, 0, d.height, s.height) ||
        !windows_inside(p, 2 * d.height, d.width, s.width))
        return "a window that leaves the image";
    const int64_t room = plus(times(2, plus(s.width, 16)), d.width);
    return room <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* add_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.src.channels != op.dst.channels || op.residual.channels != op.dst.channels)
        return "channels";
    return alike(op.src, op.dst) && alike(op.residual, op.dst) ? nullptr : "layouts that differ";
}

// Whether the `count` numbers of an index lie from `least` on below `most`.
inline bool index_inside(const Place& p, int64_t first, int64_t count, int64_t least,
                         int64_t most) {
    const int32_t* index = (const int32_t*)(p.block + p.op.index) + first;
    for (int64_t i = 0; i < count; ++i)
        if (index[i] < least || index[i] >= most) return false;
    return true;
}

inline const char* combine_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.src.channels != op.dst.channels || op.has_vector > 1) return "channels";
    if (op.mode < DGC_PLUS || op.mode > DGC_TIMES) return "what is computed";
    if (!alike(op.src, op.dst)) return "layouts that differ";
    if (op.has_vector) return nullptr;
    if (op.residual.channels != op.dst.channels) return "channels";
    return alike(op.residual, op.dst) ? nullptr : "layouts that differ";
}

inline const char* gather_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (!index_inside(p, 0, op.dst.channels, 0, op.src.channels)) return "a channel that is not";
    return alike(op.src, op.dst) ? nullptr : "layouts that differ";
}

inline const char* resample_rule(const Place& p) {
    const DgcTensor &s = p.op.src, &d = p.op.dst;
    if (s.channels != d.channels) return "channels";
    if (!index_inside(p, 0, 2 * d.height, -1, s.height) ||
        !index_inside(p, 2 * d.height, 2 * d.width, -1, s.width))
        return "a pixel that is not";
    // where the second row has a share, there is one
    const int32_t* second = (const int32_t*)(p.block + p.op.index) + d.height;
    const float* share = (const float*)(p.block + p.op.weight);
    for (int64_t y = 0; y < d.height; ++y)
        if (share[y] != 0.0f && second[y] < 0) return "a pixel that is not";
    return times(2, plus(s.width, 64)) <= p.program.scratch_floats ? nullptr : "the scratch";
}

inline const char* spread_rule(const Place& p) {
    return p.op.dst.height == 1 && p.op.dst.width == 1 ? nullptr : "an image of many pixels";
}

inline const char* vector_rule(const Place& p) {
    const DgcOp& op = p.op;
    if (op.mode > DGC_TIMES) return "what is computed";
    if (op.index && !index_inside(p, 0, op.outs, 0, op.channels)) return "a number that is not";
    if (!op.index && op.channels != op.outs) return "as many results as numbers";
    return norm_rule(p);
}

inline const char* from_start_rule(const Place& p) {
    return p.op.out_first == 0 ? nullptr : "where the results begin";
}

// infer/depthwise.h
inline const char* depthwise_rule(const Place& p) {
    const DgcOp& op = p.op;
    const DgcTensor &s = op.src, &d = op.dst;
    if (op.channels != s.channels || op.channels != d.channels) return "channels";
    if (op.taps != 9 && op.taps != 25) return "the kernel";
    if (op.mode != DGC_BY_ROWS) {
        if (op.mode || op.pool_stride != 1 || !alike(s, d)) return "layouts that differ";
        return taps_inside(p) ? nullptr : "a tap that lies outside the source";
    }
    const int64_t stride = op.pool_stride, pad = op.pool_pad;
    if (stride < 1 || stride > 2 || pad != (op.taps == 9 ? 1 : 2)) return "the kernel";
    if (d.height != (s.height - 1) / stride + 1 || d.width != (s.width - 1) / stride + 1)
        return "the sizes of source and target";
    if (s.phases != 1 || d.phases != 1 || s.row < plus(s.width, pad) ||
        s.lead < times(pad, plus(s.row, 1)))
        return "the padding of the source";
    const int64_t last = d.width > kAlign ? d.width : kAlign;
    return plus(times(d.height - 1, d.row), last) <= plus(d.lead, d.length) ? nullptr
                                                                             : "the target's rows";
}

#define DGC_COUNT(expression) [](const DgcOp& op) -> int64_t { return expression; }
#define DGC_PRESENT(expression) [](const DgcOp& op) -> bool { return expression; }

constexpr ImageUse kSource = {"src", &DgcOp::src, READS, nullptr};
constexpr ImageUse kTarget = {"dst", &DgcOp::dst, WRITES, nullptr};
constexpr ImageUse kResidual = {"residual", &DgcOp::residual, READS,
                                DGC_PRESENT(op.has_residual != 0)};
constexpr ConstantUse kScale = {"in_scale", &DgcOp::in_scale, 4, norm_count, false};
constexpr ConstantUse kShift = {"in_shift", &DgcOp::in_shift, 4, norm_count, false};
constexpr RegionUse kMeans = {"out", &DgcOp::out, WRITES,
                              DGC_COUNT(op.span ? op.dst.channels : -1)};
constexpr RegionUse kList = {"list", &DgcOp::list, READS_LIST,
                             DGC_COUNT(op.dynamic ? list_floats(op) : -1)};
constexpr ConstantUse kTaps = {"offsets", &DgcOp::offsets, 8, tap_count, true};
constexpr ConstantUse kConvWeight = {"weight", &DgcOp::weight, 4, conv_weights, true};
constexpr ConstantUse kConvBias = {"bias", &DgcOp::bias, 4, DGC_COUNT(op.dst.channels), false};

constexpr Row kRows[] = {
    {DGC_INPUT, BOTH, "INPUT", {}, {kTarget}, {}, {}, input_rule},
    {DGC_OUTPUT, BOTH,
     "OUTPUT", {&DgcOp::channels},
     {{"src", &DgcOp::src, READS, gives_image}},
     {{"in", &DgcOp::in, READS, DGC_COUNT(gives_image(op) ? -1 : op.channels)}},
     {},
     output_rule},
    {DGC_MEAN, IN_FLOATS,
     "MEAN", {},
     {kSource},
     {{"out", &DgcOp::out, WRITES, DGC_COUNT(op.src.channels)}},
     {kScale, kShift},
     norm_rule},
    {DGC_LINEAR, IN_FLOATS,
     "LINEAR", {&DgcOp::channels, &DgcOp::outs},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.channels)},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(op.outs)}},
     {{"weight", &DgcOp::weight, 4, DGC_COUNT(times(op.outs, up16(op.channels))), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(op.outs), false}},
     nullptr},
    {DGC_GATES, IN_FLOATS,
     "GATES", {&DgcOp::channels, &DgcOp::heads},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(times(op.heads, op.hidden))},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(times(op.heads, up16(op.channels)))}},
     {{"weight", &DgcOp::weight, 4, DGC_COUNT(times(op.heads, op.hidden, up16(op.channels))), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(times(op.heads, up16(op.channels))), true}},
     nullptr},
    // gates of a caller (`external`) are no part of a file
    {DGC_SELECT, BOTH,
     "SELECT", {&DgcOp::channels, &DgcOp::heads},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(times(op.heads, up16(op.channels)))},
      {"list", &DgcOp::list, MAKES_LIST, list_floats},
      {"panel", &DgcOp::panel, WRITES, DGC_COUNT(op.scale_weights ? all_weights(op) : -1)}},
     {{"weight", &DgcOp::weight, 4, DGC_COUNT(op.scale_weights ? all_weights(op) : -1), true}},
     select_rule},
    {DGC_PACK, BOTH, "PACK", {}, {kSource, kTarget}, {}, {kScale, kShift}, pack_rule},
    {DGC_CONV, IN_FLOATS,
     "CONV", {&DgcOp::heads, &DgcOp::outs, &DgcOp::taps},
     {kSource, kTarget, kResidual},
     {kList,
      {"panel", &DgcOp::panel, READS,
       DGC_COUNT(op.dynamic && op.scale_weights ? all_weights(op) : -1)}},
     {kTaps, kConvWeight, kConvBias, kScale, kShift},
     conv_rule},
    {DGC_WINO, IN_FLOATS,
     "WINO", {&DgcOp::heads, &DgcOp::outs, &DgcOp::span},
     {kSource, kTarget, kResidual},
     {kList},
     {kTaps,
      kConvWeight,
      kConvBias,
      {"edges", &DgcOp::edges, 4, DGC_COUNT(times(2, op.dst.length)), true}},
     wino_rule},
    {DGC_POOL,
     BOTH,
     "POOL",
     {&DgcOp::pool_kernel, &DgcOp::pool_stride},
     {kSource, kTarget},
     {},
     {{"weight", &DgcOp::weight, 4,
       DGC_COUNT(op.pool_kind == 1 ? plus(op.dst.height, op.dst.width) : -1), true}},
     pool_rule},
    {DGC_ADAPTIVE,
     BOTH,
     "ADAPTIVE",
     {},
     {kSource, kTarget},
     {},
     {{"index", &DgcOp::index, 4, DGC_COUNT(times(2, plus(op.dst.height, op.dst.width))), true},
      {"weight", &DgcOp::weight, 4,
       DGC_COUNT(op.pool_kind == 1 ? plus(op.dst.height, op.dst.width) : -1), true}},
     adaptive_rule},
    {DGC_COMBINE,
     BOTH,
     "COMBINE",
     {},
     {kSource, {"residual", &DgcOp::residual, READS, DGC_PRESENT(op.has_vector == 0)}, kTarget},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.has_vector ? op.src.channels : -1)}, kMeans},
     {},
     combine_rule},
    {DGC_GATHER,
     BOTH,
     "GATHER",
     {},
     {kSource, kTarget},
     {},
     {{"index", &DgcOp::index, 4, DGC_COUNT(op.dst.channels), true}},
     gather_rule},
    {DGC_RESAMPLE,
     BOTH,
     "RESAMPLE",
     {},
     {kSource, kTarget},
     {},
     {{"index", &DgcOp::index, 4, DGC_COUNT(times(2, plus(op.dst.height, op.dst.width))), true},
      {"weight", &DgcOp::weight, 4, DGC_COUNT(plus(op.dst.height, op.dst.width)), true}},
     resample_rule},
    {DGC_FLATTEN,
     BOTH,
     "FLATTEN",
     {},
     {kSource},
     {{"out", &DgcOp::out, WRITES,
       DGC_COUNT(times(op.src.channels, op.src.height, op.src.width))}},
     {},
     nullptr},
    {DGC_SPREAD,
     BOTH,
     "SPREAD",
     {},
     {kTarget},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.dst.channels)}},
     {},
     spread_rule},
    {DGC_VECTOR,
     BOTH,
     "VECTOR",
     {&DgcOp::channels, &DgcOp::outs},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.channels)},
      {"list", &DgcOp::list, READS, DGC_COUNT(op.mode ? op.outs : -1)},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(plus(op.out_first, op.outs))}},
     {{"index", &DgcOp::index, 4, DGC_COUNT(op.outs), false},
      {"in_scale", &DgcOp::in_scale, 4, DGC_COUNT(op.outs), false},
      {"in_shift", &DgcOp::in_shift, 4, DGC_COUNT(op.outs), false}},
     vector_rule},
    {DGC_SOFTMAX,
     BOTH,
     "SOFTMAX",
     {&DgcOp::heads, &DgcOp::taps, &DgcOp::outs},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(times(op.heads, op.taps, op.outs))},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(times(op.heads, op.taps, op.outs))}},
     {},
     from_start_rule},
    {DGC_ALONG,
     BOTH,
     "ALONG",
     {&DgcOp::channels, &DgcOp::taps, &DgcOp::outs},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.channels)},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(op.outs)}},
     {{"weight", &DgcOp::weight, 4, DGC_COUNT(op.taps), true},
      {"bias", &DgcOp::bias, 4, [](const DgcOp&) -> int64_t { return 1; }, false}},
     from_start_rule},
    {DGC_DEPTHWISE,
     IN_FLOATS,
     "DEPTHWISE",
     {&DgcOp::channels, &DgcOp::taps},
     {kSource, kTarget},
     {kMeans},
     {{"offsets", &DgcOp::offsets, 8,
       DGC_COUNT(op.mode == DGC_BY_ROWS ? -1 : times(subplanes(op.dst), op.taps)), true},
      {"weight", &DgcOp::weight, 4, DGC_COUNT(times(op.channels, op.taps)), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(op.channels), false}},
     depthwise_rule},
    {DGC_CONV8,
     IN_BYTES,
     "CONV8",
     {&DgcOp::heads, &DgcOp::outs, &DgcOp::taps},
     {kSource, kTarget, kResidual},
     {kList,
      {"in", &DgcOp::in, READS, DGC_COUNT(op.channels)},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(op.span ? op.dst.channels : -1)},
      {"panel", &DgcOp::panel, WRITES, DGC_COUNT(op.span ? op.dst.channels : -1)}},
     {kTaps,
      {"weight", &DgcOp::weight, 1,
       DGC_COUNT(times(op.heads, own_channels(op), op.taps, up16(op.outs))), true},
      {"external", &DgcOp::external, 4, DGC_COUNT(times(op.heads, op.outs)), true},
      kConvBias,
      kScale,
      kShift},
     conv8_rule},
    {DGC_STATS,
     IN_BYTES,
     "STATS",
     {&DgcOp::channels},
     {kSource},
     {{"out", &DgcOp::out, WRITES, DGC_COUNT(op.channels)},
      {"panel", &DgcOp::panel, WRITES, DGC_COUNT(op.channels)}},
     {kScale, kShift},
     stats_rule},
    {DGC_READERS,
     IN_BYTES,
     "READERS",
     {&DgcOp::channels, &DgcOp::heads},
     {kSource},
     {{"out", &DgcOp::out, WRITES, DGC_COUNT(op.hidden)}},
     {{"weight", &DgcOp::weight, 8, DGC_COUNT(times(2, op.heads)), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(times(2, op.heads, op.channels)), true}},
     readers_rule},
    {DGC_ROWS16,
     IN_BYTES,
     "ROWS16",
     {&DgcOp::channels, &DgcOp::outs},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(op.channels)},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(op.outs)}},
     {{"weight", &DgcOp::weight, 2, DGC_COUNT(times(op.outs, up16(op.channels))), true},
      {"in_scale", &DgcOp::in_scale, 4, DGC_COUNT(op.outs), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(op.outs), false}},
     nullptr},
    {DGC_GATES16,
     IN_BYTES,
     "GATES16",
     {&DgcOp::channels, &DgcOp::heads},
     {},
     {{"in", &DgcOp::in, READS, DGC_COUNT(times(op.heads, op.hidden))},
      {"out", &DgcOp::out, WRITES, DGC_COUNT(times(op.heads, up16(op.channels)))}},
     {{"weight", &DgcOp::weight, 2, DGC_COUNT(times(op.heads, op.hidden, up16(op.channels))), true},
      {"in_scale", &DgcOp::in_scale, 4, DGC_COUNT(times(op.heads, op.hidden)), true},
      {"bias", &DgcOp::bias, 4, DGC_COUNT(times(op.heads, up16(op.channels))), true}},
     gates16_rule},
    {DGC_ADD, BOTH,
     "ADD", {},
     {kSource, {"residual", &DgcOp::residual, READS, nullptr}, kTarget},
     {},
     {},
     add_rule},
};

#undef DGC_COUNT
#undef DGC_PRESENT

constexpr int64_t kRowCount = sizeof(kRows) / sizeof(*kRows);

inline const Row* row_of(int64_t kind) {
    for (const Row& row : kRows)
        if (row.kind == kind) return &row;
    return nullptr;
}

}  // namespace dgc_plan
