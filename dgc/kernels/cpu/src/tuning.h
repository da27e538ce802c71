// The numbers of the inference kernels that decide how fast they are, not what they compute (but for the order of sums).
// Each is said with what it rests on, as far as that is known; who changes one measures again.
#pragma once
#include "vec.h"

namespace DGC_ISA {

// Register tile (tile.h): rows it takes at once, and vectors beside them: as many accumulators as leave registers for the
// operands.
constexpr int kRows = kRegisters >= 32 ? 8 : 4;
constexpr int widest(int rows) {
    if (kRegisters >= 32) return rows == 8 ? 3 : rows == 4 ? 6 : 8;
    return rows == 4 ? 3 : rows == 2 ? 4 : 6;
}

// Direct convolution (conv.h).
constexpr int64_t kSpan = 12;           // vectors of pixels that all rows of a head take after each other; training, too
constexpr int64_t kPointFloats = 6144;  // of packed channels of a 1x1: about half of the first-level cache

// Few pixels (lanes.h).
constexpr int kLaneRows = 2;
constexpr int lane_columns(int rows) { return kRegisters >= 32 ? 7 : rows == 2 ? 3 : 6; }
constexpr int kLaneVectors = 2;  // a tile takes at once; a block of 16 is a single vector where vectors are that long
constexpr int64_t kTapsAhead = 32;  // how early weights are fetched: some hundred cycles
// A small tile reads its weights often for what it multiplies: they come in pieces that stay in the first-level cache
// for all pixels. A large one takes all channels at once.
constexpr int64_t kLanePiece = kRegisters >= 32 ? INT64_MAX : 4096;  // floats

// Gates (gates.h).
constexpr int kGateVectors = 4;  // vectors of a head's gates that a worker takes at once

// Winograd (wino.h). Vectors of tiles up to which weights are fetched ahead: it gained at 2 and 7 (7x7, 14x14 pixels), and
// was not tried beyond.
constexpr int64_t kFewVectors = 12;

}  // namespace DGC_ISA
