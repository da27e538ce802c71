"""Passes over a batch on a GPU, one launch each: what `dgc.kernels.cpu.train_passes` is on the CPU.

Legend: B samples, C channels, G heads, J outputs of a head, T taps, P pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from dgc.kernels.gpu import around_conv, dynamic_conv, grouped, tiles

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
AMD_PRECISION = "ieee"


class TritonWindow(NamedTuple):
    """A dynamic convolution's numbers: one stride, padding and dilation for both directions."""

    heads: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def output(self, size: int) -> int:
        reach = self.dilation * (self.kernel - 1)
        return (size + 2 * self.padding - reach - 1) // self.stride + 1


class TritonAffine(NamedTuple):
    """a = relu(x * scale + shift) of each channel, both (C,) float32;
    `mean` (C,) is subtracted where sums of x are taken.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor


class TritonSelected(NamedTuple):
    """`gates` (B, G, C): those that are on, else 0. Each head's channels, ascending: how many
    (B, G) and which (B, G, C; behind them those that are off).
    """

    gates: Tensor
    counts: Tensor
    channels: Tensor


class TritonNormGrads(NamedTuple):
    """Of a BatchNorm: its weight and bias; and a, b: x * a + b is what else its input gets."""

    weight: Tensor
    bias: Tensor
    a: Tensor
    b: Tensor


def has_planes(x: Tensor) -> bool:
    """Whether each sample's channels lie one after the other; samples may lie apart."""
    h, w = x.shape[2:]
    return x.stride()[1:] == (h * w, w, 1) and x.numel() > 0


def planes(x: Tensor) -> Tensor:
    return x if has_planes(x) else x.contiguous()


def _precision(dtype: torch.dtype) -> tuple[str, bool]:
    """How products of float32 numbers are made: three TF32 products, which together are as exact as
    one in float32, or one where TF32 is allowed. And whether operands are widened: the interpreter
    multiplies the bits of bf16. AMD's matrix units take float32 as it is, and know no TF32.
    """
    widen = triton.knobs.runtime.interpret
    if torch.version.hip is not None:
        return AMD_PRECISION, widen
    if dtype != torch.float32:
        return "tf32", widen
    return ("tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"), widen


def _numbers(w: TritonWindow) -> tuple[int, int, int, int, int]:
    taps = w.kernel * w.kernel
    return taps, w.kernel, w.stride, w.padding, w.dilation


