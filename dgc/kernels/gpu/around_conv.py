"""What surrounds the dynamic convolution, in Triton: moments, BatchNorm's numbers, the pooled
input, and which channels are on.

Legend: B samples, C channels, G heads, P pixels of a plane.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pooled_kernel(
    x, scale, shift, out, C, P, x_step, BC: tl.constexpr, BP: tl.constexpr, NORM: tl.constexpr
):
    """Mean of each activated plane: (B, C)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    b = tl.program_id(1)
    in_c = c < C
    # One column a pixel of a round, added up across
    # once at the end: a fixed order, so results repeat.
    total = tl.zeros((BC, BP), tl.float32)
    if NORM:
        factor = tl.load(scale + c, mask=in_c, other=0.0)
        offset = tl.load(shift + c, mask=in_c, other=0.0)
    # In 64 bits: a batch has more than 2^31 numbers long before a GPU's memory is full.
    plane = x + b.to(tl.int64) * x_step + c[:, None].to(tl.int64) * P
    for first in range(0, P, BP):
        p = first + tl.arange(0, BP)
        inside = in_c[:, None] & (p < P)[None, :]
        a = tl.load(plane + p[None, :], mask=inside, other=0.0).to(tl.float32)
        if NORM:
            # max(NaN, 0) is 0 without this, and a network that diverged would look healthy.
            a = tl.maximum(
                a * factor[:, None] + offset[:, None], 0.0, propagate_nan=tl.PropagateNan.ALL
            )
            # What lies outside was loaded as 0 and is now relu(shift).
            a = tl.where(inside, a, 0.0)
        total += a
    tl.store(out + b * C + c, tl.sum(total, 1) / P, mask=in_c)


@triton.jit
def moments_kernel(x, means, squares, C, P, x_step, BC: tl.constexpr, BP: tl.constexpr):
    """Of each plane: its mean, and the sum of squares around it, both (B, C)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    b = tl.program_id(1)
    in_c = c < C
    plane = x + b.to(tl.int64) * x_step + c[:, None].to(tl.int64) * P
    total = tl.zeros((BC, BP), tl.float32)
    for first in range(0, P, BP):
        p = first + tl.arange(0, BP)
        total += tl.load(plane + p[None, :], mask=in_c[:, None] & (p < P)[None, :], other=0.0).to(
            tl.float32
        )
    mean = tl.sum(total, 1) / P
    # A second pass over the plane instead of sums of squares: squares minus the mean's square
    # cancel where a channel's mean is large beside its spread, and may even come out negative.
    square = tl.zeros((BC, BP), tl.float32)
    for first in range(0, P, BP):
        p = first + tl.arange(0, BP)
        inside = in_c[:, None] & (p < P)[None, :]
        value = tl.load(plane + p[None, :], mask=inside, other=0.0).to(tl.float32)
        off = tl.where(inside, value - mean[:, None], 0.0)
        square += off * off
    tl.store(means + b * C + c, mean, mask=in_c)
    tl.store(squares + b * C + c, tl.sum(square, 1), mask=in_c)


@triton.jit(do_not_specialize=["B"])
def batch_moments_kernel(means, squares, mean, var, B, C, P, BB: tl.constexpr, BC: tl.constexpr):
    """From those of planes to those of channels: mean and biased variance, both (C,)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    in_c = c < C
    total = tl.zeros((BB, BC), tl.float32)
    for first in range(0, B, BB):
        b = first + tl.arange(0, BB)
        inside = (b < B)[:, None] & in_c[None, :]
        total += tl.load(means + b[:, None] * C + c[None, :], mask=inside, other=0.0)
    middle = tl.sum(total, 0) / B
    spread = tl.zeros((BB, BC), tl.float32)
    for first in range(0, B, BB):
        b = first + tl.arange(0, BB)
        inside = (b < B)[:, None] & in_c[None, :]
        off = tl.load(means + b[:, None] * C + c[None, :], mask=inside, other=0.0) - middle[None, :]
        within = tl.load(squares + b[:, None] * C + c[None, :], mask=inside, other=0.0)
        # The parallel form of the variance (Chan et al.): within planes, and between their means.
        spread += tl.where(inside, within + P * off * off, 0.0)
    tl.store(mean + c, middle, mask=in_c)
    tl.store(var + c, tl.sum(spread, 0) / B / P, mask=in_c)


