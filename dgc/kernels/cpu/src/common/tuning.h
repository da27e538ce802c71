// The numbers that decide how fast the kernels are, not what they compute (but for the order of
// sums: another value gives other last bits). Each is said with what it rests on, as far as the
// history tells; who changes one measures again
// (`python -m dgc.bench`, `python benchmarks/training.py`) and says on what.
//
// Who measured: "reports" are benchmarks/results, an Intel Xeon with AVX-512 and an AMD EPYC with
// AVX2, two cores each. The values for 32 registers were in use in the reports of the first, those
// for 16 registers in those of the second; that they are the best is not recorded. Neither is any
// shape, but where a line names one. NEON's (32 registers, vectors of 4) were never measured.
#pragma once
#include "vec.h"

namespace DGC_ISA {

// ---- both ----

// Register tiles of rows x vectors of pixels (infer/tile.h, train_tiles.h): rows it takes at once,
// and vectors beside them: as many accumulators as leave registers for the operands.
constexpr int kRows = kRegisters >= 32 ? 8 : 4;
constexpr int widest(int rows) {
    if (kRegisters >= 32) return rows == 8 ? 3 : rows == 4 ? 6 : 8;
    return rows == 4 ? 3 : rows == 2 ? 4 : 6;
}

// Vectors of pixels that all rows of a head take after each other, while they are near. Inherited,
// not measured again.
constexpr int64_t kSpan = 12;

// ---- inference ----

// Direct convolution (conv.h). Inherited, not measured again.
constexpr int64_t kPointFloats =
    6144;  // of packed channels of a 1x1: about half of the first-level cache

// Few pixels (lanes.h). Inherited, not measured again.
constexpr int kLaneRows = 2;
constexpr int lane_columns(int rows) {
    return kRegisters >= 32 ? 7 : rows == 2 ? 3 : 6;
}
constexpr int kLaneVectors =
    2;  // a tile takes at once; a block of 16 is a single vector where vectors are that long
constexpr int64_t kTapsAhead = 32;  // how early weights are fetched: some hundred cycles
// A small tile reads its weights often for what it multiplies: they come in pieces that stay in the
// first-level cache for all pixels. A large one takes all channels at once.
constexpr int64_t kLanePiece = kRegisters >= 32 ? INT64_MAX : 4096;  // floats

// Gates (gates.h). Inherited, not measured again.
constexpr int kGateVectors = 4;  // vectors of a head's gates that a worker takes at once

// Steps (steps.h). Multiply-adds up to which a worker does a step alone: calling another costs two
// microseconds and more (benchmarks/results/thread_loss.md).
constexpr int64_t kSmallStep = 8192;
// Gates that one worker chooses from before others come: half a percent of densenet86 in 8 bits.
constexpr int64_t kSmallChoice = 1024;

// Winograd (wino.h). Vectors of tiles up to which weights are fetched ahead: it gained at 2 and 7
// (7x7, 14x14 pixels), and was not tried beyond.
constexpr int64_t kFewVectors = 12;

// ---- training (train_*.h) ----

// All inherited, not measured again; benchmarks/results/training.md (AMD EPYC, AVX2, two threads;
// its three networks) has what they reached together.

// Pixels of an output up to which lanes run over outputs, where a head has whole vectors of them:
// 16x16 and below.
constexpr int64_t kLanePixels = 256;
// Of input pixels that all rows of weights meet before the next channels' come: about half of the
// first-level cache.
constexpr int64_t kNearFloats = 6144;
// Of all planes of a piece of a 1x1 convolution: 128 KiB, which stay in the second-level cache.
constexpr int64_t kFlatFloats = 32768;
// Rows of weights that are filled into panels side by side: two lines of the cache.
constexpr int64_t kPanelRows = 32;
// Gradients of weights: terms that a tile sums at once, beside kTermOutputs outputs, ...
constexpr int kTerms = kRegisters >= 32 ? 6 : 3;
constexpr int kTermOutputs = 4;
// ... and where lanes run over outputs, beside kLaneOutputs vectors of them.
constexpr int kLaneTerms = kRegisters >= 32 ? 10 : 6;
constexpr int kLaneOutputs = 2;

}  // namespace DGC_ISA
