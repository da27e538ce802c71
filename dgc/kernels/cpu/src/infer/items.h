// Every operation as a loop over like items, which workers share: how many there are, and what each
// does. An item's result depends on nothing but its number; items of an operation write different
// places. Called by steps.h.
#pragma once
#include "contract.h"
#include "depthwise.h"
#include "images.h"
#include "pools.h"
#include "vectors.h"
#ifdef DGC_EXACT
#include "int8/ops8.h"
#else
#include "wino.h"
#endif

namespace DGC_ISA {

typedef void (*Item)(const DgcOp&, const Context&, int64_t);

inline void gates_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t blocks = ceil_div(round_up(op.channels), kGateBlock);
    gate_block(op, c, item / blocks, item % blocks * kGateBlock);
}

inline void select_item(const DgcOp& op, const Context& c, int64_t head) {
    select_head(op, c, head);
    if (op.scale_weights) scale_panel(op, c, head);
}

#ifdef DGC_EXACT
constexpr DgcKind kConvolution = DGC_CONV8;
// More items than heads: a head alone may be most of an operation, and other workers would wait.
inline void conv8_part(const DgcOp& op, const Context& c, int64_t item) {
    conv8_item(op, c, item, parts8(op, c.threads));
}
inline Item conv_items(const DgcOp& op, const Context& c, int64_t* items, bool) {
    return *items = op.heads * parts8(op, c.threads), conv8_part;
}
#else
constexpr DgcKind kConvolution = DGC_CONV;
inline void conv_part(const DgcOp& op, const Context& c, int64_t item) {
    conv_item(op, c, item, row_parts(op, c));
}
inline Item conv_items(const DgcOp& op, const Context& c, int64_t* items, bool whole_heads) {
    if (!whole_heads && by_spans(op, c))
        return *items = spans_of(op, c.threads).count * op.heads, span_item;
    return *items = op.heads * row_parts(op, c), conv_part;
}
#endif

// Operations that are a loop over like items: how many, and what each does.
// `whole_heads`: of a convolution, an item takes all pixels of (a share of) a head.
inline Item item_of(const DgcOp& op, const Context& c, int64_t* items, bool whole_heads) {
    if (op.kind == kConvolution) return conv_items(op, c, items, whole_heads);
    switch (op.kind) {
        case DGC_INPUT:
            return *items = op.dst.channels, input_plane;
        case DGC_OUTPUT:
            return *items = op.channels, output_plane;
        case DGC_MEAN:
            return *items = op.src.channels, mean_plane;
        case DGC_LINEAR:
            return *items = op.outs, linear_row;
        case DGC_GATES:
            return *items = op.heads * ceil_div(round_up(op.channels), kGateBlock), gates_item;
        case DGC_SELECT:
            return *items = op.heads, select_item;
        case DGC_PACK:
            return *items = op.src.channels, pack_plane;
#ifdef DGC_EXACT
        case DGC_STATS:
            return *items = op.channels, stats_item;
        case DGC_READERS:
            return *items = op.channels, readers_item;
        case DGC_ROWS16:
            return *items = ceil_div(op.outs, kRowsAtOnce), rows16_item;
        case DGC_GATES16:
            return *items = gates16_items(op), gates16_item;
#else
        case DGC_WINO:
            return *items = op.heads * wino_pieces(op) * wino_parts(op, c), wino_item;
#endif
        case DGC_POOL:
#ifdef DGC_EXACT
            return *items = op.src.channels, pool8_plane;
#else
            return *items = op.src.channels, pool_plane;
#endif
        case DGC_ADAPTIVE:
            return *items = op.src.channels, adaptive_plane;
        case DGC_COMBINE:
            return *items = op.dst.channels, combine_item;
        case DGC_GATHER:
            return *items = op.dst.channels, gather_plane;
        case DGC_RESAMPLE:
            return *items = op.dst.channels, resample_plane;
        case DGC_FLATTEN:
            return *items = op.src.channels, flatten_plane;
        case DGC_SPREAD:
            return *items = 1, spread_item;
        case DGC_VECTOR:
            return *items = 1, vector_item;
        case DGC_SOFTMAX:
            return *items = 1, softmax_item;
        case DGC_ALONG:
            return *items = 1, along_item;
        case DGC_DEPTHWISE:
            return *items = op.channels, depth_item;
        case DGC_ADD:
            return *items = op.src.channels, add_plane;
        default:
            return *items = 0, nullptr;
    }
}

}  // namespace DGC_ISA