@triton.jit(do_not_specialize=["eps"])
def affine_kernel(weight, bias, mean, var, scale, shift, C, eps, BC: tl.constexpr):
    """BatchNorm as scale and shift, both (C,)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    in_c = c < C
    factor = tl.load(weight + c, mask=in_c, other=0.0).to(tl.float32)
    factor = factor / tl.sqrt(tl.load(var + c, mask=in_c, other=1.0) + eps)
    tl.store(scale + c, factor, mask=in_c)
    offset = tl.load(bias + c, mask=in_c, other=0.0).to(tl.float32)
    tl.store(shift + c, offset - tl.load(mean + c, mask=in_c, other=0.0) * factor, mask=in_c)


@triton.jit(do_not_specialize=["ROWS", "count", "eps"])
def norm_grads_kernel(
    partial, weight, mean, var, grad_weight, grad_bias, a, b, ROWS, C, count, eps,
    THROUGH: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """From partial sums (2, ROWS, C) of g and g * (x - mean): the gradients of BatchNorm's weight
    and bias, and a, b: x * a + b is what mean and variance add to the input's gradient.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    in_c = c < C
    plain, centred = tl.zeros((BR, BC), tl.float32), tl.zeros((BR, BC), tl.float32)
    for first in range(0, ROWS, BR):
        r = first + tl.arange(0, BR)
        inside = (r < ROWS)[:, None] & in_c[None, :]
        line = r[:, None] * C + c[None, :]
        plain += tl.load(partial + line, mask=inside, other=0.0)
        centred += tl.load(partial + ROWS * C + line, mask=inside, other=0.0)
    sum_g, sum_gx = tl.sum(plain, 0), tl.sum(centred, 0)
    # From the variance, and not from scale / weight: a weight may be 0.
    inverse = 1.0 / tl.sqrt(tl.load(var + c, mask=in_c, other=1.0) + eps)
    tl.store(grad_weight + c, sum_gx * inverse, mask=in_c)
    tl.store(grad_bias + c, sum_g, mask=in_c)
    if THROUGH:
        factor = tl.load(weight + c, mask=in_c, other=0.0).to(tl.float32) * inverse
        # The batch's own mean and variance depend on every pixel: what they add to the gradient is
        # linear in x, and so needs no more than two numbers a channel.
        slope = -factor * inverse * inverse * sum_gx / count
        tl.store(a + c, slope, mask=in_c)
        middle = tl.load(mean + c, mask=in_c, other=0.0)
        tl.store(b + c, -factor * sum_g / count - slope * middle, mask=in_c)


