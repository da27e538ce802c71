// Whether a program may be run: see program.cpp.
#pragma once
#include "../infer/abi.h"
#include "dgc_plan.h"

namespace dgc_plan {

constexpr int64_t kMostOperations = 1 << 16;
constexpr int64_t kMostFloats = int64_t(1) << 28;  // of a thread's arena, a sample's, the scratch

// `block_bytes` bytes at `block`, at a multiple of 8, are readable; the program is looked for at
// `program`. False, and one line in `why`, where a run of it could touch anything but its block, its
// workspace, its input and its output, or depend on what is not its input.
bool check_program(const char* block, int64_t block_bytes, int64_t program, DgcError* why);

}  // namespace dgc_plan
