"""A native program is one block without an address in it: it runs from wherever it lies, also mapped
read-only from a file, and one that does not fit is refused before anything is computed.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgc.errors import IntegrityError
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import block as blocks
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Op, Program, Run
from tests import plan_files

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
CONSTANTS = ("offsets", "weight", "external", "bias", "in_scale", "in_shift", "edges")


@pytest.fixture
def images() -> Tensor:
    return plan_files.images(2)


@pytest.fixture
def plan(images: Tensor) -> NativePlan:
    """All kinds of constants: weights, biases, BatchNorm inside, masks, tables, Winograd's edges."""
    return plan_files.plan_of(plan_files.network(), images)


def run(plan: NativePlan, images: Tensor) -> Tensor:
    loaded = library.load()
    assert loaded is not None
    return plan.run(images, loaded, 2)


def test_a_block_mapped_read_only_from_a_file_computes_the_same_bits(
    plan: NativePlan, images: Tensor, tmp_path: Path
) -> None:
    wanted = run(plan, images)
    path = tmp_path / "block"
    path.write_bytes(plan.block.tobytes())
    plan.block[:] = 0xFF  # whoever still looks there is found out
    mapped = np.memmap(path, np.uint8, "r")
    assert torch.equal(run(NativePlan(mapped, plan.in_shape, plan.out_shape), images), wanted)


def test_every_constant_lies_at_a_line_of_the_block_and_none_at_its_start(plan: NativePlan) -> None:
    places = {getattr(op, name) for op in plan.ops for name in CONSTANTS}
    places |= {getattr(op, t).mask for op in plan.ops for t in ("src", "dst", "residual")}
    places.discard(0)
    assert len(places) > 20
    assert all(place % blocks.LINE == 0 for place in places)
    program = blocks.program_of(plan.block)
    assert min(places) >= ctypes.sizeof(Program)
    assert max(places) < program.ops
    assert program.ops + program.count * ctypes.sizeof(Op) <= plan.block.nbytes


def test_what_is_given_behind_the_header_is_found_there_again() -> None:
    builder = blocks.BlockBuilder()
    first = builder.add(np.arange(5, dtype=np.int32))
    second = builder.add(np.arange(12, dtype=np.float32).reshape(3, 4).T)  # not contiguous
    block = builder.build([Op(kind=3, weight=second), Op(kind=4)], (16, 32, 48), (6, 7))
    program = blocks.program_of(block)
    assert (program.count, program.thread_floats, program.out_floats) == (2, 16, 7)
    assert [(op.kind, op.weight) for op in blocks.ops_of(block)] == [(3, second), (4, 0)]
    assert block[first : first + 20].view(np.int32).tolist() == [0, 1, 2, 3, 4]
    assert block[second : second + 16].view(np.float32).tolist() == [0.0, 4.0, 8.0, 1.0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda p, nbytes: setattr(p, "ops", nbytes - 8),
        lambda p, nbytes: setattr(p, "ops", -64),
        lambda p, nbytes: setattr(p, "ops", p.ops + 1),
        lambda p, nbytes: setattr(p, "count", p.count + 1),
        lambda p, nbytes: setattr(p, "count", -1),
        lambda p, nbytes: setattr(p, "count", 1 << 62),
    ],
    ids=[
        "behind the end",
        "before the start",
        "odd",
        "one too many",
        "negative",
        "beyond counting",
    ],
)
def test_operations_outside_of_the_block_are_refused(
    plan: NativePlan, images: Tensor, damage: object
) -> None:
    p = blocks.program_of(plan.block)
    end = p.ops + p.count * ctypes.sizeof(Op)
    damage(p, end)  # type: ignore[operator]
    plan.block[: ctypes.sizeof(p)] = np.frombuffer(p, np.uint8)
    cut = NativePlan(plan.block, plan.in_shape, plan.out_shape)
    cut.block = plan.block[:end]
    with pytest.raises(
        IntegrityError, match=rf"does not lie whole inside its block of {end} bytes"
    ):
        run(cut, images)


@pytest.mark.parametrize("missing", [1, 1 << 40])
def test_a_workspace_that_is_too_small_is_refused(
    plan: NativePlan, images: Tensor, missing: int
) -> None:
    loaded = library.load()
    assert loaded is not None
    room = plan._workspace(2, 1).memory
    out = torch.empty(2, 5)
    with pytest.raises(IntegrityError, match=r"needs more than its workspace of -?\d+ numbers"):
        loaded.run(
            Run(
                plan.block.ctypes.data, plan.block.nbytes, 0, images.data_ptr(), out.data_ptr(),
                room.ctypes.data, room.size - missing, 2, 1, 0, None,
            )
        )  # fmt: skip


def _openmp() -> ctypes.CDLL | None:
    """The runtime of this process, PyTorch's, which the kernels use."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = [line.split(maxsplit=5)[-1] for line in maps if "/lib" in line]
    found = [path for path in paths if Path(path).name.startswith(("libgomp", "libomp", "libiomp"))]
    return ctypes.CDLL(found[0]) if found else None


def test_fewer_workers_than_were_asked_for_find_the_memory_of_all(
    plan: NativePlan, images: Tensor
) -> None:
    """A run inside another parallel region has one worker, as where OpenMP may start no more; the
    next run has all again, and works in the same memory.
    """
    loaded = library.load()
    assert loaded is not None
    if not loaded.handle.dgc_has_openmp():
        pytest.skip("the kernels were built without OpenMP")
    if not (openmp := _openmp()):
        pytest.skip("the kernels were built without OpenMP")
    levels, before = openmp.omp_set_max_active_levels, openmp.omp_get_max_active_levels()
    found = []
    try:
        for active in (1, 0, 1, 0):
            levels(active)
            found.append(plan.run(images, loaded, 2))
    finally:
        levels(before)
    fresh = NativePlan(plan.block, plan.in_shape, plan.out_shape)
    wanted = fresh.run(images, loaded, 1)
    assert all(torch.equal(y, wanted) for y in found)