@triton.jit
def add_affine_kernel(grad, x, a, b, C, P, grad_step, x_step, BC: tl.constexpr, BP: tl.constexpr):
    """grad += x * a + b, channel by channel, in place."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    n = tl.program_id(2)
    in_c = c < C
    inside = in_c[:, None] & (p < P)[None, :]
    at = c[:, None].to(tl.int64) * P + p[None, :]
    value = tl.load(x + n.to(tl.int64) * x_step + at, mask=inside, other=0.0).to(tl.float32)
    target = grad + n.to(tl.int64) * grad_step + at
    total = tl.load(target, mask=inside, other=0.0).to(tl.float32)
    total += value * tl.load(a + c, mask=in_c, other=0.0)[:, None]
    total += tl.load(b + c, mask=in_c, other=0.0)[:, None]
    tl.store(target, total.to(grad.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B"])
def select_kernel(
    raw, inactive, gates, left, counts, channels, sums, B, C, G: tl.constexpr, BC: tl.constexpr
):
    """One head of one sample. `raw` (G, B, C) holds the gates before their ReLU; `gates` (B, G, C)
    gets them after it, `left` those that stay on, `channels` their numbers, ascending (then those
    of the others), and `counts` how many they are; `sums` (B, G) the sum of the gates.

    Off are the n smallest, ties included: all that are <= the n-th smallest. It is found by halving
    the range of its bits: positive floats are ordered as their bits are. NaN stays.
    """
    g, b = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, BC)
    in_c = c < C
    gate = tl.load(raw + (g * B + b) * C + c, mask=in_c, other=0.0)
    # Written with <=, NaN fails the comparison and stays NaN; a gate of -0.0 becomes 0.
    gate = tl.where(gate <= 0, 0.0, gate)
    n = tl.load(inactive).to(tl.int32)
    bits = gate.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    # Places behind the last channel are larger than
    # every gate: they are never among the n smallest.
    bits = tl.where(in_c, bits, 0x7FFFFFFF)
    low, high = n * 0, n * 0 + 0x7FFFFFFE
    for _ in range(31):
        # A sort would need the whole row in order; this
        # needs 31 sums, one for each bit behind the sign.
        middle = low + (high - low) // 2
        enough = tl.sum((bits <= middle).to(tl.int32), 0) >= n
        low, high = tl.where(enough, low, middle + 1), tl.where(enough, middle, high)
    threshold = low.to(tl.float32, bitcast=True)
    # Of equal gates at the bound all are off, and with
    # nothing to switch off only those that are 0 are.
    on = in_c & ((gate != 0) & ((n == 0) | ~(gate <= threshold)))
    row = (b * G + g) * C
    tl.store(gates + row + c, gate, mask=in_c)
    tl.store(left + row + c, tl.where(on, gate, 0.0), mask=in_c)
    one = on.to(tl.int32)
    # Ascending, by counting those on before it: no two threads write one place,
    # and the order of the sums over channels is the order of the channels.
    # Those that are off follow: memory that nobody wrote would differ from run to run.
    count = tl.sum(one, 0)
    place = tl.where(on, tl.cumsum(one, 0) - 1, count + tl.cumsum((in_c & ~on).to(tl.int32), 0) - 1)
    tl.store(channels + row + place, c, mask=in_c)
    tl.store(counts + b * G + g, count)
    tl.store(sums + b * G + g, tl.sum(tl.where(in_c, gate, 0.0), 0))


@triton.jit
def activate_kernel(x, scale, shift, out, C, P, x_step, BC: tl.constexpr, BP: tl.constexpr):
    """relu(x * scale + shift), channel by channel."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    n = tl.program_id(2)
    in_c = c < C
    inside = in_c[:, None] & (p < P)[None, :]
    at = c[:, None] * P + p[None, :]
    value = tl.load(x + n.to(tl.int64) * x_step + at, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.load(scale + c, mask=in_c, other=0.0)[:, None]
    value = value + tl.load(shift + c, mask=in_c, other=0.0)[:, None]
    value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + n.to(tl.int64) * C * P + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_sums_kernel(
    grad,
    x,
    scale,
    shift,
    mean,
    partial,
    C,
    P,
    grad_step,
    x_step,
    BC: tl.constexpr,
    BP: tl.constexpr,
):
    """Of each plane, with g the gradient of BatchNorm's output (through its ReLU):
    sums of g and of g * (x - mean), (2, B, C).
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    b = tl.program_id(1)
    in_c = c < C
    factor = tl.load(scale + c, mask=in_c, other=0.0)[:, None]
    offset = tl.load(shift + c, mask=in_c, other=0.0)[:, None]
    middle = tl.load(mean + c, mask=in_c, other=0.0)[:, None]
    plain, centred = tl.zeros((BC, BP), tl.float32), tl.zeros((BC, BP), tl.float32)
    for first in range(0, P, BP):
        p = first + tl.arange(0, BP)
        inside = in_c[:, None] & (p < P)[None, :]
        at = c[:, None] * P + p[None, :]
        value = tl.load(x + b.to(tl.int64) * x_step + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(grad + b.to(tl.int64) * grad_step + at, mask=inside, other=0.0).to(tl.float32)
        # The activated input is not kept: whether ReLU let a pixel pass is computed again from x.
        g = tl.where((value * factor + offset > 0) & inside, g, 0.0)
        plain += g
        centred += g * (value - middle)
    line = b * C + c
    tl.store(partial + line, tl.sum(plain, 1), mask=in_c)
    tl.store(partial + tl.num_programs(1) * C + line, tl.sum(centred, 1), mask=in_c)


@triton.jit
def norm_backward_kernel(
    grad,
    x,
    scale,
    shift,
    a,
    b,
    C,
    P,
    grad_step,
    x_step,
    BATCH: tl.constexpr,
    BC: tl.constexpr,
    BP: tl.constexpr,
):
    """In place: from the gradient behind BatchNorm's ReLU to that of its input."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    n = tl.program_id(2)
    in_c = c < C
    inside = in_c[:, None] & (p < P)[None, :]
    at = c[:, None] * P + p[None, :]
    value = tl.load(x + n.to(tl.int64) * x_step + at, mask=inside, other=0.0).to(tl.float32)
    target = grad + n.to(tl.int64) * grad_step + at
    g = tl.load(target, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + c, mask=in_c, other=0.0)[:, None]
    before = value * factor + tl.load(shift + c, mask=in_c, other=0.0)[:, None]
    g = tl.where(before > 0, g, 0.0) * factor
    if BATCH:
        g += value * tl.load(a + c, mask=in_c, other=0.0)[:, None]
        g += tl.load(b + c, mask=in_c, other=0.0)[:, None]
    tl.store(target, g.to(grad.dtype.element_ty), mask=inside)
