// Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308): 16 products where direct convolution
// takes 36.
//
// Input and output lie in 2 x 2 sub-planes, so that position i of each sub-plane belongs to tile i:
// neighbouring tiles are neighbouring lanes, and a tile's 4 x 4 inputs lie at fixed offsets. Rows
// of tiles may follow each other without padding: what the first and the last tile of a row find
// beyond it is masked. An input touches only those outputs that its direct convolution would touch,
// so a NaN spreads no further.
//
// Only for dynamic convolutions with taps 9, stride 1, padding 1. Weights G w G^T: [head][16
// points][block of outputs][channel] [output in the block]; `offsets` has 16 entries, one for each
// point of a tile's input; `edges` [2][dst.length]. Scratch: 16 * ((selected + outs) * tiles of a
// piece + 32) floats. dst overlaps no input but the residual. An item is a head's piece of tiles,
// or a share of its rows; rows begin at multiples of 16. Called by items.h.
#pragma once
#include "conv.h"

namespace DGC_ISA {

constexpr int kPoints = 16;

// d -> B^T d for a column or a row of four.
DGC_INLINE void wino_in4(V& a, V& b, V& c, V& d) {
    const V first = a - c, second = b + c, third = c - b, fourth = b - d;
    a = first, b = second, c = third, d = fourth;
}

struct WinoEdges {  // lanes whose tile has another one to its left, to its right
    VI left, right;
};

// VL tiles of one channel, times its gate: B^T d B, to 16 places `step` apart.
DGC_INLINE void wino_in(const float* x, const int64_t* offsets, const WinoEdges& e, V gate,
                        float* to, int64_t step) {
    V d[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const V pixels = load(x + offsets[i * 4 + j]);
            d[i][j] = (j == 0   ? keep(pixels, e.left)
                       : j == 3 ? keep(pixels, e.right)
                                : pixels) *
                      gate;
        }
        wino_in4(d[0][j], d[1][j], d[2][j], d[3][j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        wino_in4(d[i][0], d[i][1], d[i][2], d[i][3]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store(to + (i * 4 + j) * step, d[i][j]);
    }
}

// VL tiles of one output channel: y = A^T m A, in the order of the sub-planes.
DGC_INLINE void wino_out(const float* m, int64_t step, V (&y)[4]) {
    V rows[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const V a = load(m + j * step), b = load(m + (4 + j) * step);
        const V c = load(m + (8 + j) * step), d = load(m + (12 + j) * step);
        rows[0][j] = a + b + c;
        rows[1][j] = b - c - d;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        y[i * 2] = rows[i][0] + rows[i][1] + rows[i][2];
        y[i * 2 + 1] = rows[i][1] - rows[i][2] - rows[i][3];
    }
}

struct WinoSpan {  // tiles [first, first + width), and how far apart a head's channels and points
                   // lie in the scratch
    int64_t first, width;
    float *in, *out;  // [point][selected channel][width], [point][output channel][width]
    int64_t in_point, out_point;
};

inline void wino_inputs(const DgcOp& op, const Context& c, const Selection& s, const WinoSpan& q) {
    const float* x = at(c, op.src) + op.src.lead + q.first;
    const int32_t* edges = constant<int32_t>(c, op.edges);
    const int64_t* offsets = constant<int64_t>(c, op.offsets);
    const auto edges_at = [&](int64_t tile) -> WinoEdges {
        return {load_int(edges + tile), load_int(edges + op.dst.length + tile)};
    };
    for (int64_t k = 0; k < *s.count; ++k)
        for (int64_t i = 0; i < q.width; i += VL)
            wino_in(x + s.index[k] * op.src.plane + i, offsets, edges_at(q.first + i),
                    splat(s.gate[k]), q.in + k * q.width + i, q.in_point);
}

inline void wino_products(const DgcOp& op, const Context& c, const Selection& s, int64_t head,
                          Range rows, const WinoSpan& q) {
    const bool few = q.width / VL <= kFewVectors;
    for (int64_t p = 0; p < kPoints; ++p) {
        const float* w =
            floats(c, op.weight) + ((head * kPoints + p) * op.outs + rows.begin) * op.channels;
        for (int64_t row = rows.begin; row < rows.end;) {
            const int64_t block = block_of(op.outs - row);
            Source from = {q.in + p * q.in_point,
                           nullptr,
                           q.width,
                           w,
                           s.index,
                           block,
                           block,
                           *s.count,
                           1,
                           nullptr};
            if (few && block == kBlock) from.ahead = w + block * op.channels;
            Sink to = {};
            to.dst = q.out + p * q.out_point + row * q.width;
            to.step = q.width;
            sweep(from, to, block, q.width / VL);
            row += block;
            w += block * op.channels;
        }
    }
}

DGC_INLINE float* position(const Context& c, const DgcTensor& t, int64_t channel, int64_t subplane,
                           int64_t i) {
    return at(c, t) + channel * t.plane + subplane * t.phase_plane + t.lead + i;
}

inline void wino_outputs(const DgcOp& op, const Context& c, int64_t head, int64_t row,
                         const WinoSpan& q) {
    const int64_t channel = row * op.out_step + head * op.head_step;
    const V bias = splat(bias_of(op, c, channel));
    for (int64_t i = 0; i < q.width; i += VL) {
        V y[4];
        wino_out(q.out + row * q.width + i, q.out_point, y);
        const int64_t tile = q.first + i;
#pragma GCC unroll 4
        for (int64_t p = 0; p < 4; ++p) {
            V out = y[p] + bias;
            if (op.has_residual) out += load(position(c, op.residual, channel, p, tile));
            if (op.relu) out = relu(out);
            const VI mask = load_int(mask_of(c, op.dst) + p * op.dst.length + tile);
            store(position(c, op.dst, channel, p, tile), keep(out, mask));
        }
    }
}

DGC_INLINE int64_t wino_pieces(const DgcOp& op) {
    return ceil_div(used_vectors(op.dst) * VL, op.span);
}

// Pieces end where register tiles do.
DGC_INLINE int64_t wino_cut(int64_t vectors, int64_t piece, int64_t pieces) {
    const int64_t wide = widest(kRows);
    return smaller(vectors, ceil_div(vectors, wide) * piece / pieces * wide);
}

// Where heads and pieces are fewer than the workers, a head's rows are shared out, too.
DGC_INLINE int64_t wino_parts(const DgcOp& op, const Context& c) {
    return smaller(ceil_div(c.threads, op.heads * wino_pieces(op)), ceil_div(op.outs, kBlock));
}

inline void wino_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t pieces = wino_pieces(op), parts = wino_parts(op, c),
                  piece = item / parts % pieces;
    const int64_t head = item / parts / pieces, vectors = used_vectors(op.dst),
                  blocks = ceil_div(op.outs, kBlock);
    const int64_t first = wino_cut(vectors, piece, pieces),
                  last = wino_cut(vectors, piece + 1, pieces);
    const Range part = cut(blocks, item % parts, parts),
                rows = {part.begin * kBlock, smaller(op.outs, part.end * kBlock)};
    if (first == last) return;  // a span of fewer tiles than a register tile has
    const Selection s = selection(c, op, head);
    WinoSpan q = {first * VL, (last - first) * VL, c.scratch, nullptr, 0, 0};
    // a line more, so that the points of a tile do not all fall into the same set of the
    // first-level cache
    q.in_point = *s.count * q.width + kAlign, q.out_point = op.outs * q.width + kAlign;
    q.out = q.in + kPoints * q.in_point;
    DGC_CHECK(kPoints * (q.in_point + q.out_point) <= c.program->scratch_floats);
    DGC_CHECK(op.taps == 9 && op.dynamic && op.src.phases == 2 && op.dst.phases == 2 &&
              q.width > 0);
    DGC_CHECK(q.first + q.width <= op.dst.length);
    wino_inputs(op, c, s, q);
    wino_products(op, c, s, head, rows, q);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
        wino_outputs(op, c, head, row, q);
        if (op.act == DGC_NO_ACT) continue;
        for (int64_t p = 0; p < 4; ++p)
            activate(op, position(c, op.dst, row * op.out_step + head * op.head_step, p, q.first),
                     mask_of(c, op.dst) + p * op.dst.length + q.first, q.width / VL);
    }
}

}  // namespace DGC_ISA
