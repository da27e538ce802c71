"""From a network to a plan file: programs for both numbers of vector registers and for each image
size, in one file that runs without PyTorch.
"""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgc.errors import ArgumentError, UsageError
from dgc.infer.compile import LOWERINGS, NativeModule, Precision, check_choice, graph
from dgc.infer.graph import Node, UnknownError
from dgc.infer.lower import Lowering
from dgc.infer.plan_facts import Size, checked_classes, checked_preprocessing, place_of
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.merge import merge
from dgc.kernels.cpu.structs import Op
from dgc.runtime import writer
from dgc.runtime.plan import Preprocessing

REGISTERS = (16, 32)  # AVX2 and older; AVX-512 and arm64


def save_plan(
    model: nn.Module,
    example: Tensor | Sequence[Tensor],
    file: str | os.PathLike[str],
    classes: Sequence[str] = (),
    preprocessing: Any = None,
    origin: Mapping[str, Any] | None = None,
    *,
    precision: Precision | None = None,
) -> Path:
    """Write `model` (float32, on the CPU) as a plan file for images like `example`, or like each of
    several; only their sizes matter. A file of that name is replaced.

    `classes`: a name for each number of the answer. `preprocessing` has resize, image_size, mean,
    std and channels, as `dgc.runtime.Preprocessing`: for networks of 3 channels or 1, and an
    example has its image_size. `origin` is JSON that says where the weights came from.
    `precision`: float32 or int8, as of `dgc.compile_for_inference`; that of a compiled model where
    none is given.

    Raises ArgumentError (a ValueError) for what contradicts the network, UsageError for a network
    with parts that the kernels do not know: those need PyTorch.
    """
    if library.load() is None:
        raise UsageError(f"no native kernels: {library.describe()['why_not']}")
    path = place_of(file)
    examples = [example] if isinstance(example, Tensor) else list(example)
    sizes = list(dict.fromkeys(image_of(x) for x in examples))
    if not sizes:
        raise ArgumentError("example: at least one image is needed, for its size")
    how = checked_preprocessing(preprocessing, sizes)
    made = Programs(model, sizes, precision)
    for program in made.programs:  # a network may answer with more numbers for a larger image
        checked_classes(classes, program.answer)
    writer.write(made.file_bytes(classes, how, origin), path)
    return path


class Programs:
    """The block of a file, with a program for each size and number of registers in it."""

    def __init__(
        self, model: nn.Module, sizes: Sequence[Size], precision: Precision | None = None
    ) -> None:
        chosen = precision or (model.precision if isinstance(model, NativeModule) else "float32")
        lowering = LOWERINGS[check_choice(chosen)]
        graphs = {size: graph_of(model, size, check_choice(chosen)) for size in sizes}
        # a plan in 8 bits is the same for any registers
        registers = REGISTERS if chosen == "float32" else REGISTERS[:1]
        plans = [
            (r, size, _plan(lowering, graphs[size], size, r)) for size in sizes for r in registers
        ]
        # Weights are most of a file, and the same in every program: each is kept once.
        self.block, places = merge([plan.block for _, _, plan in plans])
        self.programs = [
            writer.FileProgram(r, size, plan.out_shape, place, int(lowering.exact))
            for (r, size, plan), place in zip(plans, places, strict=True)
        ]

    def file_bytes(
        self,
        classes: Sequence[str] = (),
        how: Preprocessing | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> NDArray[np.uint8]:
        kernels = writer.Kernels(library.ABI_VERSION, ctypes.sizeof(Op))
        return writer.file_bytes(kernels, self.programs, self.block, classes, how, origin)


def image_of(x: Tensor) -> Size:
    """Channels, height and width of an example."""
    if not isinstance(x, Tensor):
        raise ArgumentError(
            "example: should be a batch (B, C, H, W) of images, or a list of such, given"
            f" {type(x).__name__}"
        )
    if x.dim() != 4:
        raise ArgumentError(
            f"example: should be a batch (B, C, H, W) of images, given {tuple(x.shape)}"
        )
    return int(x.shape[1]), int(x.shape[2]), int(x.shape[3])


def graph_of(
    model: nn.Module, size: tuple[int, int, int], precision: Precision = "float32"
) -> Node:
    """The network as nodes. Raises ArgumentError for what is no network in float32 on the CPU,
    UsageError where it does what no node says.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: should be a network (nn.Module), given {type(model).__name__}")
    model = model.original if isinstance(model, NativeModule) else model
    for name, tensor in model.named_parameters():
        if tensor.device.type != "cpu":
            raise ArgumentError(f"model: {name} is on {tensor.device}: give model.cpu()")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ArgumentError(f"model: {name} is {tensor.dtype}: give model.float()")
    try:
        return graph(copy.deepcopy(model).eval(), precision, size)
    except UnknownError as error:
        raise UsageError(f"no plan can be made of this network: {error}") from error


def _plan(
    lowering: type[Lowering], nodes: Node, size: tuple[int, int, int], registers: int
) -> NativePlan:
    try:
        with library.made_for(registers):
            return lowering(nodes, size).plan()
    except UnknownError as error:
        c, h, w = size
        raise UsageError(
            f"no plan can be made of this network for {c} x {h} x {w}: {error}"
        ) from error
