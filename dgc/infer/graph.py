"""A network as a small graph of the operations that the kernels know. Read off the module by
dgc.infer.read; dgc.infer.fuse makes it smaller, dgc.infer.lower a program of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from dgc.infer.conv_params import Conv
from dgc.kernels.cpu.structs import Act


class UnknownError(Exception):
    """The network does something the plan has no operation for; it then runs as the module
    it was.
    """


@dataclass(frozen=True)
class Pool:
    """Windows of `kind` (max, average): rows and columns of each. `counts`: what a sum is
    multiplied by, the product of a number for each row of the result and one for each column."""

    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    counts: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class AdaptivePool:
    """Windows of `kind` (max, average) of many sizes: for each row of the result its first row and
    the one behind its last; columns alike."""

    kind: str
    rows: Tensor  # int32 (2, height)
    columns: Tensor


@dataclass
class Resample:
    """Of which two rows each row of the result is made, and the second one's share; columns alike.
    A place of -1 gives zeros."""

    rows: Tensor  # int32 (2, height)
    columns: Tensor
    row_share: Tensor  # float (height)
    column_share: Tensor


@dataclass(eq=False)
class Node:
    """What one operation gives, for one image: `shape` is (channels, height, width); of a
    vector (numbers, 1, 1).

    kind: input, conv, affine, add, sub, mul, cat, slice, gather, pool, adaptive, mean, flatten,
    linear, softmax, along, resample; unknown: something that no kernel computes, `what` it is. The
    activation comes last in every one of them.

    conv: inputs [x] or [x, residual]; affine: y = x * scale + shift, both may be None; slice and
    gather: the channels `index` of their input; add, sub, mul: of equal shapes, or image and
    vector.
    """

    kind: str
    inputs: list[Node] = field(default_factory=list)
    shape: tuple[int, int, int] = (0, 0, 0)
    path: str = ""  # the module in which it was met
    what: str = ""
    conv: Conv | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    act: Act = Act.NO_ACT
    slope: float = 0.0
    pool: Pool | None = None
    adaptive: AdaptivePool | None = None
    resample: Resample | None = None
    weight: Tensor | None = None  # linear, along
    bias: Tensor | None = None
    index: tuple[int, ...] = ()
    groups: tuple[int, int, int] = (1, 1, 1)  # softmax: over the middle one of these dimensions
    answer: tuple[int, ...] | None = None  # of the network's output: its shape without the batch

    @property
    def relu(self) -> bool:
        return self.act == Act.RELU

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def one_pixel(self) -> bool:
        return self.shape[1:] == (1, 1)


def ordered(outputs: Node | Iterable[Node]) -> list[Node]:
    """Every node after its inputs."""
    done: dict[Node, None] = {}
    waiting: list[tuple[Node, bool]] = [
        (n, False) for n in reversed([outputs] if isinstance(outputs, Node) else list(outputs))
    ]
    while waiting:  # no recursion: a chain of a thousand nodes is usual
        node, inputs_done = waiting.pop()
        if node in done:
            continue
        if inputs_done:
            done[node] = None
        else:
            waiting.append((node, True))
            waiting.extend((i, False) for i in reversed(node.inputs))
    return list(done)


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for n in nodes:
        for i in n.inputs:
            found.setdefault(i, []).append(n)
    return found


__all__ = ["AdaptivePool", "Conv", "Node", "Pool", "Resample", "UnknownError", "ordered", "users"]
