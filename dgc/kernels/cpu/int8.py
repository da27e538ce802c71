"""8-bit convolutions (src/infer/int8): weights as signed bytes with a scale for each output
channel, values as bytes with a scale for each sample and head, sums of integers, the rest float32
in one fixed order. The same bits on every instruction set, for any number of threads and any batch.

`Convolution` is one layer by itself, for tests and measurements; plans are made by
dgc.infer.lower_int8.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from dgc.kernels.cpu import weights
from dgc.kernels.cpu.layout import ALIGN, Layout, Window, up
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Int8, Int8Pass
from dgc.kernels.cpu.structs import Tensor as Planes

FEW_FOURS, TILES = 5, 8192  # as in conv8.h
TAIL = 4 * ALIGN  # floats that vectors may read behind the last plane
MOST_PRODUCTS = (2**31 - 1) // (255 * 127) // 2  # of one sum, with its correction, in 32 bits


@dataclass(frozen=True)
class Quantised:
    """[head][channel][tap][outs, padded to 16] in signed bytes, and a scale for each output."""

    rows: Tensor
    scale: Tensor


def quantise(weight_OCkk: Tensor, heads: int) -> Quantised:
    """Symmetric, for each output channel: its largest magnitude becomes 127.

    Outputs are in the order of the heads: head 0 first.
    """
    largest = weight_OCkk.abs().amax((1, 2, 3))
    scale = torch.where(largest > 0, largest, torch.ones(())) / 127
    q = torch.round(weight_OCkk / scale[:, None, None, None]).clamp(-127, 127).to(torch.int8)
    o, c = q.shape[:2]
    rows = torch.zeros(heads, c, q[0, 0].numel(), up(o // heads), dtype=torch.int8)
    rows[..., : o // heads] = q.reshape(heads, o // heads, c, -1).permute(0, 2, 3, 1)
    return Quantised(rows, scale)


def halves(matrix: Tensor) -> Quantised:
    """(..., n) in 16 bits, the last dimension padded with zeros to a multiple of 16; a scale for
    each row, whose largest magnitude becomes 32767.
    """
    largest = matrix.abs().amax(-1)
    scale = torch.where(largest > 0, largest, torch.ones(())) / 32767
    q = torch.round(matrix / scale[..., None]).clamp(-32767, 32767)
    return Quantised(weights.rows(q).to(torch.int16), scale.contiguous())


def scratch_floats(source: Layout, own: int, taps: int, outs: int) -> int:
    """What a worker needs for itself (`room_of` in src/infer/int8/conv8.h), in floats: `own`
    channels at most are kept, for `outs` outputs of a head.
    """
    fours, width = up(own, 4) // 4, up(outs)
    deep = fours if fours < FEW_FOURS else up(fours)
    values = up(deep * (source.plane + source.lead + 64))
    return values + up(2 * deep * taps * width) + width + up(up(taps * width, 4) // 4) + TILES


def pooled_floats(written: Layout, padding: int) -> int:
    """What a worker needs beside that for a result that is pooled, eight channels at a time."""
    return up(8 * written.plane + written.width + 2 * padding + 128)


def kept_of(gates_BGC: Tensor) -> Tensor:
    """(samples, heads, floats): the channels whose gate is not zero, in their order, as the kernels
    list them (src/infer/gates.h).
    """
    b, g, c = gates_BGC.shape
    zero = gates_BGC == 0
    order = torch.argsort(zero.to(torch.int8), dim=-1, stable=True)
    listed = torch.zeros(b, g, ALIGN + 2 * up(c))
    whole = listed.view(torch.int32)
    whole[..., 0] = (~zero).sum(-1)
    whole[..., ALIGN : ALIGN + c] = order
    listed[..., ALIGN + up(c) : ALIGN + up(c) + c] = gates_BGC.gather(-1, order)
    return listed


def to_planes(x_BCHW: Tensor, layout: Layout) -> Tensor:
    """(samples, floats): the images as the kernels read them, with zeros around."""
    b, c = x_BCHW.shape[:2]
    s = layout.phases
    y = torch.zeros(b, layout.floats(c) + TAIL)
    planes = y[:, : c * layout.plane].view(b, c, s * s, layout.phase_plane)
    for p in range(s * s):
        part = x_BCHW[..., p // s :: s, p % s :: s]
        rows, columns = part.shape[2:]
        place = planes[:, :, p, layout.lead : layout.lead + layout.rows * layout.row]
        place.view(b, c, layout.rows, layout.row)[..., :rows, :columns] = part
    return y


def from_planes(y: Tensor, layout: Layout, channels: int) -> Tensor:
    """Back from `to_planes`, for a layout without sub-planes."""
    planes = y[:, : channels * layout.plane].view(len(y), channels, layout.plane)
    rows = planes[..., layout.lead : layout.lead + layout.rows * layout.row]
    return rows.view(len(y), channels, layout.rows, layout.row)[..., : layout.width].clone()


@dataclass(frozen=True)
class Convolution:
    """One layer, made once; `run` takes any batch of images of its size."""

    weight: Tensor  # (O, channels of a group, kh, kw); dynamic (O, C, kh, kw)
    heads: int
    window: Window
    size: tuple[int, int]
    dynamic: bool = True
    bias: Tensor | None = None
    in_scale: Tensor | None = None
    in_shift: Tensor | None = None
    signed: bool = False
    relu: bool = False
    apart: bool = False  # read from an image whose pixels lie side by side, whatever the stride

    def __post_init__(self) -> None:
        products = int(self.weight[0].numel())
        if products > MOST_PRODUCTS:
            raise ValueError(f"{products} products in one sum, at most {MOST_PRODUCTS} fit 32 bits")

    def layouts(self) -> tuple[Layout, Layout]:
        """Of the input and of the output."""
        out = self.window.output(self.size)
        row = max(out[1], self.window.row(self.size, 1))
        return self.window.input_layout(self.size, 1, row), Layout(*out, 1, row, 0)

    def run(
        self,
        library: Library,
        x_BCHW: Tensor,
        kept: Tensor | None,
        residual: Tensor | None = None,
        threads: int = 1,
        reference: bool = False,
    ) -> Tensor:
        return self.prepare(library, x_BCHW, kept, residual, threads).result(reference)

    def prepare(
        self,
        library: Library,
        x_BCHW: Tensor,
        kept: Tensor | None,
        residual: Tensor | None = None,
        threads: int = 1,
    ) -> Call:
        """Everything that a run reads and writes, so that only its passes are left to do."""
        if (kept is None) == self.dynamic:
            raise ValueError("a dynamic layer takes what its heads keep, a static one does not")
        return Call(self, library, x_BCHW, kept, residual, threads)


class Call:
    """A layer's memory for one batch, and its passes."""

    def __init__(
        self,
        layer: Convolution,
        library: Library,
        x: Tensor,
        kept: Tensor | None,
        residual: Tensor | None,
        threads: int,
    ) -> None:
        self.layer, self.library = layer, library
        source, out = layer.layouts()
        self.out, self.outputs = out, int(layer.weight.shape[0])
        taps = int(layer.weight.shape[2] * layer.weight.shape[3])
        q = quantise(layer.weight, layer.heads)
        b, c = x.shape[:2]
        self.mean, self.top = torch.zeros(b, c), torch.zeros(b, c)
        self.y = to_planes(torch.zeros(b, self.outputs, *layer.window.output(layer.size)), out)
        self.out_mean, self.out_top = (torch.zeros(b, self.outputs) for _ in range(2))
        image = Layout(*layer.size, 1, layer.size[1] + 1, 0) if layer.apart else source
        self.image_mask = torch.from_numpy(image.mask())
        planes = to_planes(x, image)
        self.tensors: dict[str, Tensor | None] = {
            "x": planes,
            "y": self.y,
            "residual": None if residual is None else to_planes(residual, out),
            "src_mask": torch.from_numpy(source.mask()),
            "dst_mask": torch.from_numpy(out.mask()),
            "offsets": torch.from_numpy(layer.window.offsets(source, 1)),
            "weight": q.rows,
            "weight_scale": q.scale,
            "bias": layer.bias,
            "in_scale": layer.in_scale,
            "in_shift": layer.in_shift,
            "mean": self.mean,
            "top": self.top,
            "list": kept,
            "out_mean": self.out_mean,
            "out_top": self.out_top,
        }
        outs = self.outputs // layer.heads
        self.call = Int8(
            samples=b, threads=threads, src=_planes(source, c), dst=_planes(out, self.outputs),
            image=_planes(image, c),
            x_step=planes.shape[1], y_step=self.y.shape[1],
            channels=c, heads=layer.heads, outs=outs, taps=taps, dynamic=int(layer.dynamic),
            is_signed=int(layer.signed and layer.in_scale is None), relu=int(layer.relu),
            out_step=layer.heads if layer.dynamic else 1, head_step=1 if layer.dynamic else outs,
            **{name: t.data_ptr() for name, t in self.tensors.items() if t is not None},
        )  # fmt: skip
        library.handle.dgc_int8_room.restype = ctypes.c_int64
        room = int(library.handle.dgc_int8_room(ctypes.byref(self.call)))
        self.scratch = torch.empty(threads * room + 64, dtype=torch.uint8)
        start = self.scratch.data_ptr()
        self.call.scratch, self.call.scratch_step = start + -start % 64, room

    def do(self, which: Int8Pass) -> None:
        self.call.op = int(which)
        means = which is Int8Pass.INT8_MEANS
        mask = self.image_mask if means else self.tensors["src_mask"]
        assert mask is not None
        self.call.src_mask = mask.data_ptr()
        library = self.library
        library.handle.dgc_int8(ctypes.byref(self.call), library.isa, library.feature_bits)

    def result(self, reference: bool = False) -> Tensor:
        self.do(Int8Pass.INT8_MEANS)
        self.do(Int8Pass.INT8_REFERENCE if reference else Int8Pass.INT8_CONVOLVE)
        return from_planes(self.y, self.out, self.outputs)


def _planes(layout: Layout, channels: int) -> Planes:
    return Planes(
        plane=layout.plane, phases=layout.phases, phase_plane=layout.phase_plane, lead=layout.lead,
        row=layout.row, length=layout.length, height=layout.height, width=layout.width,
        channels=channels,
    )  # fmt: skip
