"""Operations as they are emitted: their constants are placed at once, their images and regions when
all are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dgc.infer.memory import Buffer, Image, Region, buffer_of, place, write_in_place
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import structs
from dgc.kernels.cpu.block import BlockBuilder
from dgc.kernels.cpu.layout import Layout, up
from dgc.kernels.cpu.structs import Kind, Op

Constant = Tensor | NDArray[np.int64] | NDArray[np.int32] | NDArray[np.float32] | None


# Which operands a result may be written over: each vector is read before it is written.
IN_PLACE = {
    Kind.CONV: ("residual",), Kind.WINO: ("residual",), Kind.CONV8: ("residual",),
    Kind.ADD: ("src", "residual"), Kind.COMBINE: ("src", "residual"), Kind.PACK: ("src",),
}  # fmt: skip


@dataclass
class Step:
    """An operation whose places in the workspace are still open."""

    op: Op
    images: dict[str, Image]
    regions: Mapping[str, Region]
    path: str  # of the module that it is part of
    layouts: Mapping[str, tuple[Layout, int]]  # those without a place, and how many channels

    def writes(self, image: Image) -> bool:
        """Whether a channel of it is written."""
        to = self.images.get("dst")
        return (
            to is not None
            and to.buffer is image.buffer
            and to.first < image.first + image.channels
            and image.first < to.first + to.channels
        )

    def reads_twice(self, name: str) -> bool:
        """Whether the memory of an operand is read as another operand, too."""
        own = self.images[name].buffer
        return any(i.buffer is own for n, i in self.images.items() if n not in (name, "dst"))


class Emitter:
    """Collects operations; `finish` makes them a plan."""

    exact = False  # the same bits on every machine: see DgcProgram

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.block = BlockBuilder()
        self.masks: dict[Layout, int] = {}
        self.scratch = 4096  # floats a worker needs for itself
        self.path = ""  # of the module whose operations are emitted

    def emit(
        self,
        kind: Kind,
        images: dict[str, Image] | None = None,
        regions: Mapping[str, Region] | None = None,
        constants: Mapping[str, Constant] | None = None,
        *,
        layouts: Mapping[str, tuple[Layout, int]] | None = None,
        around: bool = False,
        **numbers: int,
    ) -> Step:
        """`layouts`: of what has no place in the workspace, and its channels.
        `around`: it reads what lies around the pixels of its sources, and needs zeros there."""
        images, regions = images or {}, regions or {}
        placed = {k: self.constant(v) for k, v in (constants or {}).items() if v is not None}
        # What lives how long follows from these numbers, once all operations are known.
        for used in [*(i.buffer for i in images.values()), *regions.values()]:
            used.uses.append(len(self.steps))
        for name in images if around else ():
            images[name].buffer.padded |= name != "dst"
        op = Op(kind=int(kind), **placed, **numbers)
        self.steps.append(Step(op, images, regions, self.path, layouts or {}))
        return self.steps[-1]

    def constant(self, value: Tensor | NDArray[np.generic]) -> int:
        """Where the program's block has a copy of `value`."""
        return self.block.add(value.detach().numpy() if isinstance(value, Tensor) else value)

    def _mask(self, layout: Layout) -> int:
        if layout not in self.masks:
            self.masks[layout] = self.constant(layout.mask())
        return self.masks[layout]

    def _in_place(self) -> None:
        """Results that take the place of an operand."""
        candidates = []
        for at, step in enumerate(self.steps):
            for name in IN_PLACE.get(Kind(step.op.kind), ()):
                # Where the operation reads the image in two ways, one of them
                # would find numbers that are written already.
                if name in step.images and not step.reads_twice(name):
                    candidates.append((at, step.images[name], step.images["dst"]))
        write_in_place(candidates, [bool(s.op.batched) for s in self.steps])
        for step in self.steps:
            for image in step.images.values():
                image.buffer = image.buffer.root

    def finish(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> NativePlan:
        self._in_place()
        buffers = {
            b: None
            for s in self.steps
            for b in [*(i.buffer for i in s.images.values()), *map(buffer_of, s.regions.values())]
        }
        # Only now: a buffer may lie where another one was as soon as that has had its last reader.
        sizes = place(list(buffers), [bool(s.op.batched) for s in self.steps])
        written: set[tuple[Buffer, int, int]] = set()
        for step in self.steps:
            self._place(step, written)
        floats = (*sizes, up(self.scratch))
        block = self.block.build(
            [s.op for s in self.steps], floats, (prod(in_shape), prod(out_shape)), self.exact
        )
        return NativePlan(block, in_shape, out_shape, tuple(s.path for s in self.steps))

    def _place(self, step: Step, written: set[tuple[Buffer, int, int]]) -> None:
        """`written`: which channels of which images an operation before this one has written."""
        for name, image in step.images.items():
            tensor = self._tensor(image)
            if name == "dst":
                part = (image.buffer, image.first, image.channels)
                # Who comes first makes the padding zero; whoever writes there again leaves it so.
                tensor.reused = int(image.buffer.reused and part not in written)
                written.add(part)
            setattr(step.op, name, tensor)
        for name, region in step.regions.items():
            setattr(step.op, name, structs.Region(region.arena, region.offset))
        for name, (layout, channels) in step.layouts.items():
            setattr(step.op, name, self._planes(layout, channels))

    def _tensor(self, image: Image) -> structs.Tensor:
        tensor, buffer = self._planes(image.layout, image.channels), image.buffer
        tensor.arena = buffer.arena
        tensor.offset = buffer.offset + image.first * image.layout.plane
        return tensor

    def _planes(self, t: Layout, channels: int) -> structs.Tensor:
        return structs.Tensor(
            0, 0, t.plane, t.phases, t.phase_plane, t.lead, t.row, t.length, t.height, t.width,
            channels, self._mask(t),
        )  # fmt: skip
