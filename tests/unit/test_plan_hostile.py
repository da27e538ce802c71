"""Plan files from strangers: cut anywhere, with any bit turned, and with right checksums around
programs that lie. Each is one line and IntegrityError (4) before a kernel sees it.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import dgc
import dgc.runtime
from dgc.errors import IntegrityError
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import CONSTANTS, Kind, Op
from dgc.runtime import native, writer
from tests.native.fuzz_seeds import Foreign, Sum
from tests.plan_files import Forged, images, lay_out, network, plan_of
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]


def refusal(data: NDArray[np.uint8]) -> str:
    """What is said of a file; "" where it is taken. The memory ends where the file does."""
    c, why = native.functions(), native.Error()
    exact = writer._aligned(data.size)
    exact[:] = data
    plan = c.dgc_plan_from_memory(exact.ctypes.data, exact.size, ctypes.byref(why))
    if plan:
        c.dgc_plan_close(plan)
        return ""
    assert why.code == 4
    text = why.text.decode()
    assert text
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """A whole file of every section, small enough for all of its bytes."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.dgc"
    how = writer.Preprocessing(4, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 1)
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    dgc.save_plan(net, torch.zeros(1, 1, 3, 3), file, ["é"], how, {"run": "x"})
    return np.fromfile(file, np.uint8)


@pytest.fixture
def forged() -> Forged:
    return Forged(plan_of(network(), images()))


