// What each operation says of its operands, held against the block and the workspace: every tensor
// and region inside its arena, every constant inside the block, tables and weights as long as the
// operation reads them. Debug builds check all operations before the first one runs (executor.cpp);
// kernels then check only what they hand to each other.
//
// Whoever adds an operation says here what it reads. No sum below exceeds 2^63 for operations that
// Python emits; a loader of files that may be damaged has to bound each number first.
#pragma once
#include "gates.h"
#include "planes.h"

namespace DGC_ISA {

struct Operands {  // of one operation of a run
    const DgcRun& run;
    const DgcProgram& program;

    int64_t room(int64_t arena) const {
        DGC_CHECK(arena == 0 || arena == 1);
        return arena ? program.sample_floats : program.thread_floats;
    }

    // `bytes` bytes at an offset of the block; 0 stands for none.
    void constant(int64_t offset, int64_t bytes) const {
        if (offset == 0) return;
        DGC_CHECK(offset >= int64_t(sizeof(DgcProgram)) && offset % 64 == 0 && bytes >= 0);
        DGC_CHECK(offset + bytes <= run.block_bytes);
    }
    void constant_floats(int64_t offset, int64_t count) const { constant(offset, count * 4); }

    void region(const DgcRegion& r, int64_t count) const {
        DGC_CHECK(r.offset >= 0 && r.offset % kAlign == 0 && count >= 0);
        DGC_CHECK(r.offset + count <= room(r.arena));
    }