def pooled(x: Tensor, affine: TritonAffine | None) -> Tensor:
    """Mean of each activated plane: (B, C) float32."""
    b, c, h, w = x.shape
    out = torch.empty(b, c, dtype=torch.float32, device=x.device)
    bc, bp = tiles.planes(c, h * w)
    # Without BatchNorm the kernel is compiled without
    # these reads, but a pointer has to be handed over.
    scale, shift = (x, x) if affine is None else affine[:2]
    around_conv.pooled_kernel[(triton.cdiv(c, bc), b)](
        x, scale, shift, out, c, h * w, x.stride(0), bc, bp, affine is not None
    )
    return out


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, both (C,) float32."""
    b, c, h, w = x.shape
    means, squares = torch.empty(2, b, c, dtype=torch.float32, device=x.device)
    bc, bp = tiles.planes(c, h * w)
    around_conv.moments_kernel[(triton.cdiv(c, bc), b)](
        x, means, squares, c, h * w, x.stride(0), bc, bp
    )
    mean, var = torch.empty(2, c, dtype=torch.float32, device=x.device)
    # Two launches: programs cannot wait for each other,
    # and the second needs all planes of a channel.
    around_conv.batch_moments_kernel[(triton.cdiv(c, 16),)](
        means, squares, mean, var, b, c, h * w, 64, 16
    )
    return mean, var


def affine_of(weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> TritonAffine:
    c = len(weight)
    scale, shift = torch.empty(2, c, dtype=torch.float32, device=weight.device)
    around_conv.affine_kernel[(triton.cdiv(c, 256),)](
        weight, bias, mean, var, scale, shift, c, eps, 256
    )
    return TritonAffine(scale, shift, mean)


def select(raw_GBC: Tensor, inactive_1: Tensor) -> tuple[Tensor, TritonSelected, Tensor]:
    """Gates (B, G, C) after their ReLU, those that stay on, and the sums (B, G) of all."""
    g, b, c = raw_GBC.shape
    # two tensors and no halves of one: what an operator returns may not share memory
    gates, left = (
        torch.empty(b, g, c, dtype=torch.float32, device=raw_GBC.device) for _ in range(2)
    )
    counts = torch.empty(b, g, dtype=torch.int32, device=raw_GBC.device)
    channels = torch.empty(b, g, c, dtype=torch.int32, device=raw_GBC.device)
    sums = torch.empty(b, g, dtype=torch.float32, device=raw_GBC.device)
    # A head's channels are one block: select_kernel counts and sums across them.
    block = tiles.power_of_two(c, 16)
    around_conv.select_kernel[(g, b)](
        raw_GBC.contiguous(), inactive_1, gates, left, counts, channels, sums, b, c, g, block,
        num_warps=4 if block <= 1024 else 8,
    )  # fmt: skip
    return gates, TritonSelected(left, counts, channels), sums


def pack(weight: Tensor, heads: int) -> Tensor:
    """(G * J, C, k, k) as (G, C, T, J)."""
    # The outputs of one channel and tap side by side, as the product's right side reads them.
    o, c = weight.shape[:2]
    return weight.view(heads, o // heads, c, -1).permute(0, 2, 3, 1).contiguous()


def forward(
    x: Tensor, affine: TritonAffine | None, on: TritonSelected, weight: Tensor, window: TritonWindow
) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W')."""
    b, c, h, w = x.shape
    outs, (oh, ow) = len(weight) // window.heads, (window.output(size) for size in (h, w))
    y = torch.empty(b, len(weight), oh, ow, dtype=x.dtype, device=x.device)
    tile = tiles.forward(x.dtype, oh * ow, outs)
    scale, shift = (x, x) if affine is None else affine[:2]
    # Pixels, outputs and heads share the grid's first axis:
    # it takes 2^31 programs, the others (here samples) 65535.
    grid = (triton.cdiv(oh * ow, tile.rows) * triton.cdiv(outs, tile.columns) * window.heads, b)
    precision, widen = _precision(x.dtype)
    dynamic_conv.forward_kernel[grid](
        x, scale, shift, on.counts, on.channels, on.gates, pack(weight, window.heads), y,
        c, h, w, h * w, ow, oh * ow, x.stride(0), y.stride(0), window.heads, outs,
        *_numbers(window),
        tile.rows, tile.columns, tile.depth, affine is not None, precision, widen,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y


def grad_weight(
    x: Tensor,
    affine: TritonAffine | None,
    on: TritonSelected,
    weight: Tensor,
    grad_y: Tensor,
    window: TritonWindow,
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights, as they lie, and of the gates (B, G, C), both float32."""
    b, c, h, w = x.shape
    g, outs, taps = window.heads, len(weight) // window.heads, window.kernel**2
    oh, ow = grad_y.shape[2:]
    tile = tiles.grad_weight(x.dtype, c, outs, oh * ow, taps)
    # a head of more outputs than a tile has columns is taken in parts
    tiles_c, parts = triton.cdiv(c, tile.rows), taps * triton.cdiv(outs, tile.columns)
    # About 1024 programs keep a large GPU busy; more would only be more partial results.
    splits = max(1, min(b, 1024 // (tiles_c * g * parts)))
    per = triton.cdiv(b, splits)
    # Again, for `per` was rounded up: the last ones might have no sample.
    splits = triton.cdiv(b, per)
    gw = torch.empty(splits, *weight.shape, dtype=torch.float32, device=x.device)
    gate = torch.empty(parts, b, g, c, dtype=torch.float32, device=x.device)
    scale, shift = (x, x) if affine is None else affine[:2]
    precision, widen = _precision(x.dtype)
    dynamic_conv.grad_weight_kernel[(tiles_c, g * parts, splits)](
        grad_y, weight, on.gates, x, scale, shift, gw, gate, b, c, h, w, h * w, ow, oh * ow,
        x.stride(0), grad_y.stride(0), per, g, outs, *_numbers(window),
        tile.rows, tile.columns, tile.depth, affine is not None, precision, widen,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return (gw[0] if splits == 1 else gw.sum(0)), (gate[0] if parts == 1 else gate.sum(0))


def grad_input(
    x: Tensor, affine: TritonAffine | None, on: TritonSelected, weight: Tensor, grad_y: Tensor,
    grad_pooled: Tensor, window: TritonWindow, out: Tensor, *, add: bool = False,
) -> Tensor | None:  # fmt: skip
    """Into `out` (B, C, H, W), or added to it: the gradient g of x * scale + shift, times scale.

    `grad_pooled` (B, C) is what each pixel of the activated input gets besides. Returns partial
    sums (2, rows, C) of g and of g * (x - mean).
    """
    b, c, h, w = x.shape
    outs, (oh, ow) = len(weight) // window.heads, grad_y.shape[2:]
    tile = tiles.grad_input(x.dtype, c, h * w, len(weight))
    tiles_p = triton.cdiv(h * w, tile.columns)
    norm = affine is not None
    partial = torch.empty(2, b * tiles_p, c, dtype=torch.float32, device=x.device) if norm else None
    scale, shift, mean = (x, x, x) if affine is None else affine
    precision, widen = _precision(x.dtype)
    dynamic_conv.grad_input_kernel[(tiles_p, triton.cdiv(c, tile.rows), b)](
        grad_y, weight, on.gates, grad_pooled, x, scale, shift, mean, out, partial,
        c, h, w, h * w, oh, ow, oh * ow, x.stride(0), grad_y.stride(0), out.stride(0),
        window.heads, outs, *_numbers(window), tile.rows, tile.columns, tile.depth, norm, add,
        precision, widen, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return partial


def norm_grads(
    partial: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float, count: int, *,
    batch: bool,
) -> TritonNormGrads:  # fmt: skip
    """Of a BatchNorm over `count` values a channel; `batch`: its moments are those of the batch."""
    c = len(weight)
    found = TritonNormGrads(*torch.empty(4, c, dtype=torch.float32, device=weight.device))
    around_conv.norm_grads_kernel[(triton.cdiv(c, 16),)](
        partial, weight, mean, var, *found, partial.shape[1], c, count, eps, batch, 64, 16
    )
    return found


def add_affine(grad: Tensor, x: Tensor, a: Tensor, b: Tensor) -> None:
    """grad += x * a + b, channel by channel, in place."""
    n, c, h, w = x.shape
    bc, bp = tiles.planes(c, h * w)
    around_conv.add_affine_kernel[(triton.cdiv(h * w, bp), triton.cdiv(c, bc), n)](
        grad, x, a, b, c, h * w, grad.stride(0), x.stride(0), bc, bp
    )


def activate(x: Tensor, affine: TritonAffine) -> Tensor:
    """relu(x * scale + shift)."""
    n, c, h, w = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    bc, bp = tiles.planes(c, h * w)
    around_conv.activate_kernel[(triton.cdiv(h * w, bp), triton.cdiv(c, bc), n)](
        x, affine.scale, affine.shift, out, c, h * w, x.stride(0), bc, bp
    )
    return out


def norm_sums(grad: Tensor, x: Tensor, affine: TritonAffine) -> Tensor:
    """Partial sums (2, B, C) for `norm_grads`, from the gradient behind BatchNorm's ReLU."""
    n, c, h, w = x.shape
    partial = torch.empty(2, n, c, dtype=torch.float32, device=x.device)
    bc, bp = tiles.planes(c, h * w)
    around_conv.norm_sums_kernel[(triton.cdiv(c, bc), n)](
        grad, x, *affine, partial, c, h * w, grad.stride(0), x.stride(0), bc, bp
    )
    return partial


def norm_backward(
    grad: Tensor, x: Tensor, affine: TritonAffine, found: TritonNormGrads, *, batch: bool
) -> None:
    """In place: from the gradient behind BatchNorm's ReLU to that of its input."""
    n, c, h, w = x.shape
    bc, bp = tiles.planes(c, h * w)
    around_conv.norm_backward_kernel[(triton.cdiv(h * w, bp), triton.cdiv(c, bc), n)](
        grad, x, affine.scale, affine.shift, found.a, found.b, c, h * w, grad.stride(0),
        x.stride(0), batch, bc, bp,
    )  # fmt: skip


def is_narrow(weight: Tensor, groups: int) -> bool:
    """Whether a grouped convolution has so few channels a group that `grouped_*` are for it."""
    return weight.shape[1] <= tiles.NARROW_INPUTS and len(weight) // groups <= tiles.NARROW_OUTPUTS


def grouped_forward(
    x: Tensor, affine: TritonAffine, weight: Tensor, window: TritonWindow
) -> Tensor:
    """BatchNorm, ReLU and a grouped convolution: (B, C, H, W) -> (B, O, H', W')."""
    b, _, h, w = x.shape
    g, outs, own = window.heads, len(weight) // window.heads, weight.shape[1]
    oh, ow = (window.output(size) for size in (h, w))
    y = torch.empty(b, len(weight), oh, ow, dtype=x.dtype, device=x.device)
    bp = tiles.power_of_two(oh * ow, 32, 256)
    grouped.grouped_forward_kernel[(triton.cdiv(oh * ow, bp) * g, b)](
        x, affine.scale, affine.shift, weight, y, h, w, h * w, ow, oh * ow, x.stride(0),
        y.stride(0), g, own, outs, *_numbers(window), bp, tiles.power_of_two(outs),
        num_warps=max(1, bp // 64),
    )  # fmt: skip
    return y


def grouped_input(
    x: Tensor,
    affine: TritonAffine,
    weight: Tensor,
    grad_y: Tensor,
    window: TritonWindow,
    out: Tensor,
) -> Tensor:
    """As `grad_input`, for a grouped convolution."""
    b, c, h, w = x.shape
    g, outs, own = window.heads, len(weight) // window.heads, weight.shape[1]
    oh, ow = grad_y.shape[2:]
    bc = tiles.power_of_two(own)
    bp = tiles.power_of_two(h * w, 32, max(64, min(256, 4096 // bc)))
    count = triton.cdiv(h * w, bp)
    # With half as many numbers in each thread it unrolls so far that it spills, on every target.
    warps = 4 if bc < 32 else max(1, bc * bp // 1024)
    partial = torch.empty(2, b * count, c, dtype=torch.float32, device=x.device)
    grouped.grouped_input_kernel[(count, g, b)](
        grad_y, weight, x, *affine, out, partial, h, w, h * w, oh, ow, oh * ow, x.stride(0),
        grad_y.stride(0), out.stride(0), g, own, outs, *_numbers(window), bp, bc, num_warps=warps,
    )  # fmt: skip
    return partial


def grouped_weight(
    x: Tensor, affine: TritonAffine, weight: Tensor, grad_y: Tensor, window: TritonWindow
) -> Tensor:
    """The gradient of a grouped convolution's weights, float32."""
    b, _, h, w = x.shape
    g, outs, own = window.heads, len(weight) // window.heads, weight.shape[1]
    oh, ow = grad_y.shape[2:]
    bc, bj, taps = tiles.power_of_two(own), tiles.power_of_two(outs), window.kernel**2
    bp = tiles.power_of_two(oh * ow, 16, max(16, min(256, 8192 // (bc * bj))))
    per = triton.cdiv(b, max(1, min(b, 2048 // (g * taps))))
    splits = triton.cdiv(b, per)
    gw = torch.empty(splits, *weight.shape, dtype=torch.float32, device=x.device)
    grouped.grouped_weight_kernel[(g, taps, splits)](
        grad_y, x, affine.scale, affine.shift, gw, b, h, w, h * w, ow, oh * ow, x.stride(0),
        grad_y.stride(0), per, g, own, outs, *_numbers(window), bp, bc, bj, num_warps=4,
    )  # fmt: skip
    return gw[0] if splits == 1 else gw.sum(0)
