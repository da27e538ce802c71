// Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308): 16 products where direct convolution takes 36.
//
// Input and output lie in 2 x 2 sub-planes, so that position i of each sub-plane belongs to tile i: neighbouring tiles
// are neighbouring lanes, and a tile's 4 x 4 inputs lie at fixed offsets. An input touches only those outputs that its
// direct convolution would touch, so a NaN spreads no further.
#pragma once
#include "gates.h"
#include "tile.h"

namespace DGC_ISA {

constexpr int kPoints = 16;
constexpr int64_t kWinoBlock = 16;  // output channels that lie together in these weights: a line of the cache

DGC_INLINE int64_t wino_block(int64_t left) { return left >= kWinoBlock ? kWinoBlock : block_of(left); }

// d -> B^T d for a column or a row of four.
DGC_INLINE void wino_in4(V& a, V& b, V& c, V& d) {
    const V first = a - c, second = b + c, third = c - b, fourth = b - d;
    a = first, b = second, c = third, d = fourth;
}

// VL tiles of one channel, times its gate: B^T d B, to 16 places `step` apart.
DGC_INLINE void wino_in(const float* x, const int64_t* offsets, V gate, float* to, int64_t step) {
    V d[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) d[i][j] = load(x + offsets[i * 4 + j]) * gate;
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

struct WinoSpan {  // tiles [first, first + width), and how far apart a head's channels and points lie in the scratch
    int64_t first, width;
    float *in, *out;  // [point][selected channel][width], [point][output channel][width]
    int64_t in_point, out_point;
};

inline void wino_inputs(const DgcOp& op, const Context& c, const Selection& s, const WinoSpan& q) {
    const float* x = at(c, op.src) + op.src.lead + q.first;
    for (int64_t k = 0; k < *s.count; ++k)
        for (int64_t i = 0; i < q.width; i += VL)
            wino_in(x + s.index[k] * op.src.plane + i, op.offsets, splat(s.gate[k]), q.in + k * q.width + i, q.in_point);
}

struct Product {  // out[m][v] = sum over k of w[index[k]][m] * x[k][v]
    const float *x, *w;
    const int32_t* index;
    int64_t count, x_step, w_step;
};

template <int MR, int NV>
__attribute__((noinline)) void product_tile(const Product& s, float* out, int64_t out_step) {
    V acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = V{};
    const float* x = s.x;
    for (int64_t k = 0; k < s.count; ++k, x += s.x_step) step<MR, NV>(acc, x, s.w + s.index[k] * s.w_step);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(out + m * out_step + v * VL, acc[m][v]);
}

typedef void (*ProductTile)(const Product&, float*, int64_t);

template <int MR, int NV>
ProductTile pick_product(int nv) {
    if constexpr (NV > 1) {
        if (nv < NV) return pick_product<MR, NV - 1>(nv);
    }
    return product_tile<MR, NV>;
}

inline ProductTile pick_product(int rows, int nv) {
    if constexpr (kRows == 8) {
        if (rows == 8) return pick_product<8, widest(8)>(nv);
    }
    if (rows == 4) return pick_product<4, widest(4)>(nv);
    return rows == 2 ? pick_product<2, widest(2)>(nv) : pick_product<1, widest(1)>(nv);
}

// One point: a block of output channels times all tiles of the span.
inline void product_block(Product s, int64_t block, float* out, int64_t width) {
    const int rows = block < kRows ? int(block) : kRows;
    const int64_t vectors = width / VL, pieces = ceil_div(vectors, widest(rows));
    const float *x = s.x, *w = s.w;
    for (int64_t p = 0; p < pieces; ++p) {
        const int64_t first = vectors * p / pieces, nv = vectors * (p + 1) / pieces - first;
        const ProductTile run = pick_product(rows, int(nv));
        s.x = x + first * VL;
        for (int64_t row = 0; row < block; row += rows) {
            s.w = w + row;
            run(s, out + row * width + first * VL, width);
        }
    }
}

inline void wino_products(const DgcOp& op, const Selection& s, int64_t head, const WinoSpan& q) {
    const float* w = op.weight + head * kPoints * op.outs * op.channels;
    for (int64_t p = 0; p < kPoints; ++p)
        for (int64_t row = 0; row < op.outs;) {
            const int64_t block = wino_block(op.outs - row);
            const Product product = {q.in + p * q.in_point, w, s.index, *s.count, q.width, block};
            product_block(product, block, q.out + p * q.out_point + row * q.width, q.width);
            row += block;
            w += block * op.channels;
        }
}

DGC_INLINE float* position(const Context& c, const DgcTensor& t, int64_t channel, int64_t subplane, int64_t i) {
    return at(c, t) + channel * t.plane + subplane * t.phase_plane + t.lead + i;
}

inline void wino_outputs(const DgcOp& op, const Context& c, int64_t head, int64_t row, const WinoSpan& q) {
    const int64_t channel = row * op.out_step + head * op.head_step;
    const V bias = splat(op.bias ? op.bias[channel] : 0.0f);
    for (int64_t i = 0; i < q.width; i += VL) {
        V y[4];
        wino_out(q.out + row * q.width + i, q.out_point, y);
        const int64_t tile = q.first + i;
#pragma GCC unroll 4
        for (int64_t p = 0; p < 4; ++p) {
            V out = y[p] + bias;
            if (op.has_residual) out += load(position(c, op.residual, channel, p, tile));
            if (op.relu) out = relu(out);
            const VI mask = load_int(op.dst.mask + p * op.dst.length + tile);
            store(position(c, op.dst, channel, p, tile), keep(out, mask));
            if (!op.has_dst2) continue;
            const V z = relu(out * splat(op.out_scale[channel]) + splat(op.out_shift[channel]));
            store(position(c, op.dst2, channel, p, tile), keep(z, mask));
        }
    }
}

// Vectors of tiles up to the last one; what lies behind it in the sub-planes is padding, and zero already.
DGC_INLINE int64_t wino_vectors(const DgcOp& op) {
    return ceil_div((ceil_div(op.dst.height, 2) - 1) * op.dst.row + ceil_div(op.dst.width, 2), VL);
}

DGC_INLINE int64_t wino_pieces(const DgcOp& op) { return ceil_div(wino_vectors(op) * VL, op.span); }

// Pieces end where register tiles do.
DGC_INLINE int64_t wino_cut(int64_t vectors, int64_t piece, int64_t pieces) {
    const int64_t wide = widest(kRows);
    return smaller(vectors, ceil_div(vectors, wide) * piece / pieces * wide);
}

inline void wino_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t pieces = wino_pieces(op), head = item / pieces, vectors = wino_vectors(op);
    const int64_t first = wino_cut(vectors, item % pieces, pieces), last = wino_cut(vectors, item % pieces + 1, pieces);
    const Selection s = selection(c, op, head);
    WinoSpan q = {first * VL, (last - first) * VL, c.scratch, nullptr, 0, 0};
    // a line more, so that the points of a tile do not all fall into the same set of the first-level cache
    q.in_point = *s.count * q.width + kAlign, q.out_point = op.outs * q.width + kAlign;
    q.out = q.in + kPoints * q.in_point;
    wino_inputs(op, c, s, q);
    wino_products(op, s, head, q);
    for (int64_t row = 0; row < op.outs; ++row) wino_outputs(op, c, head, row, q);
}

}  // namespace DGC_ISA