def test_a_forged_file_that_tells_the_truth_is_taken(
    forged: Forged, tiny: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert refusal(tiny) == ""
    assert refusal(forged.bytes()) == ""
    file = forged.write(tmp_path / "x.dgc")
    wanted = dgc.compile_for_inference(network())(images()).numpy()
    assert np.array_equal(dgc.runtime.load(file)(images().numpy()), wanted)


def test_a_file_that_is_cut_anywhere_is_refused(tiny: NDArray[np.uint8]) -> None:
    assert all(refusal(tiny[:size]) for size in range(1, len(tiny)))
    assert refusal(np.concatenate([tiny, np.zeros(64, np.uint8)]))


def test_a_file_with_any_bit_turned_is_refused(tiny: NDArray[np.uint8]) -> None:
    taken = []
    for place in range(len(tiny)):
        for bit in range(8):
            turned = tiny.copy()
            turned[place] ^= 1 << bit
            taken += [(place, bit)] if not refusal(turned) else []
    assert taken == []


# --- programs that lie ------------------------------------------------------------------------------


def first(forged: Forged, kind: Kind, **having: int) -> Op:
    return next(
        op
        for op in forged.ops
        if op.kind == kind and all(getattr(op, name) == value for name, value in having.items())
    )


def change(kind: Kind, path: str, value: int, **having: int) -> Callable[[Forged], None]:
    """Set a field of the first operation of a kind; `path` may lead into an image or region."""

    def apply(forged: Forged) -> None:
        target: object = first(forged, kind, **having)
        *parts, name = path.split(".")
        for part in parts:
            target = getattr(target, part)
        setattr(target, name, value)

    return apply


def no_scratch(forged: Forged) -> None:
    forged.program.scratch_floats = 64
    forged.ops = [op for op in forged.ops if op.kind != Kind.POOL]


LIES: dict[str, tuple[Callable[[Forged], None], str]] = {
    "an unknown kind": (change(Kind.POOL, "kind", 99), "its kind is not known|not known to this"),
    "a number below zero": (change(Kind.CONV, "channels", -1), "negative"),
    "a number without end": (change(Kind.CONV, "outs", 2**62), "over 2"),
    "weights beyond the block": (change(Kind.CONV, "outs", 2**20), "weight: does not lie whole"),
    "weights nowhere": (change(Kind.CONV, "weight", 0), "weight: is not there"),
    "a constant at an odd place": (change(Kind.CONV, "bias", 8), "does not lie whole"),
    "gates of a caller": (change(Kind.SELECT, "external", 64), "no use for it"),
    "edges of a direct convolution": (change(Kind.CONV, "edges", 64), "no use for it"),
    "an image beyond the workspace": (change(Kind.CONV, "dst.offset", 2**30), "workspace"),
    "an arena that is none": (change(Kind.CONV, "dst.arena", 2), "workspace"),
    "planes shorter than rows": (change(Kind.CONV, "dst.length", 16), "hold its pixels"),
    "rows that are no lines": (change(Kind.CONV, "src.lead", 8), "hold its pixels"),
    "no phases": (change(Kind.CONV, "src.phases", 0), "no channels or pixels"),
    "many channels": (change(Kind.INPUT, "dst.channels", 2**20), "workspace"),
    "more channels than planes": (change(Kind.CONV, "src.channels", 2**16), "workspace"),
    "a mask beyond the block": (change(Kind.CONV, "dst.mask", 2**35), "mask"),
    "no mask": (change(Kind.POOL, "dst.mask", 0), "mask"),
    "a source that is made clear": (change(Kind.CONV, "src.reused", 1), "only one that is written"),
    "an image made clear twice": (change(Kind.POOL, "dst.reused", 2), "only one that is written"),
    "outputs beyond the image": (change(Kind.CONV, "out_step", 1000), "steps between output"),
    "all channels inactive": (change(Kind.CONV, "inactive", 32, dynamic=1), "inactive"),
    "more inactive than there are": (change(Kind.SELECT, "inactive", 1000), "inactive"),
    "a list of other channels": (
        change(Kind.SELECT, "channels", 64, channels=16),
        "workspace|form|block|list",
    ),
    "a list that nobody made": (change(Kind.WINO, "list.offset", 0), "list"),
    "static, with a list": (change(Kind.CONV, "list.offset", 16, dynamic=0), "no use for it"),
    "no taps": (change(Kind.CONV, "taps", 0), "less than one"),
    "many taps": (change(Kind.CONV, "taps", 2**30), "does not lie whole"),
    "other groups": (change(Kind.CONV, "heads", 3, dynamic=0), "block|heads|groups"),
    "tiles of nothing": (change(Kind.WINO, "span", 0), "less than one"),
    "tiles without room": (no_scratch, "the scratch"),
    "no winograd": (change(Kind.WINO, "taps", 4), "by tiles"),
    "vectors over outputs where there are none": (
        change(Kind.CONV, "lanes", 1, dynamic=0),
        "groups of a static",
    ),
    "pooling without end": (change(Kind.POOL, "pool_kernel", 2**30), "leaves the image"),
    "pooling without steps": (change(Kind.POOL, "pool_stride", 0), "less than one"),
    "pooling beyond": (change(Kind.POOL, "dst.height", 2**19), "hold its pixels"),
    "a residual out of nothing": (change(Kind.CONV, "has_residual", 1), "residual"),
    "hidden units without weights": (change(Kind.GATES, "hidden", 2**20), "does not lie whole"),
    "an input of another size": (change(Kind.INPUT, "dst.height", 19), "input's size"),
    "an output of another size": (change(Kind.OUTPUT, "channels", 4), "output's size"),
    "a thread's memory over all samples": (change(Kind.POOL, "batched", 1), "over all samples"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_program_that_lies_is_refused(name: str, forged: Forged) -> None:
    lie, words = LIES[name]
    lie(forged)
    said = refusal(forged.bytes())
    assert said.startswith("operation "), said
    assert re.search(words, said), said


@pytest.fixture
def forged8() -> Forged:
    """In 8 bits: a convolution that keeps pixels apart and is pooled, and others behind it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 8, 3, padding=1),
        nn.AvgPool2d(2),
    )
    return Forged(plan_of(net, torch.zeros(1, 3, 40, 40), "int8"))


def pooled(path: str, value: int) -> Callable[[Forged], None]:
    """Set a field of the convolution that is pooled."""
    return change(Kind.CONV8, path, value, pool_kernel=3)


LIES_IN_BYTES: dict[str, tuple[Callable[[Forged], None], str]] = {
    "bytes of a pooling": (change(Kind.POOL, "bytes.phases", 2), "bytes: is there"),
    "what is pooled of a pooling": (change(Kind.POOL, "unpooled.row", 1), "unpooled: is there"),
    "bytes with a place": (pooled("bytes.offset", 16), "bytes: has a place"),
    "bytes of a thread": (pooled("bytes.arena", 1), "bytes: has a place"),
    "bytes made clear": (pooled("unpooled.reused", 1), "unpooled: has a place"),
    "three sub-planes": (pooled("bytes.phases", 3), "hold its pixels|layout of its bytes"),
    "one sub-plane": (pooled("bytes.phases", 1), "layout of its bytes|hold its pixels"),
    "bytes of a larger image": (pooled("bytes.height", 42), "hold its pixels|layout of its bytes"),
    "bytes of a smaller image": (pooled("bytes.height", 38), "layout of its bytes"),
    "bytes of other channels": (pooled("bytes.channels", 4), "layout of its bytes"),
    "bytes in short planes": (pooled("bytes.plane", 64), "hold its pixels"),
    "bytes without a mask": (pooled("bytes.mask", 0), "bytes: has a mask"),
    "bytes in rows of another length": (pooled("bytes.row", 22), "rows of source|hold its pixels"),
    "what is pooled has sub-planes": (pooled("unpooled.phases", 2), "what is pooled|hold its"),
    "what is pooled has other channels": (pooled("unpooled.channels", 32), "what is pooled"),
    "what is pooled in short planes": (pooled("unpooled.length", 16), "hold its pixels"),
    "what is pooled is large": (pooled("unpooled.plane", 2**20), "the scratch"),
    "what is pooled without a mask": (pooled("unpooled.mask", 0), "unpooled: has a mask"),
    "windows of one": (pooled("pool_kernel", 1), "the windows"),
    "windows of four": (pooled("pool_kernel", 4), "the windows"),
    "windows side by side": (pooled("pool_stride", 1), "the windows"),
    "means of windows": (pooled("pool_kind", 1), "the windows"),
    "windows in the padding": (pooled("pool_pad", 3), "the windows"),
    "windows beyond": (pooled("pool_pad", 0), "leaves the image"),
    "statistics of what is pooled": (pooled("span", 1), "out|panel|what is pooled"),
    "a residual of what is pooled": (pooled("has_residual", 1), "residual"),
}


def test_a_forged_program_in_bytes_that_tells_the_truth_is_taken(forged8: Forged) -> None:
    assert refusal(forged8.bytes()) == ""


@pytest.mark.parametrize("name", LIES_IN_BYTES)
def test_a_program_in_bytes_that_lies_is_refused(name: str, forged8: Forged) -> None:
    lie, words = LIES_IN_BYTES[name]
    lie(forged8)
    said = refusal(forged8.bytes())
    assert said.startswith("operation "), said
    assert re.search(words, said), said


def test_an_output_larger_than_what_a_stride_leaves_is_refused() -> None:
    """A single tap is read from the image itself, every second row and column of it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, stride=2)).eval()
    plan = plan_of(net, torch.zeros(1, 3, 12, 12), "int8")
    for height, second in ((6, 0), (7, 0), (6, 1), (6, 2), (6, 3), (6, 4)):
        forged = Forged(plan)
        ops = [op for op in forged.ops if op.kind == Kind.CONV8 and op.bytes.phases]
        assert len(ops) == 1
        ops[0].dst.height = height
        table = forged.block[ops[0].offsets : ops[0].offsets + 8].view(np.int64)
        table[0] = second * ops[0].bytes.phase_plane
        said = refusal(forged.bytes())
        if height == 6 and second < 4:
            # such a tap is read by a window with another padding
            assert "a tap that lies outside" not in said
        else:
            assert said, (height, second)
            assert re.search("a tap that lies outside|hold its pixels|size", said), said


def test_a_tap_outside_its_image_is_refused(forged: Forged) -> None:
    for kind in (Kind.CONV, Kind.WINO):
        op = first(forged, kind)
        table = forged.block[op.offsets : op.offsets + 8].view(np.int64)
        before = int(table[0])
        for value in (-(2**62), -op.src.lead - 1, op.src.plane + 64, 2**62):
            table[0] = value
            assert "a tap that lies outside" in refusal(forged.bytes())
        table[0] = before
    assert refusal(forged.bytes()) == ""


def test_an_operation_that_waits_for_a_later_one_is_refused(forged: Forged) -> None:
    """The only form of a cycle that a list of operations can have."""
    forged.ops[0], forged.ops[-1] = forged.ops[-1], forged.ops[0]
    assert "is read before anything is written there" in refusal(forged.bytes())
    own = Forged(forged.plan)
    conv = first(own, Kind.CONV)
    own.ops = [op for op in own.ops if op.kind in (Kind.INPUT, Kind.OUTPUT)]
    conv.src = conv.dst
    own.ops.insert(1, conv)
    assert refusal(own.bytes())


def test_lists_of_channels_share_memory_with_nothing_else(forged: Forged) -> None:
    select = first(forged, Kind.SELECT)
    mean = first(forged, Kind.MEAN)
    mean.out.arena, mean.out.offset = select.list.arena, select.list.offset
    assert "overlaps a list of selected channels" in refusal(forged.bytes())


def test_an_image_over_the_one_that_it_is_made_of_is_refused(forged: Forged) -> None:
    """Found by the fuzzer: kernels copy whole rows, and those of one image overlapped."""
    pool = first(forged, Kind.POOL)
    pool.dst.arena, pool.dst.offset = pool.src.arena, pool.src.offset + 16
    assert "src: overlaps the image that is written" in refusal(forged.bytes())


@pytest.mark.parametrize("kind", [Kind.SOFTMAX, Kind.ALONG])
def test_a_vector_that_begins_elsewhere_is_refused(kind: Kind) -> None:
    """Found by the fuzzer: only some operations write into the middle of a vector."""
    forged = Forged(plan_of(Foreign(), torch.zeros(1, 2, 8, 12)))
    assert refusal(forged.bytes()) == ""
    first(forged, kind).out_first = 1
    assert "where the results begin" in refusal(forged.bytes())


def test_a_window_outside_its_image_is_refused() -> None:
    forged = Forged(plan_of(Sum(), torch.zeros(1, 2, 6, 7)))
    assert refusal(forged.bytes()) == ""
    op = first(forged, Kind.ADAPTIVE)
    size, outs = (op.src.height, op.src.width), (op.dst.height, op.dst.width)
    table = forged.block[op.index :].view(np.int32)
    at = 0
    for length, count in zip(size, outs, strict=True):
        for place, values in ((at, (-1, length)), (at + count, (0, length + 1))):
            before = int(table[place])
            for value in values:  # before the image, behind it, and a window of nothing
                table[place] = value
                assert "a window that leaves the image" in refusal(forged.bytes())
            table[place] = before
        at += 2 * count
    op.pool_kind, op.weight = 2, 0
    assert "kind of pooling" in refusal(forged.bytes())
    op.pool_kind, op.index = 0, 0
    assert "index: is not there" in refusal(forged.bytes())


def test_a_million_operations_are_refused(forged: Forged) -> None:
    forged.program.count = 1_000_000
    block = forged.block.copy()
    block[: ctypes.sizeof(forged.program)] = np.frombuffer(forged.program, np.uint8)
    shape = (8, 20, 20)
    said = refusal(lay_out([writer.FileProgram(16, shape, (5,), 0)], block))
    assert said == "a program of 1000000 operations: 1 to 65536 are possible"
    forged = Forged(forged.plan)
    forged.ops = [forged.ops[0]] * 70_000
    assert "a program of 70000 operations" in refusal(forged.bytes())


def test_a_program_without_end_of_work_is_refused_in_time(forged: Forged) -> None:
    """As many operations as there may be, each over as much memory as there may be."""
    forged.program.thread_floats = forged.program.sample_floats = 1 << 28
    pool = first(forged, Kind.POOL)
    pool.src.plane = pool.dst.plane = 1 << 20
    pool.src.channels = pool.dst.channels = 255
    forged.ops = [forged.ops[0], *[pool] * 65_000, forged.ops[-1]]
    assert refusal(forged.bytes())
    add = Forged(forged.plan)
    add.program.thread_floats = 1 << 28
    start = add.ops[0]
    start.dst.plane = 1 << 24
    add.ops = [start] * 65_000
    assert "touches more memory than any should" in refusal(add.bytes())


@pytest.mark.parametrize("field", ["thread_floats", "sample_floats", "scratch_floats"])
@pytest.mark.parametrize("value", [-16, 1, 1 << 40, 2**62])
def test_memory_that_cannot_be_is_refused(field: str, value: int, forged: Forged) -> None:
    setattr(forged.program, field, value)
    assert "a program" in refusal(forged.bytes())


@pytest.mark.parametrize("place", [-8, 4, 2**62, -(2**62)])
def test_a_program_that_lies_elsewhere_is_refused(place: int, forged: Forged) -> None:
    shape = (8, 20, 20)
    said = refusal(lay_out([writer.FileProgram(16, shape, (5,), place)], forged.block))
    assert said == "a program does not lie whole inside the block"
    forged.program.ops = place
    assert "operations do not lie whole" in refusal(_with_header(forged))


def _with_header(forged: Forged) -> NDArray[np.uint8]:
    block = forged.block.copy()
    block[: ctypes.sizeof(forged.program)] = np.frombuffer(forged.program, np.uint8)
    return lay_out([writer.FileProgram(16, (8, 20, 20), (5,), 0)], block)


@pytest.mark.parametrize(
    "program",
    [
        writer.FileProgram(8, (8, 20, 20), (5,), 0),
        writer.FileProgram(16, (8, 20, 20), (5,), 0, precision=7),
        writer.FileProgram(16, (0, 20, 20), (5,), 0),
        writer.FileProgram(16, (8, 20, 21), (5,), 0),
        writer.FileProgram(16, (2**31, 2**31, 2**31), (5,), 0),
        writer.FileProgram(16, (8, 20, 20), (6,), 0),
        writer.FileProgram(16, (8, 20, 20), (5, 2), 0),
    ],
    ids=str,
)
def test_a_program_for_other_images_is_refused(program: writer.FileProgram, forged: Forged) -> None:
    assert "damaged: a program" in refusal(lay_out([program], forged.block))


def sections(**changed: bytes) -> NDArray[np.uint8]:
    kinds = {"classes": writer.CLASSES, "how": writer.PREPROCESSING, "origin": writer.ORIGIN}
    forged = Forged(plan_of(network(), images()))
    kernels = writer.Kernels(library.ABI_VERSION, ctypes.sizeof(Op))
    found = {
        writer.PROGRAMS: writer.FileProgram(16, (8, 20, 20), (5,), 0).pack(),
        writer.BLOCK: forged.block,
    }
    return writer._laid_out(kernels, {**found, **{kinds[k]: v for k, v in changed.items()}})


HOW = writer._preprocessing(writer.Preprocessing(4, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": b"cat"}, "do not end"),
        ({"classes": b"\x1b[2J\0"}, "no printable UTF-8"),
        ({"classes": b"\xc2\x9b2J\0"}, "no printable UTF-8"),
        ({"classes": b"\xff\0"}, "no printable UTF-8"),
        ({"classes": b"\xed\xa0\x80\0"}, "no printable UTF-8"),
        ({"classes": b"\xf4\x90\x80\x80\0"}, "no printable UTF-8"),
        ({"classes": b"\xe2\x82"}, "no printable UTF-8"),
        ({"classes": bytes((1 << 20) + 1)}, "do not end"),
        ({"how": HOW[:-8]}, "preprocessing cannot be"),
        ({"how": b"\xff" * 8 + HOW[8:]}, "preprocessing cannot be"),
        ({"how": HOW[:24] + bytes(8) + HOW[32:]}, "preprocessing cannot be"),
        ({"how": HOW[:56] + b"\xff" * 8 + HOW[64:]}, "preprocessing cannot be"),
        ({"origin": b" " * ((1 << 20) + 1)}, "origin is too long"),
    ],
)
def test_sections_that_lie_are_refused(changed: dict[str, bytes], words: str) -> None:
    assert words in refusal(sections(**changed))


@pytest.mark.parametrize("text", [b"[", b"[]", b"[" * 100_000, b"\xff"])
def test_an_origin_that_is_no_json_object_is_refused(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.dgc"
    file.write_bytes(sections(origin=text).tobytes())
    with pytest.raises(IntegrityError, match="its origin is no JSON") as found:
        dgc.runtime.load(file)
    assert "\n" not in str(found.value)


# --- any number in any place ------------------------------------------------------------------------

SWEEP = """
import sys
from tests.plan_files import sweep
print(sweep(sys.argv[1:]))
"""


def test_any_number_in_any_field_is_refused_or_runs() -> None:
    """In a process of its own, which would not survive a step outside; what is taken is run."""
    done = subprocess.run(
        [sys.executable, "-c", SWEEP],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    taken, refused = map(int, done.stdout.split())
    assert taken > 1000
    assert refused > 1000


def test_every_constant_of_an_operation_is_bounded_by_the_block(forged: Forged) -> None:
    for op in forged.ops:
        for name in CONSTANTS:
            if before := getattr(op, name):
                setattr(op, name, forged.block.size // 64 * 64)
                assert "does not lie whole inside the block" in refusal(forged.bytes()), name
                setattr(op, name, before)
    assert refusal(forged.bytes()) == ""
