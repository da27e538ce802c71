"""A native program is one block without an address in it: it runs from wherever it lies, also mapped
read-only from a file, and one that does not fit is refused before anything is computed.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dgc
from dgc.errors import IntegrityError
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import block as blocks
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import IMAGES, LAYOUTS, Op, Program, Run
from tests import plan_files
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]
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
    places |= {getattr(op, t).mask for op in plan.ops for t in IMAGES + LAYOUTS}
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


FORKED = """
import os, sys
import numpy as np
import dgc.runtime
plan = dgc.runtime.load(sys.argv[1], threads=2)
x = np.random.default_rng(0).standard_normal((4, 8, 20, 20)).astype(np.float32)
alone = dgc.runtime.load(sys.argv[1], threads=1)(x)
assert np.array_equal(plan(x), alone)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(plan(x), alone) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.timeout(GUARD)
def test_a_forked_child_gets_through_a_run_without_its_parents_threads(tmp_path: Path) -> None:
    """As workers of a DataLoader are: they have the thread that forked, and no other."""
    file = dgc.save_plan(plan_files.network(), plan_files.images(), tmp_path / "x.dgc")
    done = subprocess.run(
        [sys.executable, "-c", FORKED, file],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_several_callers_share_the_helpers_and_each_gets_its_own_logits(
    plan: NativePlan, images: Tensor
) -> None:
    """More threads are asked for than any machine of the tests has cores."""
    loaded = library.load()
    assert loaded is not None
    wanted = plan.run(images, loaded, 1)

    def call(threads: int) -> bool:
        own = NativePlan(plan.block, plan.in_shape, plan.out_shape)
        return all(torch.equal(own.run(images, loaded, threads), wanted) for _ in range(20))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(call, (1, 2, 3, 200)))
