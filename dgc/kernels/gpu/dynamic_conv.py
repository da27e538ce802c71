"""The dynamic convolution in Triton: forward, gradient of the input, gradient of weights and gates.

Every sum is made in float32 in a fixed order by one program, so results repeat bit for bit; nothing
is added up by atomics. How many channels a head reads stands on the device, so a captured graph
holds for every number of inactive channels.

Legend: B samples, C channels, G heads, J outputs of a head, T taps of a window, P output pixels.
Output channel j * G + g is the j-th of head g. Weights: `packed` (G, C, T, J) for the forward,
`weight` (G * J, C, T) for the way back.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def input_pixels(
    p, W_OUT, tap, STRIDE: tl.constexpr, PAD: tl.constexpr, DIL: tl.constexpr, KW: tl.constexpr
):
    row = (p // W_OUT) * STRIDE - PAD + (tap // KW) * DIL
    column = (p % W_OUT) * STRIDE - PAD + (tap % KW) * DIL
    return row, column


@triton.jit
def output_pixels(
    p,
    W,
    H_OUT,
    W_OUT,
    tap,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DIL: tl.constexpr,
    KW: tl.constexpr,
):
    """The output pixel that reads input pixel p with this tap, and whether there is one."""
    up = p // W + PAD - (tap // KW) * DIL
    left = p % W + PAD - (tap % KW) * DIL
    inside = (up >= 0) & (left >= 0) & (up < H_OUT * STRIDE) & (left < W_OUT * STRIDE)
    inside = inside & (up % STRIDE == 0) & (left % STRIDE == 0)
    return (up // STRIDE) * W_OUT + left // STRIDE, inside


@triton.jit
def rounded_product(a, b):
    """a * b as a number of its own, to be summed across lanes.

    A plain product whose first use is such a sum is fused with it: each lane adds its exact product
    to the rounded one of its neighbour. Two lanes then end with sums that differ in the last bit,
    all of them store theirs in one place, and which one stays there is left to chance.
    """
    return tl.fma(a, b, 0.0)


@triton.jit(do_not_specialize=["H", "W", "W_OUT"])
def forward_kernel(
    x, scale, shift, counts, channels, gates, packed, y,
    C, H, W, PX, W_OUT, P, x_step, y_step,
    G: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr, STRIDE: tl.constexpr,
    PAD: tl.constexpr, DIL: tl.constexpr, BP: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
    NORM: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of pixels and outputs of one head and sample: only the head's channels are read."""
    # heads run fastest: those of one tile share what they read in the cache
    number = tl.program_id(0)
    tiles_j: tl.constexpr = (J + BJ - 1) // BJ
    g = number % G
    j = (number // G) % tiles_j * BJ + tl.arange(0, BJ)
    p = number // (G * tiles_j) * BP + tl.arange(0, BP)
    b = tl.program_id(1)
    in_j, in_p = j < J, p < P
    plane = x + b.to(tl.int64) * x_step
    row = (b * G + g) * C
    # From memory and no constant: a launch that was captured in
    # a graph must hold for each image's own number of channels.
    count = tl.load(counts + b * G + g)
    total = tl.zeros((BP, BJ), tl.float32)
    # one loop over channels and taps, so that the loads of one round overlap the product before
    for step in range(0, tl.cdiv(count, BK) * T):  # noqa: PIE808
        tap = step % T
        k = step // T * BK + tl.arange(0, BK)
        in_k = k < count
        # Only this list is read: of x, and of the weights.
        # That is where the time goes that is saved.
        c = tl.load(channels + row + k, mask=in_k, other=0)
        if T == 1 and STRIDE == 1 and PAD == 0:
            at, inside = p, in_p
        else:
            r, q = input_pixels(p, W_OUT, tap, STRIDE, PAD, DIL, KW)
            at, inside = r * W + q, in_p & (r >= 0) & (r < H) & (q >= 0) & (q < W)
        wanted = in_k[:, None] & inside[None, :]
        a = tl.load(plane + c[:, None] * PX + at[None, :], mask=wanted, other=0.0).to(tl.float32)
        if NORM:
            # BatchNorm and ReLU on the way in, so that the activated input is written nowhere.
            a = a * tl.load(scale + c)[:, None] + tl.load(shift + c)[:, None]
            a = tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL)
            if T > 1 or PAD > 0:
                a = tl.where(wanted, a, 0.0)  # what lies outside is 0 behind the ReLU
        # beyond the list the gate is 0
        a = a * tl.load(gates + row + c, mask=in_k, other=0.0)[:, None]
        w = tl.load(
            packed + ((g * C + c)[:, None] * T + tap) * J + j[None, :],
            mask=in_k[:, None] & in_j[None, :], other=0.0,
        )  # fmt: skip
        # Triton's interpreter multiplies bf16 numbers by their bits; tests run in it without a GPU.
        if WIDEN:
            total = tl.dot(tl.trans(a), w.to(tl.float32), total, input_precision=PRECISION)
        else:
            total = tl.dot(tl.trans(a.to(w.dtype)), w, total, input_precision=PRECISION)
    out = y + b.to(tl.int64) * y_step + (j * G + g)[None, :] * P + p[:, None]
    tl.store(out, total.to(y.dtype.element_ty), mask=in_p[:, None] & in_j[None, :])


