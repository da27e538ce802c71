"""Where the pixels of a plane lie, and where each tap of a kernel finds them (see DgcTensor in
src/infer/abi.h).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALIGN = 16  # floats


def up(n: int, to: int = ALIGN) -> int:
    return -(-n // to) * to


@dataclass(frozen=True)
class Layout:
    """Planes of height x width pixels in phases**2 sub-planes,
    rows `row` apart, `lead` zeros before each sub-plane.
    """

    height: int
    width: int
    phases: int
    row: int
    lead: int

    @property
    def rows(self) -> int:
        return -(-self.height // self.phases)

    @property
    def columns(self) -> int:
        return -(-self.width // self.phases)

    @property
    def length(self) -> int:
        return up(self.rows * self.row)

    @property
    def phase_plane(self) -> int:
        return self.lead + self.length

    @property
    def plane(self) -> int:
        return self.phases**2 * self.phase_plane

    def alike(self, other: Layout) -> bool:
        """Whether the pixels of equal images lie alike, but for the zeros in front."""
        return (self.phases, self.row) == (other.phases, other.row)

    def floats(self, channels: int) -> int:
        """With room for the taps that look behind the last plane."""
        # vectors are read whole: the last tap of the last pixel may reach so far
        return channels * self.plane + self.lead + 4 * ALIGN

    def mask(self) -> NDArray[np.int32]:
        """(phases**2, length): -1 on pixels, 0 on padding."""
        s = self.phases
        m = np.zeros((s * s, self.length), np.int32)
        for p in range(s * s):
            rows, columns = (
                -(-(size - start) // s)
                for size, start in ((self.height, p // s), (self.width, p % s))
            )
            for y in range(max(0, rows)):
                m[p, y * self.row : y * self.row + max(0, columns)] = -1
        return m


@dataclass(frozen=True)
class Window:
    """A kernel moved over an image: shape, stride,
    padding, dilation, per dimension but the stride.
    """

    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        spare = [n + 2 * p - r for n, p, r in zip(size, self.padding, reach, strict=True)]
        return spare[0] // self.stride + 1, spare[1] // self.stride + 1

    def places(self, phases: int) -> list[list[tuple[int, int, int, int]]]:
        """For each output sub-plane and tap:
        input sub-plane (row, column) and shift (rows, columns) in it.

        `phases` are those of the output; the input has stride * phases.
        """
        # where the window's upper left pixel lies, and
        # each tap from there, in pixels of the whole image
        s, (kh, kw) = self.stride * phases, self.kernel
        found = []
        for p in range(phases**2):
            at = [
                (p // phases * self.stride + i * self.dilation[0] - self.padding[0],
                 p % phases * self.stride + j * self.dilation[1] - self.padding[1])
                for i in range(kh) for j in range(kw)
            ]  # fmt: skip
            # Python's // and % round down: a pixel in the padding gets row or column -1, not 0
            found.append([(y % s, x % s, y // s, x // s) for y, x in at])
        return found

    def row(self, size: tuple[int, int], phases: int) -> int:
        """The least distance of rows with which neighbouring rows' padding can be shared."""
        s = self.stride * phases
        shifts = [x for taps in self.places(phases) for *_, x in taps]
        columns, outputs = -(-size[1] // s), -(-self.output(size)[1] // phases)
        # room for what the leftmost tap reads before a row, for what
        # the rightmost one reads behind it, and for the outputs
        return max(columns + max(0, -min(shifts)), outputs + max(0, max(shifts)), outputs)

    def lead(self, size: tuple[int, int], phases: int, row: int) -> int:
        """Zeros needed before (and so behind) each input sub-plane."""
        s = self.stride * phases
        shifts = [y * row + x for taps in self.places(phases) for *_, y, x in taps]
        length = up(-(-size[0] // s) * row)
        reach = up(-(-self.output(size)[0] // phases) * row) + max(shifts) - length
        # to the multiple of a vector, so that sub-planes begin at one too
        return up(max(0, -min(shifts), reach))

    def input_layout(self, size: tuple[int, int], phases: int, row: int) -> Layout:
        return Layout(*size, self.stride * phases, row, self.lead(size, phases, row))

    def offsets(self, source: Layout, phases: int) -> NDArray[np.int64]:
        """(phases**2, taps): floats from output position
        to the tap's pixel, both counted without lead.
        """
        return np.array(
            [
                [
                    (py * source.phases + px) * source.phase_plane + y * source.row + x
                    for py, px, y, x in taps
                ]
                for taps in self.places(phases)
            ],
            np.int64,
        )
