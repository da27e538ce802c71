"""Runs plans that were spoiled in one place each, with kernels that check their contracts; prints a
line a case: its name, and the signal that ended it (or "went through"). What is broken stands on
stderr.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn

import dgc
from dgc.infer.compile import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind, Op, Program


class Spoiled:
    """A copy of a plan whose header and operations can be written."""

    def __init__(self, plan: NativePlan) -> None:
        self.plan = NativePlan(plan.block.copy(), plan.in_shape, plan.out_shape)
        self.program = Program.from_buffer(self.plan.block)
        count = self.program.count
        self.ops = (Op * count).from_buffer(self.plan.block, self.program.ops)

    def first(self, kind: Kind) -> Op:
        return next(op for op in self.ops if op.kind == kind)


def weights_behind_the_block(s: Spoiled) -> None:
    s.first(Kind.CONV).weight += s.plan.block.nbytes


def weights_between_two_lines(s: Spoiled) -> None:
    s.first(Kind.LINEAR).weight += 8


def an_image_behind_its_arena(s: Spoiled) -> None:
    s.first(Kind.CONV).dst.offset = s.program.thread_floats


def rows_that_are_too_short(s: Spoiled) -> None:
    s.first(Kind.PACK).dst.row = 1


def more_inactive_than_there_are(s: Spoiled) -> None:
    s.first(Kind.SELECT).inactive = 17


def a_scratch_that_is_too_small(s: Spoiled) -> None:
    s.program.scratch_floats = 4096
    s.plan._program = s.program


def more_rows_than_weights(s: Spoiled) -> None:
    s.first(Kind.LINEAR).outs = 1 << 20


def a_kind_that_there_is_not(s: Spoiled) -> None:
    s.first(Kind.MEAN).kind = 99


def nothing(s: Spoiled) -> None:
    """As it was made."""


CASES: tuple[Callable[[Spoiled], None], ...] = (
    nothing,
    weights_behind_the_block,
    weights_between_two_lines,
    an_image_behind_its_arena,
    rows_that_are_too_short,
    more_inactive_than_there_are,
    a_scratch_that_is_too_small,
    more_rows_than_weights,
    a_kind_that_there_is_not,
)


def made(x: torch.Tensor) -> NativePlan:
    net = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        dgc.DynamicGroupConv2d(16, 32, 3, padding=1, heads=2, gate_factor=0.5),
        dgc.DynamicGroupConv2d(32, 32, 1, heads=4, gate_factor=0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    dgc.set_progress(net, 1.0)
    plan = NativeModule(net.eval()).plan_for(x)
    assert plan is not None
    return plan


def main() -> None:
    torch.set_num_threads(1)  # so that a child can go on where its parent was
    x = torch.randn(1, 8, 20, 20)
    plan, loaded = made(x), library.load()
    assert loaded is not None
    for case in CASES:
        child = os.fork()
        if child == 0:
            spoiled = Spoiled(plan)
            case(spoiled)
            spoiled.plan.run(x, loaded, 1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "went through"
        print(f"{case.__name__}: {ended}", flush=True)


if __name__ == "__main__":
    main()