# The gates multiply the weights here and not dy: all heads then are one product, G * J deep, where
# a head's own J would leave most of a tensor core empty. A channel that is off is a column of
# zeros. Of the sums for BatchNorm each program writes a row of its own, and norm_grads_kernel adds
# them up in order: atomics would add in another order each time.
@triton.jit(do_not_specialize=["H", "W", "H_OUT", "W_OUT"])
def grad_input_kernel(
    grad_y, weight, gates, grad_pooled, x, scale, shift, mean, out, partial,
    C, H, W, PX, H_OUT, W_OUT, P, x_step, y_step, out_step,
    G: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr, STRIDE: tl.constexpr,
    PAD: tl.constexpr, DIL: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, BO: tl.constexpr,
    NORM: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of input channels and pixels, of all heads in one product: the gates
    stand in the weights. Times BatchNorm's scale into `out`; the sums BatchNorm's own gradient
    needs go to `partial` (2, B * tiles, C).
    """
    tile, b = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    p = tile * BP + tl.arange(0, BP)
    in_c, in_p = c < C, p < PX
    total = tl.zeros((BC, BP), tl.float32)
    gradient = grad_y + b.to(tl.int64) * y_step
    for step in range(0, (G * J + BO - 1) // BO * T):  # noqa: PIE808
        tap = step % T
        o = step // T * BO + tl.arange(0, BO)
        in_o = o < G * J
        g, j = o % G, o // G
        both = in_c[:, None] & in_o[None, :]
        gate = tl.load(gates + ((b * G + g) * C)[None, :] + c[:, None], mask=both, other=0.0)
        if T == 1 and STRIDE == 1 and PAD == 0:
            at, inside = p, in_p
        else:
            at, inside = output_pixels(p, W, H_OUT, W_OUT, tap, STRIDE, PAD, DIL, KW)
            inside = inside & in_p
        line = ((g * J + j) * (C * T))[None, :] + c[:, None] * T + tap
        w = tl.load(weight + line, mask=both, other=0.0).to(tl.float32) * gate
        dy = tl.load(
            gradient + o[:, None] * P + at[None, :], mask=in_o[:, None] & inside[None, :], other=0.0
        )
        if WIDEN:
            total = tl.dot(w, dy.to(tl.float32), total, input_precision=PRECISION)
        else:
            total = tl.dot(w.to(dy.dtype), dy, total, input_precision=PRECISION)
    inside = in_c[:, None] & in_p[None, :]
    spot = c[:, None] * PX + p[None, :]
    # Gating reads the mean of each plane, so its gradient is the same at every pixel.
    total += tl.load(grad_pooled + b * C + c, mask=in_c, other=0.0)[:, None]
    if NORM:
        value = tl.load(x + b.to(tl.int64) * x_step + spot, mask=inside, other=0.0).to(tl.float32)
        factor = tl.load(scale + c, mask=in_c, other=0.0)[:, None]
        before = value * factor + tl.load(shift + c, mask=in_c, other=0.0)[:, None]
        total = tl.where((before > 0) & inside, total, 0.0)
        centred = value - tl.load(mean + c, mask=in_c, other=0.0)[:, None]
        rows = tl.num_programs(2) * tl.num_programs(0)
        line = (b * tl.num_programs(0) + tile) * C + c
        tl.store(partial + line, tl.sum(total, 1), mask=in_c)
        product = tl.sum(rounded_product(total, centred), 1)
        tl.store(partial + rows * C + line, product, mask=in_c)
        total = total * factor
    target = out + b.to(tl.int64) * out_step + spot
    if ADD:
        # With ADD several layers leave their gradients in one buffer, that of a dense block.
        total += tl.load(target, mask=inside, other=0.0).to(tl.float32)
    tl.store(target, total.to(out.dtype.element_ty), mask=inside)


# A program takes `per` samples in a row: enough programs to fill the GPU, and few partial results
# to add up afterwards. A sample's own product is kept apart from the total: its gate's gradient is
# that product with the weights, its share of the weights' gradient the same product times the
# gate.
@triton.jit(do_not_specialize=["B", "H", "W", "W_OUT", "per"])
def grad_weight_kernel(
    grad_y, weight, gates, x, scale, shift, grad_weight, grad_gate,
    B, C, H, W, PX, W_OUT, P, x_step, y_step, per,
    G: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr, STRIDE: tl.constexpr,
    PAD: tl.constexpr, DIL: tl.constexpr, BC: tl.constexpr, BJ: tl.constexpr, BP: tl.constexpr,
    NORM: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Samples s * per and on: (S, G * J, C, T) into `grad_weight`, (tiles of J * T, B, G, C) into
    `grad_gate`, to be summed over their first axes. A channel that is off is not read.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    g, tap = tl.program_id(1) % G, tl.program_id(1) // G % T
    tile_j = tl.program_id(1) // (G * T)
    s = tl.program_id(2)
    j = tile_j * BJ + tl.arange(0, BJ)
    in_c, in_j = c < C, j < J
    if NORM:
        factor = tl.load(scale + c, mask=in_c, other=0.0)
        offset = tl.load(shift + c, mask=in_c, other=0.0)
    spot = ((g * J + j)[None, :] * C + c[:, None]) * T + tap
    both = in_c[:, None] & in_j[None, :]
    w = tl.load(weight + spot, mask=both, other=0.0).to(tl.float32)
    total = tl.zeros((BC, BJ), tl.float32)
    for b in range(s * per, min(s * per + per, B)):
        gate = tl.load(gates + (b * G + g) * C + c, mask=in_c, other=0.0)
        # What is off takes part in nothing: its channel is not read, and
        # its gate's gradient is 0, as ReLU and selection would make it.
        on = in_c & (gate != 0)
        own = tl.zeros((BC, BJ), tl.float32)
        plane = x + tl.cast(b, tl.int64) * x_step
        gradient = grad_y + tl.cast(b, tl.int64) * y_step
        for first in range(0, P, BP):
            p = first + tl.arange(0, BP)
            in_p = p < P
            if T == 1 and STRIDE == 1 and PAD == 0:
                at, inside = p, in_p
            else:
                r, q = input_pixels(p, W_OUT, tap, STRIDE, PAD, DIL, KW)
                at, inside = r * W + q, in_p & (r >= 0) & (r < H) & (q >= 0) & (q < W)
            wanted = on[:, None] & inside[None, :]
            a = tl.load(plane + c[:, None] * PX + at[None, :], mask=wanted, other=0.0)
            if NORM:
                a = a.to(tl.float32) * factor[:, None] + offset[:, None]
                a = tl.where(wanted, tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
            dy = tl.load(
                gradient + (j * G + g)[:, None] * P + p[None, :],
                mask=in_j[:, None] & in_p[None, :], other=0.0,
            )  # fmt: skip
            if WIDEN:
                own = tl.dot(
                    a.to(tl.float32), tl.trans(dy.to(tl.float32)), own, input_precision=PRECISION
                )
            else:
                own = tl.dot(a.to(dy.dtype), tl.trans(dy), own, input_precision=PRECISION)
        line = (((tile_j * T + tap) * B + b) * G + g) * C + c
        tl.store(grad_gate + line, tl.sum(rounded_product(own, w), 1), mask=in_c)
        total += own * gate[:, None]
    tl.store(grad_weight + s * (G * J * T) * C + spot, total, mask=both)
