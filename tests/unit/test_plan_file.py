"""Plan files: what is written runs elsewhere with the same bits, in NumPy alone, from any number of
threads; what a file says of itself comes back.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import dgc
import dgc.runtime
from dgc.errors import DataError, IntegrityError, UsageError
from dgc.kernels.cpu import library, merge
from dgc.kernels.cpu.structs import CONSTANTS, IMAGES, LAYOUTS, Kind, Op, Region, Tensor
from dgc.runtime import native, writer
from dgc.runtime.__main__ import main
from dgc.runtime.plan import Preprocessing
from tests.plan_files import images, network, plan_of
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]
HOW = Preprocessing(24, 20, (0.5, 0.25, 0.125), (0.2, 0.3, 0.4), 1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def saved(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "model.dgc"
    sizes = [images(), images(size=(8, 33, 18))]
    classes = ["cat", "dog", "Käse", "犬", "e"]
    return dgc.save_plan(net, sizes, file, classes, None, {"run": "demo-1", "licence": "MIT"})


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "model.dgc"
    return dgc.save_plan(nn.Conv2d(3, 2, 20), torch.zeros(1, 3, 20, 20), file, (), HOW)


@pytest.mark.parametrize("size", [(8, 20, 20), (8, 33, 18)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_plan_file_computes_the_bits_of_the_compiled_module(
    net: nn.Module, saved: Path, size: tuple[int, int, int], threads: int
) -> None:
    x = images(5, size)
    wanted = dgc.compile_for_inference(net)(x).numpy()
    plan = dgc.runtime.load(saved, threads=threads, chunk=2)
    assert np.array_equal(plan(x.numpy()), wanted)
    assert np.array_equal(plan(x.numpy()[:1]), wanted[:1])  # in memory made for two
    assert np.array_equal(plan(x.numpy()), wanted)
    assert plan(x.numpy()[:0]).shape == (0, 5)


def test_both_numbers_of_registers_share_their_weights(net: nn.Module, tmp_path: Path) -> None:
    x = images()
    one = plan_of(net, x).block.nbytes
    file = dgc.save_plan(net, x, tmp_path / "two.dgc")
    assert file.stat().st_size < 1.9 * one
    with library.made_for(16):
        small = plan_of(net, x)
    with library.made_for(32):
        large = plan_of(net, x)
    block, places = merge.merge([small.block, large.block, small.block])
    assert len(set(places)) == 3
    assert block.nbytes < 1.9 * one


def test_a_plan_in_8_bits_is_written_too(net: nn.Module, tmp_path: Path) -> None:
    x = images(5)
    compiled = dgc.compile_for_inference(net, precision="int8")
    wanted = compiled(x).numpy()
    for model, precision in ((net, "int8"), (compiled, None)):
        file = dgc.save_plan(model, x, tmp_path / "x.dgc", precision=precision)
        plan = dgc.runtime.load(file, threads=2, chunk=2)
        assert np.array_equal(plan(x.numpy()), wanted)
        assert plan.precision == "int8"


@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_plan_in_8_bits_whose_image_grows_is_written(
    *, dynamic: bool, padding: int, tmp_path: Path
) -> None:
    """Padded so far that the output is larger than the input: refused once, by a rule that was
    stricter than what the kernel reads.
    """
    torch.manual_seed(0)
    grown = nn.Conv2d(32, 32, 1, padding=padding)
    if dynamic:
        grown = dgc.DynamicGroupConv2d(32, 32, 1, 1, padding, norm=False)  # type: ignore[assignment]
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), grown, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    if dynamic:
        dgc.set_progress(net, 1.0)
    for side in (7, 13, 16):
        x = torch.randn(2, 3, side, side)
        wanted = dgc.compile_for_inference(net, precision="int8", strict=True)(x)
        file = dgc.save_plan(net, x, tmp_path / "x.dgc", precision="int8")
        assert np.array_equal(dgc.runtime.load(file)(x.numpy()), wanted.numpy())


def test_what_a_file_says_of_itself_comes_back(saved: Path, of_photos: Path) -> None:
    plan = dgc.runtime.load(saved)
    assert plan.classes == ("cat", "dog", "Käse", "犬", "e")
    assert dgc.runtime.load(of_photos).preprocessing == HOW
    assert plan.origin == {"run": "demo-1", "licence": "MIT"}
    assert [s.image for s in plan.shapes] == [(8, 20, 20), (8, 33, 18)]
    assert {s.answer for s in plan.shapes} == {(5,)}
    assert plan.threads == len(os.sched_getaffinity(0))
    assert plan.memory(4) >= plan.memory(1) > 0


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_info_says_in_which_precision_a_plan_computes(
    net: nn.Module, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = dgc.save_plan(net, images(), tmp_path / "x.dgc", precision=precision)
    assert main(["info", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == precision


def test_a_file_without_any_of_it(net: nn.Module, tmp_path: Path) -> None:
    plan = dgc.runtime.load(dgc.save_plan(net, images(), tmp_path / "bare.dgc"))
    assert (plan.classes, plan.preprocessing) == ((), None)


def test_preprocessing_is_that_of_evaluation() -> None:
    from dgc.data.normalise import Normalise

    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = Normalise(mean, std, torch.float32, torch.device("cpu"))(torch.from_numpy(pixels))
    found = Preprocessing(None, 40, mean, std).normalise(pixels[0])
    assert np.array_equal(found, wanted.numpy())


def test_images_of_another_size_are_refused_and_the_sizes_named(saved: Path) -> None:
    plan = dgc.runtime.load(saved)
    with pytest.raises(UsageError, match=r"\(images, 8, 20, 20\) or \(images, 8, 33, 18\), given"):
        plan(np.zeros((1, 8, 20, 21), np.float32))


@pytest.mark.parametrize("name", ["bell\a", "two\nlines", "\ud800"])
def test_a_class_name_that_no_screen_should_see_is_refused(
    net: nn.Module, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="class name"):
        dgc.save_plan(net, images(), tmp_path / "x.dgc", [*"abcd", name])
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_has_no_plan_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plan can be made of this network"):
        dgc.save_plan(nn.Sequential(nn.GLU(1)), torch.zeros(1, 4, 8, 8), tmp_path / "x.dgc")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_takes_the_place_of_one_in_use(net: nn.Module, tmp_path: Path) -> None:
    file = dgc.save_plan(net, images(), tmp_path / "x.dgc")
    plan = dgc.runtime.load(file)
    before = plan(images().numpy())
    dgc.save_plan(nn.Sequential(nn.Conv2d(8, 4, 3)), images(), file)
    assert np.array_equal(plan(images().numpy()), before)
    assert dgc.runtime.load(file)(images().numpy()).shape == (3, 4, 18, 18)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p: None, DataError, "No such file"),
        (lambda p: p.mkdir(), DataError, "no regular file"),
        (os.mkfifo, DataError, "no regular file"),
        (lambda p: p.write_bytes(b""), IntegrityError, "an empty file"),
        (lambda p: p.write_bytes(b"PK" + bytes(100)), IntegrityError, "no plan file"),
    ],
    ids=["absent", "folder", "pipe", "empty", "other"],
)
def test_what_is_no_plan_file_is_one_line(
    make: object, error: type, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.dgc"
    make(file)  # type: ignore[operator]
    with pytest.raises(error, match=words) as found:
        dgc.runtime.load(file)
    assert "\n" not in str(found.value)


def test_an_instruction_set_that_is_asked_for_is_used_or_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, logits = images().numpy(), []
    for level in library.describe()["supported"]:  # type: ignore[attr-defined]
        monkeypatch.setenv("DGC_NATIVE_ISA", level)
        logits.append(dgc.runtime.load(saved)(x))
    assert all(np.allclose(y, logits[0], atol=1e-4) for y in logits)
    for text in ("avx513", "avx2,-vnnni"):
        monkeypatch.setenv("DGC_NATIVE_ISA", text)
        with pytest.raises(UsageError, match=f"^DGC_NATIVE_ISA={text}: unknown word .*baseline"):
            dgc.runtime.load(saved)(images().numpy())
    monkeypatch.setenv("DGC_NATIVE_ISA", "none")
    with pytest.raises(UsageError, match="nothing to run with but the kernels"):
        dgc.runtime.load(saved)(x)


def test_threads_with_a_plan_each_and_with_one_together_give_the_same_bits(saved: Path) -> None:
    x = images(4).numpy()
    shared = dgc.runtime.load(saved, threads=1)
    wanted, found = shared(x), []

    def work(plan: dgc.runtime.Plan) -> None:
        for _ in range(20):
            found.append(np.array_equal(plan(x), wanted))

    plans = [shared] * 4 + [dgc.runtime.load(saved, threads=1 + i % 2) for i in range(8)]
    workers = [threading.Thread(target=work, args=(plan,)) for plan in plans]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(GUARD)
    assert found == [True] * 240


# --- without torch ----------------------------------------------------------------------------------

ALONE = """
import json, sys
import numpy as np
import dgc.runtime
plan = dgc.runtime.load(sys.argv[1], threads=1)
y = plan(np.load(sys.argv[2]))
np.save(sys.argv[3], y)
print(json.dumps([m for m in ("torch", "PIL", "typer", "rich", "pydantic") if m in sys.modules]))
"""


def test_a_plan_runs_in_a_process_without_torch(
    net: nn.Module, saved: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images().numpy())
    command = [sys.executable, "-c", ALONE, saved, tmp_path / "x.npy", tmp_path / "y.npy"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    wanted = dgc.compile_for_inference(net)(images()).numpy()
    assert np.array_equal(np.load(tmp_path / "y.npy"), wanted)


# --- the table of kinds, and the format -------------------------------------------------------------


def test_an_image_that_cannot_be_read_is_answered_and_told_by_the_exit_code(
    of_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert main(["predict", str(of_photos), str(bad)]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["unreadable"][0]["path"] == str(bad)
    assert said.err.startswith(f"error: 1 of 1 images could not be read: {bad}: ")
    assert said.err.count("\n") == 1


def test_without_pillow_image_files_are_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("classify", "fit", "image_file"):
        monkeypatch.delitem(sys.modules, f"dgc.runtime.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["predict", str(saved), "cat.png"]) == 2
    said = capsys.readouterr().err
    assert said == "error: image files need Pillow: pip install pillow\n"


def test_the_verifier_has_a_row_for_each_kind_of_the_executor() -> None:
    handle = native.functions()
    handle.dgc_row_kind.restype = ctypes.c_int64
    handle.dgc_row_count.restype = ctypes.c_int64
    rows = [handle.dgc_row_kind(ctypes.c_int64(i)) for i in range(handle.dgc_row_count())]
    assert sorted(rows) == sorted(int(kind) for kind in Kind)


def test_every_field_of_an_operation_is_an_image_a_region_a_constant_or_a_number() -> None:
    """A new constant that is missing in CONSTANTS would point nowhere in a merged block; and the
    verifier (`Check::absent`) names the same ones.
    """
    named = {name for name, kind in Op._fields_ if kind is Tensor}
    regions = {name for name, kind in Op._fields_ if kind is Region}
    assert named == set(IMAGES + LAYOUTS)
    assert regions == {"input", "out", "list", "panel"}
    numbers = {
        *("kind", "batched", "channels", "heads", "outs", "dynamic", "taps", "relu", "in_relu"),
        *("has_residual", "out_step", "head_step", "inactive", "hidden", "scale_weights", "lanes"),
        *("span", "pool_kind", "pool_kernel", "pool_stride", "pool_pad"),
        *("pool_kernel_w", "pool_stride_w", "pool_pad_w", "act", "slope", "mode", "has_vector"),
        "out_first",
    }
    assert {name for name, _ in Op._fields_} == named | regions | set(CONSTANTS) | numbers
    source = (ROOT / "dgc/kernels/cpu/src/plan/program.cpp").read_text()
    assert all(f"&DgcOp::{name}" in source for name in CONSTANTS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"The quick brown fox jumps over the lazy dog", 0x0B242D361FDA71BC),
    ],
)
def test_checksums_are_xxh64(text: bytes, wanted: int) -> None:
    assert writer.checksum(text) == wanted


def test_a_preprocessing_of_another_class_will_do(tmp_path: Path) -> None:
    how = SimpleNamespace(resize=None, image_size=20, mean=(0, 0, 0), std=(1, 1, 1), channels=3)
    net, x = nn.Conv2d(3, 2, 20), torch.zeros(1, 3, 20, 20)
    plan = dgc.runtime.load(dgc.save_plan(net, x, tmp_path / "x.dgc", preprocessing=how))
    assert plan.preprocessing == Preprocessing(None, 20, (0, 0, 0), (1, 1, 1), 3)
