"""Who uses which memory when: buffers with life times, then offsets in the arenas."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from itertools import pairwise

from dgc.kernels.cpu.layout import Layout, up

THREAD, SAMPLE = 0, 1


@dataclass(eq=False)
class Buffer:
    """`floats` numbers, zero at first. Where two of equal `key` follow each other in a place, the
    padding of one is where that of the other is. Images of different keys may overlap as well: then
    who writes one that is `reused` makes its padding zero.
    """

    floats: int
    key: object
    image: bool = False
    padded: bool = False  # somebody reads its padding
    uses: list[int] = field(default_factory=list)  # indices of operations
    arena: int = THREAD
    offset: int = 0
    reused: bool = False
    taken: Buffer | None = None  # the buffer whose place it takes (write_in_place)

    @property
    def root(self) -> Buffer:
        """The buffer that it has become."""
        return self if self.taken is None else self.taken.root


@dataclass(eq=False)
class Part:
    """The numbers of a buffer from `first` on, a multiple of 16."""

    whole: Buffer
    first: int

    @property
    def uses(self) -> list[int]:
        return self.whole.uses

    @property
    def arena(self) -> int:
        return self.whole.arena

    @property
    def offset(self) -> int:
        return self.whole.offset + self.first


Region = Buffer | Part


def buffer_of(region: Region) -> Buffer:
    """The buffer that a region lies in."""
    return region.whole if isinstance(region, Part) else region


@dataclass(eq=False)
class Image:
    """`channels` planes of a buffer from `first` on."""

    buffer: Buffer
    layout: Layout
    channels: int
    first: int = 0


def new_image(layout: Layout, channels: int) -> Image:
    return Image(Buffer(layout.floats(channels), (layout, channels), image=True), layout, channels)


def new_region(floats: int, role: str) -> Buffer:
    """Numbers that are no image. Only regions of one role and size follow each other: the padding
    of means has to stay zero, and what pads gates may be the NaN of a broken sample.
    """
    return Buffer(up(floats), (role, floats))


def segments(batched: list[bool]) -> list[int]:
    """A number for each operation: those between two batched ones share theirs, a batched one
    stands alone.
    """
    numbers = [0] if batched else []
    for before, now in pairwise(batched):
        numbers.append(numbers[-1] + (1 if before or now else 0))
    return numbers


def _arena(uses: list[int], batched: list[bool], number: list[int]) -> int:
    # Between two operations that run over all samples at once, each thread takes a sample
    # through all operations: what lives only there is needed once a thread.
    alone = len({number[i] for i in uses}) == 1 and not any(batched[i] for i in uses)
    return THREAD if alone else SAMPLE


def write_in_place(candidates: list[tuple[int, Image, Image]], batched: list[bool]) -> None:
    """(operation, operand, result), in their order: where nobody reads an operand later, the result
    takes its place, and there is one image less.

    Only for operations that read each vector of the operand before they write it.
    """
    number = segments(batched)
    for at, operand, result in candidates:
        old, new = operand.buffer.root, result.buffer.root
        whole = (operand.layout, operand.channels)
        if old is new or not old.key == new.key == whole == (result.layout, result.channels):
            continue
        if max(old.uses) != at or min(new.uses) != at:
            continue
        lives = (old.uses, new.uses, old.uses + new.uses)
        # An image that only a thread needs must not become one for each sample.
        if len({_arena(uses, batched, number) for uses in lives}) == 1:
            old.uses, old.padded, new.taken = lives[2], old.padded or new.padded, old


def place(buffers: list[Buffer], batched: list[bool]) -> tuple[int, int]:
    """Give every buffer its arena and offset; the floats of (thread, sample) arena.

    What lives inside one stretch of unbatched operations belongs to the thread, all else to the
    sample.
    """
    number = segments(batched)
    for b in buffers:
        b.arena = _arena(b.uses, batched, number)
    return _pack([b for b in buffers if b.arena == THREAD]), _pack(
        [b for b in buffers if b.arena == SAMPLE]
    )


def _pack(buffers: list[Buffer]) -> int:
    """Offsets for the buffers of one arena: images first, all other numbers behind them."""
    images = [b for b in buffers if b.image]
    end = _pack_images(images)
    for b in images:
        b.reused = b.padded and any(
            _overlap(b, other) and not _same_place(b, other) for other in images
        )
    return _pack_regions([b for b in buffers if not b.image], end)


def _alive_together(a: Buffer, b: Buffer) -> bool:
    return min(a.uses) <= max(b.uses) and min(b.uses) <= max(a.uses)


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.offset + up(b.floats) and b.offset < a.offset + up(a.floats)


def _same_place(a: Buffer, b: Buffer) -> bool:
    """Whether the padding of one is where that of the other is."""
    return (a.key, a.offset) == (b.key, b.offset)


def _pack_images(images: list[Buffer]) -> int:
    """The largest first, each at the lowest place that nothing holds while it lives (Pisarchyk and
    Lee, arXiv 2001.03288: greedy by size).
    """
    placed: list[Buffer] = []  # by their offsets
    end = 0
    for b in sorted(images, key=lambda b: (-b.floats, min(b.uses))):
        b.offset = 0
        for other in placed:
            if not _alive_together(b, other):
                continue
            if b.offset + up(b.floats) <= other.offset:
                break
            b.offset = max(b.offset, other.offset + up(other.floats))
        insort(placed, b, key=lambda b: b.offset)
        end = max(end, b.offset + up(b.floats))
    return end


def _pack_regions(regions: list[Buffer], end: int) -> int:
    """Behind `end`; only those of one key follow each other in a place."""
    free: dict[object, list[tuple[int, int]]] = {}  # key -> (last use, offset)
    for b in sorted(regions, key=lambda b: min(b.uses)):
        spots = free.setdefault(b.key, [])
        fit = next((s for s in spots if s[0] < min(b.uses)), None)
        if fit is None:
            b.offset, end = end, end + up(b.floats)
        else:
            spots.remove(fit)
            b.offset = fit[1]
        spots.append((max(b.uses), b.offset))
    return end
