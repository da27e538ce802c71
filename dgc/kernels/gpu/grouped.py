"""BatchNorm, ReLU and a grouped 3x3 convolution with few channels a group, in Triton: forward and
both gradients, without tensor cores, which such groups would leave mostly empty.

Every sum is made in float32 in a fixed order by one program. Legend: B samples, G groups, OWN input
and J output channels of a group, T taps, P output pixels. `weight` (G * J, OWN, T) as it lies.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dgc.kernels.gpu.dynamic_conv import input_pixels, output_pixels, rounded_product


@triton.jit(do_not_specialize=["H", "W", "W_OUT"])
def grouped_forward_kernel(
    x, scale, shift, weight, y, H, W, PX, W_OUT, P, x_step, y_step,
    G: tl.constexpr, OWN: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr,
    STRIDE: tl.constexpr, PAD: tl.constexpr, DIL: tl.constexpr, BP: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """One tile of pixels of all outputs of a group."""
    g, b = tl.program_id(0) % G, tl.program_id(1)
    p = tl.program_id(0) // G * BP + tl.arange(0, BP)
    j = tl.arange(0, BJ)
    in_p, in_j = p < P, j < J
    plane = x + b.to(tl.int64) * x_step + g * OWN * PX
    total = tl.zeros((BJ, BP), tl.float32)
    for tap in range(T):
        r, q = input_pixels(p, W_OUT, tap, STRIDE, PAD, DIL, KW)
        inside = in_p & (r >= 0) & (r < H) & (q >= 0) & (q < W)
        at = r * W + q
        for c in tl.static_range(OWN):
            a = tl.load(plane + c * PX + at, mask=inside, other=0.0).to(tl.float32)
            a = a * tl.load(scale + g * OWN + c) + tl.load(shift + g * OWN + c)
            a = tl.where(inside, tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
            w = tl.load(weight + ((g * J + j) * OWN + c) * T + tap, mask=in_j, other=0.0)
            total += w.to(tl.float32)[:, None] * a[None, :]
    out = y + b.to(tl.int64) * y_step + (g * J + j)[:, None] * P + p[None, :]
    tl.store(out, total.to(y.dtype.element_ty), mask=in_j[:, None] & in_p[None, :])


@triton.jit(do_not_specialize=["H", "W", "H_OUT", "W_OUT"])
def grouped_input_kernel(
    grad_y, weight, x, scale, shift, mean, out, partial,
    H, W, PX, H_OUT, W_OUT, P, x_step, y_step, out_step,
    G: tl.constexpr, OWN: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr,
    STRIDE: tl.constexpr, PAD: tl.constexpr, DIL: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """As grad_input_kernel: BatchNorm's gradient times its scale, and partial sums."""
    g, tile, b = tl.program_id(1), tl.program_id(0), tl.program_id(2)
    own = tl.arange(0, BC)
    c = g * OWN + own
    p = tile * BP + tl.arange(0, BP)
    in_c, in_p = own < OWN, p < PX
    gradient = grad_y + b.to(tl.int64) * y_step + g * J * P
    total = tl.zeros((BC, BP), tl.float32)
    for tap in range(T):
        at, inside = output_pixels(p, W, H_OUT, W_OUT, tap, STRIDE, PAD, DIL, KW)
        inside = inside & in_p
        for j in tl.static_range(J):
            dy = tl.load(gradient + j * P + at, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(weight + ((g * J + j) * OWN + own) * T + tap, mask=in_c, other=0.0)
            total += w.to(tl.float32)[:, None] * dy[None, :]
    inside = in_c[:, None] & in_p[None, :]
    spot = c[:, None] * PX + p[None, :]
    value = tl.load(x + b.to(tl.int64) * x_step + spot, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + c, mask=in_c, other=0.0)[:, None]
    before = value * factor + tl.load(shift + c, mask=in_c, other=0.0)[:, None]
    # As in grad_input_kernel: partial rows, for norm_grads_kernel to add up in order.
    total = tl.where((before > 0) & inside, total, 0.0)
    centred = value - tl.load(mean + c, mask=in_c, other=0.0)[:, None]
    rows = tl.num_programs(2) * tl.num_programs(0)
    line = (b * tl.num_programs(0) + tile) * (G * OWN) + c
    tl.store(partial + line, tl.sum(total, 1), mask=in_c)
    product = tl.sum(rounded_product(total, centred), 1)
    tl.store(partial + rows * (G * OWN) + line, product, mask=in_c)
    target = out + b.to(tl.int64) * out_step + spot
    tl.store(target, (total * factor).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B", "H", "W", "W_OUT", "per"])
def grouped_weight_kernel(
    grad_y, x, scale, shift, grad_weight, B, H, W, PX, W_OUT, P, x_step, y_step, per,
    G: tl.constexpr, OWN: tl.constexpr, J: tl.constexpr, T: tl.constexpr, KW: tl.constexpr,
    STRIDE: tl.constexpr, PAD: tl.constexpr, DIL: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BJ: tl.constexpr,
):  # fmt: skip
    """Samples s * per and on, of one tap and group: (S, G * J, OWN, T), to be summed over S."""
    g, tap, s = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own, j = tl.arange(0, BC), tl.arange(0, BJ)
    in_c, in_j = own < OWN, j < J
    c = g * OWN + own
    factor = tl.load(scale + c, mask=in_c, other=0.0)[:, None]
    offset = tl.load(shift + c, mask=in_c, other=0.0)[:, None]
    # The pixels stay an axis of their own until the end:
    # one sum across threads instead of one a round.
    total = tl.zeros((BC, BJ, BP), tl.float32)
    for b in range(s * per, min(s * per + per, B)):
        plane = x + tl.cast(b, tl.int64) * x_step
        gradient = grad_y + tl.cast(b, tl.int64) * y_step
        for first in range(0, P, BP):
            p = first + tl.arange(0, BP)
            in_p = p < P
            r, q = input_pixels(p, W_OUT, tap, STRIDE, PAD, DIL, KW)
            inside = in_p & (r >= 0) & (r < H) & (q >= 0) & (q < W)
            wanted = in_c[:, None] & inside[None, :]
            a = tl.load(plane + c[:, None] * PX + (r * W + q)[None, :], mask=wanted, other=0.0)
            a = a.to(tl.float32) * factor + offset
            a = tl.where(wanted, tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
            dy = tl.load(
                gradient + (g * J + j)[:, None] * P + p[None, :],
                mask=in_j[:, None] & in_p[None, :], other=0.0,
            )  # fmt: skip
            total += a[:, None, :] * dy.to(tl.float32)[None, :, :]
    spot = ((g * J + j)[None, :] * OWN + own[:, None]) * T + tap
    size = G * J * OWN * T
    tl.store(grad_weight + s * size + spot, tl.sum(total, 2), mask=in_c[:, None] & in_j[None, :])
