"""Plan files for tests: a small network with every form of operation, and files that lie, with
checksums that are right, as someone would write them who means harm.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dgc
from dgc.infer.compile import NativeModule, Precision
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import block as blocks
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Op, Program
from dgc.runtime import writer

SIZE = (8, 20, 20)


def network() -> nn.Module:
    """Static and dynamic convolutions (strided, 1x1, by tiles, over outputs), BatchNorm in front,
    pooling, gates, a classifier.
    """
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, 16, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        dgc.DynamicGroupConv2d(16, 32, 3, padding=1, heads=2, gate_factor=0.5),
        dgc.DynamicGroupConv2d(32, 32, 1, heads=4, gate_factor=0.5),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(3, 2, 1),
        dgc.DynamicGroupConv2d(32, 64, 3, padding=1, heads=2, gate_factor=0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    dgc.set_progress(net, 1.0)
    return net.eval()


def images(count: int = 3, size: tuple[int, int, int] = SIZE) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(1))


def plan_of(net: nn.Module, x: Tensor, precision: Precision = "float32") -> NativePlan:
    plan = NativeModule(net.eval(), precision).plan_for(x)
    assert plan is not None
    return plan


class Forged:
    """A file around a program that may be changed before it is written."""

    def __init__(self, plan: NativePlan) -> None:
        self.plan = plan
        self.block = plan.block.copy()
        self.program = blocks.program_of(self.block)
        self.ops = blocks.ops_of(self.block)

    def bytes(self) -> NDArray[np.uint8]:
        listed = (Op * len(self.ops))(*self.ops)
        block = self.block.copy()
        if len(self.ops) != blocks.program_of(block).count:
            start = -(-block.size // 64) * 64
            block = np.concatenate([block, np.zeros(start - block.size, np.uint8)])
            block = np.concatenate([block, np.frombuffer(listed, np.uint8)])
            self.program.ops, self.program.count = start, len(self.ops)
        else:
            start = blocks.program_of(block).ops
            block[start : start + ctypes.sizeof(listed)] = np.frombuffer(listed, np.uint8)
        block[: ctypes.sizeof(Program)] = np.frombuffer(self.program, np.uint8)
        shape = (self.plan.in_shape[0], self.plan.in_shape[1], self.plan.in_shape[2])
        exact = int(self.program.exact)
        programs = [writer.FileProgram(16, shape, self.plan.out_shape, 0, exact)]
        return lay_out(programs, block)

    def write(self, file: Path) -> Path:
        file.write_bytes(self.bytes().tobytes())
        return file


def lay_out(programs: list[writer.FileProgram], block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A file with right checksums; nothing else of it is looked at."""
    kernels = writer.Kernels(library.ABI_VERSION, ctypes.sizeof(Op))
    packed = b"".join(program.pack() for program in programs)
    return writer._laid_out(kernels, {writer.PROGRAMS: packed, writer.BLOCK: block})


Change = Callable[[Forged], None]


VALUES = (-1, 0, 1, 2, 3, 15, 16, 64, 1000, 1 << 16, 1 << 28, 1 << 36, 1 << 62)


def sweep(_: object = None) -> str:
    """Each of VALUES, and near ones, in each number of each form of operation: how many files were
    taken (and run), and how many refused.
    """
    import ctypes as c

    from dgc.runtime import native

    x = images()
    functions, why = native.functions(), native.Error()
    plan = plan_of(network(), x)
    forms: dict[tuple[int, ...], int] = {}
    for index, op in enumerate(blocks.ops_of(plan.block)):
        forms.setdefault((op.kind, op.dynamic, op.lanes, op.scale_weights, op.taps), index)
    taken = refused = 0
    for index in forms.values():
        for number in range(ctypes.sizeof(Op) // 8):
            before = int(np.frombuffer(blocks.ops_of(plan.block)[index], np.int64)[number])
            for value in {*VALUES, before + 1, before + 16, before * 2, before // 2}:
                forged = Forged(plan)
                raw = np.frombuffer(forged.ops[index], np.int64).copy()
                raw[number] = value
                forged.ops[index] = Op.from_buffer_copy(raw.tobytes())
                data = forged.bytes()
                handle = functions.dgc_plan_from_memory(data.ctypes.data, data.size, c.byref(why))
                if not handle:
                    refused += 1
                    continue
                _run(functions, handle, x.numpy())
                functions.dgc_plan_close(handle)
                taken += 1
    return f"{taken} {refused}"


def _run(functions: ctypes.CDLL, handle: int, x: NDArray[np.float32]) -> None:
    from dgc.runtime import native

    why = native.Error()
    options = native.OptionsC(20, 20, 2, 1, 0, None, 0)
    if functions.dgc_runner_bytes(handle, ctypes.byref(options), None) > 64 << 20:
        return
    runner = functions.dgc_runner_new(handle, ctypes.byref(options), ctypes.byref(why))
    assert runner, why.text
    y = np.empty((3, 5), np.float32)
    assert not functions.dgc_runner_run(runner, x.ctypes.data, 3, y.ctypes.data, None)
    functions.dgc_runner_free(runner)