    void layout(const DgcTensor& t) const {
        if (t.phases == 0) return;  // the operation has none in this place
        const int64_t rows = ceil_div(t.height, t.phases), columns = ceil_div(t.width, t.phases);
        DGC_CHECK(t.offset >= 0 && t.channels > 0 && t.height > 0 && t.width > 0 && t.phases > 0);
        DGC_CHECK(t.length % kAlign == 0 && t.lead % kAlign == 0);
        DGC_CHECK(t.row >= columns && (rows - 1) * t.row + columns <= t.length);
        DGC_CHECK(t.phase_plane >= t.lead + t.length && t.plane >= subplanes(t) * t.phase_plane);
        DGC_CHECK(t.mask != 0 && (t.reused == 0 || t.reused == 1));
        constant(t.mask, subplanes(t) * t.length * 4);
    }
    void tensor(const DgcTensor& t) const {
        layout(t);
        DGC_CHECK(t.offset % kAlign == 0);
        DGC_CHECK(t.phases == 0 || t.offset + t.channels * t.plane + t.lead <= room(t.arena));
    }
};

inline void check_convolution(const DgcOp& op, const Operands& o) {
    const bool tiles = op.kind == DGC_WINO;
    DGC_CHECK(op.heads > 0 && op.outs > 0 && op.taps > 0 && op.channels == op.src.channels);
    DGC_CHECK(op.heads * op.outs == op.dst.channels && op.weight && op.offsets);
    DGC_CHECK(op.dynamic || (op.channels % op.heads == 0 && !op.lanes && !op.scale_weights));
    const int64_t own = op.dynamic ? op.channels : op.channels / op.heads;
    o.constant_floats(op.weight, op.heads * op.outs * own * (tiles ? 16 : op.taps));
    o.constant(op.offsets, tiles ? 16 * 8 : subplanes(op.dst) * op.taps * 8);
    if (tiles) o.constant(op.edges, 2 * op.dst.length * 4);
    o.constant_floats(op.bias, op.heads * op.outs);
    if (op.dynamic) o.region(op.list, op.heads * list_step(op.channels));
    if (op.scale_weights) o.region(op.panel, op.heads * op.outs * op.channels * op.taps);
    DGC_CHECK(!op.has_residual ||
              (op.residual.phases == op.dst.phases && op.residual.row == op.dst.row));
}

inline void check_bytes(const DgcOp& op, const Operands& o) {
    const int64_t own = op.dynamic ? op.channels : op.channels / op.heads;
    DGC_CHECK(op.heads > 0 && op.outs > 0 && op.taps > 0 && op.weight && op.offsets);
    DGC_CHECK(op.channels == op.src.channels && op.heads * op.outs == op.dst.channels);
    o.constant(op.weight, op.heads * own * op.taps * round_up(op.outs));
    o.constant_floats(op.external, op.heads * op.outs);
    o.layout(op.bytes), o.layout(op.unpooled);
    DGC_CHECK(!op.bytes.phases || (op.bytes.phases == 2 && op.src.phases == 1));
    DGC_CHECK(!op.unpooled.phases || (op.unpooled.phases == 1 && !op.has_residual && !op.span));
    o.constant(op.offsets, subplanes(op.unpooled.phases ? op.unpooled : op.dst) * op.taps * 8);
    o.constant_floats(op.bias, op.heads * op.outs), o.region(op.in, op.channels);
    if (op.dynamic) o.region(op.list, op.heads * list_step(op.channels));
    if (op.span) o.region(op.out, op.dst.channels), o.region(op.panel, op.dst.channels);
    DGC_CHECK(!op.has_residual ||
              (op.residual.phases == op.dst.phases && op.residual.row == op.dst.row));
}

inline void check_image(const DgcOp& op, const Operands& o) {
    if (op.kind == DGC_COMBINE) {
        DGC_CHECK(op.src.channels == op.dst.channels);
        if (op.span) o.region(op.out, op.dst.channels);
        if (op.has_vector) return o.region(op.in, op.src.channels);
        DGC_CHECK(op.residual.channels == op.dst.channels);
    } else if (op.kind == DGC_GATHER) {
        DGC_CHECK(op.index);
        o.constant(op.index, op.dst.channels * 4);
    } else if (op.kind == DGC_ADAPTIVE) {
        DGC_CHECK(op.index && op.src.channels == op.dst.channels);
        DGC_CHECK(op.pool_kind == 0 || op.weight);
        o.constant(op.index, 2 * (op.dst.height + op.dst.width) * 4);
        o.constant_floats(op.weight, op.dst.height + op.dst.width);
    } else if (op.kind == DGC_RESAMPLE) {
        DGC_CHECK(op.index && op.weight && op.src.channels == op.dst.channels);
        o.constant(op.index, 2 * (op.dst.height + op.dst.width) * 4);
        o.constant_floats(op.weight, op.dst.height + op.dst.width);
    } else if (op.kind == DGC_FLATTEN) {
        o.region(op.out, round_up(op.src.channels * op.src.height * op.src.width));
    } else {
        DGC_CHECK(op.dst.height == 1 && op.dst.width == 1);
        o.region(op.in, op.dst.channels);
    }
}

inline void check_vector(const DgcOp& op, const Operands& o) {
    const int64_t outs = op.kind == DGC_SOFTMAX ? op.heads * op.taps * op.outs : op.outs;
    DGC_CHECK(outs > 0 && op.out_first >= 0);
    o.region(op.out, op.out_first ? op.out_first + outs : round_up(outs));
    o.region(op.in, op.kind == DGC_SOFTMAX ? outs : op.channels);
    if (op.kind == DGC_ALONG) {
        DGC_CHECK(op.weight && op.taps > 0);
        o.constant_floats(op.weight, op.taps), o.constant_floats(op.bias, 1);
    }
    if (op.kind != DGC_VECTOR) return;
    DGC_CHECK(op.index || op.channels == op.outs);
    o.constant(op.index, outs * 4), o.constant_floats(op.in_scale, outs);
    if (op.mode != DGC_ALONE) o.region(op.list, outs);
}

inline void check_depthwise(const DgcOp& op, const Operands& o) {
    DGC_CHECK(op.channels == op.src.channels && op.channels == op.dst.channels);
    DGC_CHECK(op.taps == 9 || op.taps == 25);
    DGC_CHECK(op.weight && (op.mode == DGC_BY_ROWS || op.offsets));
    o.constant_floats(op.weight, op.channels * op.taps), o.constant_floats(op.bias, op.channels);
    if (op.offsets) o.constant(op.offsets, subplanes(op.dst) * op.taps * 8);
    if (op.span) o.region(op.out, op.channels);
}

inline void check_operation(const DgcOp& op, const Operands& o) {
    const int64_t width = round_up(op.channels);
    o.tensor(op.src), o.tensor(op.dst), o.tensor(op.residual);
    if (op.kind != DGC_ROWS16 && op.kind != DGC_GATES16) {  // there it belongs to rows
        o.constant_floats(op.in_scale, op.src.channels),
            o.constant_floats(op.in_shift, op.src.channels);
        DGC_CHECK((op.in_scale == 0) == (op.in_shift == 0));
    }
    DGC_CHECK(op.act >= DGC_NO_ACT && op.act <= DGC_MISH && !(op.act && op.relu));
    switch (op.kind) {
        case DGC_INPUT:
            DGC_CHECK(op.dst.channels * op.dst.height * op.dst.width == o.program.in_floats);
            return;
        case DGC_OUTPUT:
            DGC_CHECK(op.out_first >= 0);
            if (op.src.phases == 0) o.region(op.in, op.channels);
            return;
        case DGC_MEAN:
            return o.region(op.out, op.src.channels);
        case DGC_LINEAR:
            o.constant_floats(op.weight, op.outs * width), o.constant_floats(op.bias, op.outs);
            return o.region(op.in, width), o.region(op.out, op.outs);
        case DGC_GATES:
            o.constant_floats(op.weight, op.heads * op.hidden * width),
                o.constant_floats(op.bias, op.heads * width);
            return o.region(op.in, op.heads * op.hidden), o.region(op.out, op.heads * width);
        case DGC_SELECT:
            DGC_CHECK(op.inactive >= 0 && op.inactive <= op.channels &&
                      width <= o.program.scratch_floats);
            if (op.external)
                o.constant_floats(op.external, o.run.samples * op.heads * width);
            else
                o.region(op.in, op.heads * width);
            if (op.scale_weights)
                o.constant_floats(op.weight, op.heads * op.outs * op.channels * op.taps);
            return o.region(op.list, op.heads * list_step(op.channels));
        case DGC_CONV:
        case DGC_WINO:
            return check_convolution(op, o);
        case DGC_PACK:
            DGC_CHECK(op.src.channels == op.dst.channels);
            return;
        case DGC_STATS:
            return o.region(op.out, op.channels), o.region(op.panel, op.channels);
        case DGC_READERS:
            DGC_CHECK(op.src.phases == 1 && op.heads > 0 && op.weight);
            o.constant(op.weight, op.heads * 16);
            o.constant_floats(op.bias, 2 * op.heads * op.channels);
            return o.region(op.out, op.hidden);
        case DGC_ROWS16:
            o.constant(op.weight, op.outs * width * 2), o.constant_floats(op.bias, op.outs);
            return o.region(op.in, width), o.region(op.out, op.outs);
        case DGC_GATES16:
            o.constant(op.weight, op.heads * op.hidden * width * 2),
                o.constant_floats(op.bias, op.heads * width);
            return o.region(op.in, op.heads * op.hidden), o.region(op.out, op.heads * width);
        case DGC_CONV8:
            return check_bytes(op, o);
        case DGC_POOL:
            DGC_CHECK(op.src.channels == op.dst.channels && op.pool_kernel > 0 &&
                      op.pool_stride > 0 && op.pool_kernel_w > 0 && op.pool_stride_w > 0);
            DGC_CHECK(op.pool_kind == 0 || op.weight);
            return o.constant_floats(op.weight, op.dst.height + op.dst.width);
        case DGC_ADAPTIVE:
        case DGC_COMBINE:
        case DGC_GATHER:
        case DGC_RESAMPLE:
        case DGC_FLATTEN:
        case DGC_SPREAD:
            return check_image(op, o);
        case DGC_VECTOR:
        case DGC_SOFTMAX:
        case DGC_ALONG:
            return check_vector(op, o);
        case DGC_DEPTHWISE:
            return check_depthwise(op, o);
        case DGC_ADD:
            DGC_CHECK(op.src.channels == op.dst.channels &&
                      op.residual.channels == op.dst.channels);
            return;
        default:
            DGC_CHECK(!"an operation of this kind exists");
    }
}

inline void check_program(const DgcRun& run) {
    const DgcProgram& p = program_of(run);
    const DgcOp* ops = (const DgcOp*)((const char*)run.block + p.ops);
    for (int64_t i = 0; i < p.count; ++i) check_operation(ops[i], {run, p});
}

}  // namespace DGC_ISA
