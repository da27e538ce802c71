// The structures of abi.h and train_abi.h as the compiler lays them out, so that a test can hold the ctypes mirror
// (structs.py) against them field by field. Every field of every structure stands here in its order: the test also asks
// that the fields fill the structure, so a field that is missing here is seen.
#pragma once
#include <stddef.h>

#include "abi.h"
#include "train_abi.h"

struct DgcField {
    const char* name;      // "DgcOp.kind"; of a structure itself "DgcOp"; of a value of an enumeration "DGC_INPUT"
    int64_t offset, size;  // bytes; of an enumeration's value: the value, 0
};

#define DGC_STRUCT(type) {#type, 0, sizeof(type)}
#define DGC_FIELD(type, name) {#type "." #name, offsetof(type, name), sizeof(type::name)}
#define DGC_VALUE(name) {#name, name, 0}

constexpr DgcField kFields[] = {
    DGC_STRUCT(DgcTensor), DGC_FIELD(DgcTensor, arena), DGC_FIELD(DgcTensor, offset),
    DGC_FIELD(DgcTensor, plane), DGC_FIELD(DgcTensor, phases), DGC_FIELD(DgcTensor, phase_plane),
    DGC_FIELD(DgcTensor, lead), DGC_FIELD(DgcTensor, row), DGC_FIELD(DgcTensor, length),
    DGC_FIELD(DgcTensor, height), DGC_FIELD(DgcTensor, width), DGC_FIELD(DgcTensor, channels),
    DGC_FIELD(DgcTensor, mask),
    DGC_STRUCT(DgcRegion), DGC_FIELD(DgcRegion, arena), DGC_FIELD(DgcRegion, offset),
    DGC_VALUE(DGC_INPUT), DGC_VALUE(DGC_OUTPUT), DGC_VALUE(DGC_MEAN), DGC_VALUE(DGC_LINEAR),
    DGC_VALUE(DGC_GATES), DGC_VALUE(DGC_SELECT), DGC_VALUE(DGC_PACK), DGC_VALUE(DGC_CONV),
    DGC_VALUE(DGC_WINO), DGC_VALUE(DGC_POOL), DGC_VALUE(DGC_ADD),
    DGC_STRUCT(DgcOp), DGC_FIELD(DgcOp, kind), DGC_FIELD(DgcOp, batched), DGC_FIELD(DgcOp, src),
    DGC_FIELD(DgcOp, dst), DGC_FIELD(DgcOp, residual), DGC_FIELD(DgcOp, in), DGC_FIELD(DgcOp, out),
    DGC_FIELD(DgcOp, list), DGC_FIELD(DgcOp, channels), DGC_FIELD(DgcOp, heads),
    DGC_FIELD(DgcOp, outs), DGC_FIELD(DgcOp, dynamic), DGC_FIELD(DgcOp, taps),
    DGC_FIELD(DgcOp, offsets), DGC_FIELD(DgcOp, weight), DGC_FIELD(DgcOp, external),
    DGC_FIELD(DgcOp, bias), DGC_FIELD(DgcOp, in_scale), DGC_FIELD(DgcOp, in_shift),
    DGC_FIELD(DgcOp, relu), DGC_FIELD(DgcOp, in_relu), DGC_FIELD(DgcOp, has_residual),
    DGC_FIELD(DgcOp, out_step), DGC_FIELD(DgcOp, head_step), DGC_FIELD(DgcOp, inactive),
    DGC_FIELD(DgcOp, hidden), DGC_FIELD(DgcOp, scale_weights), DGC_FIELD(DgcOp, panel),
    DGC_FIELD(DgcOp, lanes), DGC_FIELD(DgcOp, span), DGC_FIELD(DgcOp, edges),
    DGC_FIELD(DgcOp, pool_kind), DGC_FIELD(DgcOp, pool_kernel), DGC_FIELD(DgcOp, pool_stride),
    DGC_FIELD(DgcOp, pool_pad),
    DGC_STRUCT(DgcProgram), DGC_FIELD(DgcProgram, ops), DGC_FIELD(DgcProgram, count),
    DGC_FIELD(DgcProgram, thread_floats), DGC_FIELD(DgcProgram, sample_floats),
    DGC_FIELD(DgcProgram, scratch_floats), DGC_FIELD(DgcProgram, in_floats),
    DGC_FIELD(DgcProgram, out_floats),
    DGC_STRUCT(DgcRun), DGC_FIELD(DgcRun, block), DGC_FIELD(DgcRun, block_bytes),
    DGC_FIELD(DgcRun, program), DGC_FIELD(DgcRun, input), DGC_FIELD(DgcRun, output),
    DGC_FIELD(DgcRun, workspace), DGC_FIELD(DgcRun, workspace_floats), DGC_FIELD(DgcRun, samples),
    DGC_FIELD(DgcRun, threads), DGC_FIELD(DgcRun, seconds),
    DGC_VALUE(DGC_DONE), DGC_VALUE(DGC_NO_SUCH_ISA), DGC_VALUE(DGC_BAD_BLOCK),
    DGC_VALUE(DGC_BAD_WORKSPACE),
    DGC_VALUE(DGC_MOMENTS), DGC_VALUE(DGC_POOLED), DGC_VALUE(DGC_CHOOSE), DGC_VALUE(DGC_ADD_AFFINE),
    DGC_VALUE(DGC_FORWARD), DGC_VALUE(DGC_GRAD_WEIGHT), DGC_VALUE(DGC_GRAD_INPUT),
    DGC_STRUCT(DgcPlanes), DGC_FIELD(DgcPlanes, stride), DGC_FIELD(DgcPlanes, row),
    DGC_FIELD(DgcPlanes, lead), DGC_FIELD(DgcPlanes, length), DGC_FIELD(DgcPlanes, phase),
    DGC_FIELD(DgcPlanes, shift),
    DGC_STRUCT(DgcTrain), DGC_FIELD(DgcTrain, pass), DGC_FIELD(DgcTrain, samples),
    DGC_FIELD(DgcTrain, threads), DGC_FIELD(DgcTrain, channels), DGC_FIELD(DgcTrain, height),
    DGC_FIELD(DgcTrain, width), DGC_FIELD(DgcTrain, out_height), DGC_FIELD(DgcTrain, out_width),
    DGC_FIELD(DgcTrain, heads), DGC_FIELD(DgcTrain, outs), DGC_FIELD(DgcTrain, taps),
    DGC_FIELD(DgcTrain, own), DGC_FIELD(DgcTrain, kept), DGC_FIELD(DgcTrain, inactive),
    DGC_FIELD(DgcTrain, out_step), DGC_FIELD(DgcTrain, head_step), DGC_FIELD(DgcTrain, planes),
    DGC_FIELD(DgcTrain, x), DGC_FIELD(DgcTrain, x_step), DGC_FIELD(DgcTrain, scale),
    DGC_FIELD(DgcTrain, shift), DGC_FIELD(DgcTrain, mean), DGC_FIELD(DgcTrain, gates),
    DGC_FIELD(DgcTrain, count), DGC_FIELD(DgcTrain, index), DGC_FIELD(DgcTrain, gate),
    DGC_FIELD(DgcTrain, weight), DGC_FIELD(DgcTrain, y), DGC_FIELD(DgcTrain, y_step),
    DGC_FIELD(DgcTrain, plane_mean), DGC_FIELD(DgcTrain, plane_square),
    DGC_FIELD(DgcTrain, grad_weight), DGC_FIELD(DgcTrain, grad_gate),
    DGC_FIELD(DgcTrain, grad_pooled), DGC_FIELD(DgcTrain, grad_x), DGC_FIELD(DgcTrain, grad_x_step),
    DGC_FIELD(DgcTrain, factor), DGC_FIELD(DgcTrain, add), DGC_FIELD(DgcTrain, sums),
    DGC_FIELD(DgcTrain, scratch), DGC_FIELD(DgcTrain, scratch_step),
};

#undef DGC_STRUCT
#undef DGC_FIELD
#undef DGC_VALUE
