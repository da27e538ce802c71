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

from dgc.infer.memory import Buffer, Image, Region, buffer_of, place
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import structs
from dgc.kernels.cpu.block import BlockBuilder
from dgc.kernels.cpu.layout import Layout, up
from dgc.kernels.cpu.structs import Kind, Op

Constant = Tensor | NDArray[np.int64] | NDArray[np.int32] | NDArray[np.float32] | None


@dataclass
class Step:
    """An operation whose places in the workspace are still open."""

    op: Op
    images: dict[str, Image]
    regions: Mapping[str, Region]
    path: str  # of the module that it is part of

    def writes(self, image: Image) -> bool:
        """Whether a channel of it is written."""
        to = self.images.get("dst")
        return (
            to is not None
            and to.buffer is image.buffer
            and to.first < image.first + image.channels
            and image.first < to.first + to.channels
        )


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
        around: bool = False,
        **numbers: int,
    ) -> Step:
        """`around`: it reads what lies around the pixels of its sources, and needs zeros there."""
        images, regions = images or {}, regions or {}
        placed = {k: self.constant(v) for k, v in (constants or {}).items() if v is not None}
        # What lives how long follows from these numbers, once all operations are known.
        for used in [*(i.buffer for i in images.values()), *regions.values()]:
            used.uses.append(len(self.steps))
        for name in images if around else ():
            images[name].buffer.padded |= name != "dst"
        op = Op(kind=int(kind), **placed, **numbers)
        self.steps.append(Step(op, images, regions, self.path))
        return self.steps[-1]

    def constant(self, value: Tensor | NDArray[np.generic]) -> int:
        """Where the program's block has a copy of `value`."""
        return self.block.add(value.detach().numpy() if isinstance(value, Tensor) else value)

    def _mask(self, layout: Layout) -> int:
        if layout not in self.masks:
            self.masks[layout] = self.constant(layout.mask())
        return self.masks[layout]

    def finish(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> NativePlan:
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

    def _tensor(self, image: Image) -> structs.Tensor:
        t, b = image.layout, image.buffer
        return structs.Tensor(
            b.arena, b.offset + image.first * t.plane, t.plane, t.phases, t.phase_plane, t.lead,
            t.row, t.length,
            t.height, t.width, image.channels, self._mask(t),
        )  # fmt: skip
