"""Operations as they are emitted: their images, regions and constants get addresses once everything
is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dgc.infer.memory import Buffer, Image, place
from dgc.infer.program import Constants, Plan
from dgc.kernels.cpu import structs
from dgc.kernels.cpu.layout import Layout
from dgc.kernels.cpu.structs import Kind, Op

Constant = Tensor | NDArray[np.int64] | NDArray[np.int32] | NDArray[np.float32] | None


@dataclass
class Step:
    """An operation whose addresses are still open."""

    op: Op
    images: dict[str, Image]
    regions: dict[str, Buffer]
    constants: dict[str, int]
    masks: dict[str, int]


class Emitter:
    """Collects operations; `finish` makes them a plan."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.constants = Constants()
        self.masks: dict[Layout, int] = {}
        self.scratch = 4096  # floats a worker needs for itself

    def emit(
        self,
        kind: Kind,
        images: dict[str, Image] | None = None,
        regions: dict[str, Buffer] | None = None,
        constants: Mapping[str, Constant] | None = None,
        **numbers: int,
    ) -> Step:
        images, regions = images or {}, regions or {}
        tickets = {k: self.constants.add(v) for k, v in (constants or {}).items() if v is not None}
        for buffer in [i.buffer for i in images.values()] + list(regions.values()):
            buffer.uses.append(len(self.steps))
        masks = {name: self._mask(image.layout) for name, image in images.items()}
        self.steps.append(Step(Op(kind=int(kind), **numbers), images, regions, tickets, masks))
        return self.steps[-1]

    def _mask(self, layout: Layout) -> int:
        if layout not in self.masks:
            self.masks[layout] = self.constants.add(layout.mask())
        return self.masks[layout]

    def finish(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Plan:
        buffers = {
            b: None
            for s in self.steps
            for b in [*(i.buffer for i in s.images.values()), *s.regions.values()]
        }
        sizes = place(list(buffers), [bool(s.op.batched) for s in self.steps])
        self.constants.freeze()
        for step in self.steps:
            self._address(step)
        return Plan(
            [s.op for s in self.steps], self.constants, *sizes, self.scratch, in_shape, out_shape
        )

    def _address(self, step: Step) -> None:
        for name, image in step.images.items():
            setattr(step.op, name, self._tensor(image, step.masks[name]))
        for name, region in step.regions.items():
            setattr(step.op, name, structs.Region(region.arena, region.offset))
        for name, ticket in step.constants.items():
            setattr(step.op, name, self.constants.address(ticket))

    def _tensor(self, image: Image, mask: int) -> structs.Tensor:
        t, b = image.layout, image.buffer
        return structs.Tensor(
            b.arena, b.offset + image.first * t.plane, t.plane, t.phases, t.phase_plane, t.lead, t.row, t.length,
            t.height, t.width, image.channels, self.constants.address(mask),
        )  # fmt: skip
