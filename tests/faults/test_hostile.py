"""Rows 21 to 26: files that would execute something, are something else, do not fit, or lie about
their size.
"""

# ruff: noqa: PT012, PT017 (a file is damaged and looked at in one breath)

from __future__ import annotations

import ast
import io
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dgc
from dgc.errors import DataError, DgcError, IntegrityError, UnsafeFileError
from dgc.hub import convert, filetype, sandbox, scan
from dgc.hub.load_weights import load_weights
from dgc.hub.scan import inspect, state_dict_of
from dgc.models import create_model
from dgc.models.released import load_released, to_released
from tests.faults import hostile
from tests.faults.conftest import FaultTable
from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]
TINY = {"stages": (1, 1), "growth": (8, 16)}
HOSTILE = list(hostile.files("/tmp/dgcctl-canary"))


# --- 21: pickles that execute ---------------------------------------------------------------------


def test_21_there_are_at_least_sixty() -> None:
    assert len(HOSTILE) >= 60
    assert len({content for _, _, content, _ in HOSTILE}) >= 60


@pytest.mark.parametrize("container", hostile.CONTAINERS)
def test_21_every_payload_in_every_container(
    container: str, tmp_path: Path, fault_table: FaultTable
) -> None:
    canary = tmp_path / "canary"
    name, wrap = hostile.CONTAINERS[container]
    with fault_table.case("21", f"malicious pickle: {container}") as case:
        for payload, needed in hostile.payloads(str(canary)).values():
            with case.run():
                file = tmp_path / name
                file.write_bytes(wrap(payload))
                with pytest.raises(UnsafeFileError) as caught:
                    inspect(file)
                line = str(caught.value)
                assert line.startswith(f"refused: {name}")
                assert f"needs global {needed} at offset " in line
                assert not canary.exists()


def test_21_the_offset_is_where_the_instruction_stands(tmp_path: Path) -> None:
    payload = hostile.calls("posix", "system", "true")
    content = hostile.CONTAINERS["torch legacy"][1](payload)
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(
        UnsafeFileError, match=r"^refused: x.tar needs global posix.system at offset (\d+)$"
    ) as caught:
        inspect(tmp_path / "x.tar")
    assert content[int(str(caught.value).split()[-1]) :].startswith(b"cposix\nsystem\n")


def test_21_no_process_is_started_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(
        hostile.torch_zip(hostile.calls("posix", "system", f"touch {tmp_path / 'canary'}"))
    )
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with fault_table.case("21", "conversion of a malicious file") as case, case.run():
        with pytest.raises(UnsafeFileError):
            convert.convert(inspect(file), "cifar10_dydensenet86_h4", tmp_path / "out.safetensors")
        assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_21_a_file_is_inspected_once_and_held_by_its_digest_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """Another file under the same name, between the inspection and the process that reads it."""
    file, out = tmp_path / "x.tar", tmp_path / "out.safetensors"
    torch.save({"state_dict": released(tiny())}, file, _use_new_zipfile_serialization=False)
    looked = inspect(file)
    monkeypatch.setattr(scan, "inspect", lambda _: pytest.fail("inspected a second time"))
    assert convert.convert(looked, "dydensenet", out, arguments=TINY).record["tensors"]
    out.unlink()
    payload = hostile.calls("posix", "system", f"touch {tmp_path / 'canary'}")
    with fault_table.case("21", "another file in its place after the inspection") as case:
        for content in (hostile.torch_zip(payload), file.read_bytes() + b"\0"):
            with case.run():
                file.write_bytes(content)
                with pytest.raises(IntegrityError, match="was changed after it was inspected"):
                    convert.convert(looked, "dydensenet", out, arguments=TINY)
                assert not list(tmp_path.glob("*out*.safetensors"))
                assert not (tmp_path / "canary").exists()


def test_21_torch_alone_would_refuse_too(tmp_path: Path, fault_table: FaultTable) -> None:
    """The second line of defence, with the first one taken away: no canary, and never a fallback."""
    canary = tmp_path / "canary"
    with fault_table.case("21", "past the inspection: torch, weights only") as case:
        for container in ("torch zip", "torch legacy", "bare pickle", "real tar", "TorchScript"):
            name, wrap = hostile.CONTAINERS[container]
            for payload, _ in hostile.payloads(str(canary)).values():
                with case.run():
                    (tmp_path / name).write_bytes(wrap(payload))
                    with pytest.raises((UnsafeFileError, IntegrityError)):
                        sandbox._read(tmp_path / name)
                    assert not canary.exists()


def test_21_archives_of_code_and_of_archives(tmp_path: Path, fault_table: FaultTable) -> None:
    harmless = {"m/data.pkl": hostile.PLAIN, "m/version": b"3\n"}
    scripted = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), scripted)
    files = {
        scripted.name: scripted.read_bytes(),
        "code.pt": hostile.zip_of({**harmless, "m/code/__torch__.py": b"import os"}),
        "exported.pt2": hostile.zip_of({**harmless, "m/archive_format": b"pt2"}),
        "nested.pt": hostile.zip_of({**harmless, "m/inner.pt": hostile.torch_zip(hostile.PLAIN)}),
        "deep.pkl": _wrapped(hostile.PLAIN, 6),
    }
    with fault_table.case(
        "21", "TorchScript, .pt2, archive in an archive, pickles in pickles in pickles"
    ) as case:
        for name, content in files.items():
            with case.run():
                (tmp_path / name).write_bytes(content)
                with pytest.raises(
                    UnsafeFileError,
                    match=r"^refused: .*(code|archive inside|pickles in pickles|__torch__)",
                ):
                    inspect(tmp_path / name)


def _wrapped(payload: bytes, depth: int) -> bytes:
    for _ in range(depth):
        payload = pickle.dumps(payload, 4)
    return payload


BANNED_CALLS = {"eval", "exec", "__import__"}
BANNED_NAMES = {
    "Unpickler",
    "allow_pickle",
    "add_safe_globals",
    "safe_globals",
    "set_default_load",
    "jit_load",
}


def test_21_nothing_in_the_source_loads_unsafely() -> None:
    """Every source file: no weights_only=False, no torch.load without weights_only=True, no pickle
    loads, no eval.
    """
    checked = 0
    for path in [*ROOT.glob("dgc/**/*.py"), *ROOT.glob("dgcctl/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tame = _restricted_unpicklers(tree)
        for node in ast.walk(tree):
            if node in tame:
                continue
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert not _unsafe(node), f"{where}: {ast.unparse(node)}"
            checked += isinstance(node, ast.Call)
    assert checked > 1000


def _restricted_unpicklers(tree: ast.Module) -> list[ast.expr]:
    """The base in `class X(pickle.Unpickler)` where X has its own find_class (the official CIFAR
    batches are pickles).
    """
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    own = [
        c
        for c in classes
        if any(isinstance(f, ast.FunctionDef) and f.name == "find_class" for f in c.body)
    ]
    return [base for c in own for base in c.bases]


def _unsafe(node: ast.AST) -> bool:
    if isinstance(node, ast.Name | ast.Attribute):
        return (node.id if isinstance(node, ast.Name) else node.attr) in BANNED_NAMES
    if not isinstance(node, ast.Call):
        return False
    function = ast.unparse(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    safe = (
        isinstance(keywords.get("weights_only"), ast.Constant)
        and keywords["weights_only"].value is True
    )
    if function in ("torch.load", "torch.serialization.load") and not safe:
        return True
    if "weights_only" in keywords and not safe:
        return True
    return (
        function in BANNED_CALLS
        or function
        in (
            "pickle.load",
            "pickle.loads",
            "torch.jit.load",
            "torch.hub.load",
            "dill.load",
            "joblib.load",
        )
        or any(
            isinstance(value, ast.Constant) and value.value is True
            for key, value in keywords.items()
            if key == "allow_pickle"
        )
    )


@pytest.mark.parametrize(
    "source",
    ["torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=x)", "load(f, weights_only=False)",
     "pickle.loads(b)", "eval('1')", "np.load(f, allow_pickle=True)", "torch.serialization.add_safe_globals([x])"],
)  # fmt: skip
def test_21_the_source_check_sees_what_it_should(source: str) -> None:
    assert any(_unsafe(node) for node in ast.walk(ast.parse(source)))


def test_21_the_child_cannot_take_all_memory_or_time(fault_table: FaultTable) -> None:
    body = (
        "import torch, resource\nfrom dgc.hub import sandbox\nsandbox.limit_process(1000)\n"
        "assert resource.getrlimit(resource.RLIMIT_CPU)[0] == sandbox.CPU_SECONDS\n"
        "try:\n    torch.empty(1 << 33, dtype=torch.uint8).fill_(1)\nexcept (RuntimeError, MemoryError):\n    print('no')"
    )
    with fault_table.case("21", "the child asks for 8 GiB") as case, case.run():
        done = subprocess.run(
            [sys.executable, "-c", body], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert done.stdout == "no\n"


def test_21_a_child_that_hangs_or_dies_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    for body, seconds, words in (
        ("import time; time.sleep(10_000)", 0.5, "more than 0.5 s"),
        ("import os; os.kill(os.getpid(), 9)", GUARD, "signal 9"),
    ):
        fake = tmp_path / "python"
        fake.write_text(f"#!{sys.executable}\n{body}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        with pytest.raises(IntegrityError, match=words):
            convert.run_child({}, file, seconds)
        monkeypatch.undo()


# --- 22: genuine forms ----------------------------------------------------------------------------


def released(model: torch.nn.Module, prefix: str = "module.") -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(
        (prefix + key, value.clone()) for key, value in to_released(model.state_dict()).items()
    )


def tiny(seed: int = 0, **overrides: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = create_model("dydensenet", **{**TINY, **overrides})
    dgc.set_progress(model, 1.0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


FORMS = list(
    itertools.product(
        ("module.", ""), (False, True), (False, True), ("number", "tensor", "absent"), (True, False)
    )
)


def test_22_genuine_forms(tmp_path: Path, fault_table: FaultTable) -> None:
    model = tiny()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    fresh, again = tiny(), tiny(seed=5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        wanted = model(x)
    with fault_table.case(
        "22", "container x prefix x optimizer x best_prec1 x wrapped dict"
    ) as case:
        for prefix, zipped, with_optimizer, best, wrapped in FORMS:
            with case.run():
                content: dict[str, Any] = {"state_dict": released(model, prefix)}
                content |= {"optimizer": optimizer.state_dict()} if with_optimizer else {}
                content |= {
                    "number": {"epoch": 3, "best_prec1": 31.2},
                    "absent": {},
                    "tensor": {"best_prec1": torch.tensor(31.25)},
                }[best]
                file = tmp_path / "released.tar"
                torch.save(
                    content if wrapped else content["state_dict"],
                    file,
                    _use_new_zipfile_serialization=zipped,
                )
                assert len(state_dict_of(inspect(file))) == len(content["state_dict"])
                ours, reply = sandbox.read_foreign(file, fresh, "dydensenet")
                sandbox._save(ours, str(tmp_path / "ours.safetensors"), "dydensenet")
                load_weights(again, tmp_path / "ours.safetensors")
                with torch.no_grad():
                    assert torch.equal(again(x), wanted)
                    again.classifier.weight.zero_()
                _check_reply(
                    reply,
                    prefix,
                    with_optimizer and wrapped,
                    best if wrapped else "absent",
                    len(content["state_dict"]),
                )


def _check_reply(reply: dict[str, Any], prefix: str, optimizer: bool, best: str, keys: int) -> None:
    told = "; ".join(reply["stripped"])
    assert (f"the prefix module. of {keys} keys" in told) == bool(prefix)
    assert ("optimizer (" in told) == optimizer
    assert ("best_prec1 = 31.25 (a tensor)" in told) == (best == "tensor")
    assert (
        reply["facts"]
        == {
            "number": {"epoch": 3, "best_prec1": 31.2},
            "tensor": {"best_prec1": 31.25},
            "absent": {},
        }[best]
    )


# --- 23: something else ---------------------------------------------------------------------------


def _kinds(tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    array = io.BytesIO()
    np.savez(array, a=np.zeros(3))
    safetensors = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return {
        "page.tar": (b"<!DOCTYPE html><html><title>Google Drive - x</title>", "an HTML page from Google Drive"),
        "quota.tar": (b"\xef\xbb\xbf  <html><title>Google Drive - Quota exceeded</title>", "a Google Drive quota page"),
        "login.tar": (b"<!doctype HTML><title>Sign in to your account</title>", "a Microsoft login page"),
        "other.tar": (b"<!-- x --><html>", "an HTML page"),
        "real.tar": (hostile.tar_of({"a": b"hello"}), "a tar archive"),
        "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x032.1", "an ONNX model"),
        "image.png": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        "image.jpg": (b"\xff\xd8\xff\xe0", "a JPEG image"),
        "empty.tar": (b"", "an empty file"),
        "packed.gz": (b"\x1f\x8b\x08", "a gzip archive"),
        "text.json": (b'{"a": 1}', "a JSON text"),
        "text.txt": (b"hello", "an unknown kind of file"),
        "ours.safetensors": (len(safetensors).to_bytes(8, "little") + safetensors + b"\0" * 4, "a safetensors file"),
        "arrays.npz": (array.getvalue(), "a NumPy .npz archive"),
        "array.npy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "a NumPy .npy file"),
        "plain.zip": (hostile.zip_of({"a.txt": b"x"}), "a zip archive without a data.pkl"),
        "plain.pkl": (pickle.dumps({"a": 1}, 2), "a bare pickle"),
        "program": (b"\x7fELF", "a program (ELF)"),
        "keras.h5": (b"\x89HDF\r\n", "an HDF5 file"),
    }  # fmt: skip


def test_23_it_is_called_by_its_name(tmp_path: Path, fault_table: FaultTable) -> None:
    with fault_table.case(
        "23", "HTML, tar, ONNX, images, 0 bytes, archives, other formats"
    ) as case:
        for name, (content, words) in _kinds(tmp_path).items():
            with case.run():
                (tmp_path / name).write_bytes(content)
                with pytest.raises(IntegrityError) as caught:
                    inspect(tmp_path / name)
                assert f"{tmp_path / name}: looks like {words}" in str(caught.value)
                assert caught.value.exit_code == 4


def test_23_no_regular_file(tmp_path: Path, fault_table: FaultTable) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    cases = {
        tmp_path / "fifo": "a FIFO",
        tmp_path / "folder": "a directory",
        tmp_path / "s": "a socket",
        Path("/dev/zero"): "a device",
    }
    with fault_table.case("23", "FIFO, directory, socket, device, nothing") as case:
        for path, words in cases.items():
            with case.run(), pytest.raises(IntegrityError, match=words):
                inspect(path)
        with (
            case.run(),
            pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"),
        ):
            inspect(tmp_path / "absent")
    listener.close()


def test_23_a_cut_or_damaged_checkpoint(tmp_path: Path, fault_table: FaultTable) -> None:
    model = tiny()
    file = tmp_path / "x.tar"
    for zipped in (False, True):
        torch.save({"state_dict": released(model)}, file, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        with fault_table.case(
            "23",
            f"cut at every 1/32, or with bytes after the end ({'zip' if zipped else 'legacy'})",
        ) as case:
            for part in range(1, 32):
                with case.run(), pytest.raises(IntegrityError):
                    file.write_bytes(whole[: len(whole) * part // 32])
                    inspect(file)
            with case.run(), pytest.raises(IntegrityError, match="after the end"):
                file.write_bytes(whole + b"x")
                inspect(file)


def test_23_a_flipped_bit_in_a_zip(tmp_path: Path, fault_table: FaultTable) -> None:
    """The zip form has checksums; every flip in a stored number, a name or a header is noticed or
    changes nothing.
    """
    model = tiny()
    file = tmp_path / "x.pt"
    torch.save({"state_dict": released(model)}, file)
    whole = bytearray(file.read_bytes())
    dice = torch.Generator().manual_seed(3)
    with fault_table.case("23", "one bit flipped in a zip checkpoint") as case:
        for _ in range(60):
            with case.run():
                place = int(torch.randint(len(whole), (1,), generator=dice))
                whole[place] ^= 1
                file.write_bytes(whole)
                try:
                    told = state_dict_of(inspect(file))
                    assert _same_numbers(file, model), place
                    assert len(told) == len(released(model))
                except DgcError as error:
                    assert error.exit_code in (4, 5)
                whole[place] ^= 1


def _same_numbers(file: Path, model: torch.nn.Module) -> bool:
    found = torch.load(file, weights_only=True)["state_dict"]
    return all(torch.equal(found[key], value) for key, value in released(model).items())


# --- 25: does not fit -----------------------------------------------------------------------------


def _changed(
    change: Callable[[OrderedDict[str, torch.Tensor]], object],
) -> OrderedDict[str, torch.Tensor]:
    state = released(tiny())
    change(state)
    return state


def _rename(state: OrderedDict[str, torch.Tensor], old: str, new: torch.Tensor | None) -> None:
    key = next(key for key in state if old in key)
    if new is None:
        del state[key]
    else:
        state[key] = new


MISFITS: dict[str, tuple[Callable[[], OrderedDict[str, torch.Tensor]], str]] = {
    "other heads": (lambda: released(tiny(heads=2)), r"\d+ keys differ: missing .*headconv_2"),
    "other growth": (lambda: released(tiny(growth=(16, 32))), r"\d+ keys differ: .* is .*, must be "),
    "missing _inactive_channels": (lambda: _changed(lambda s: _rename(s, "_inactive_channels", None)), "1 keys differ: missing .*_inactive_channels"),
    "extra key": (lambda: _changed(lambda s: s.update({"module.more": torch.zeros(1)})), "1 keys differ: extra more"),
    "transposed": (lambda: _changed(lambda s: _rename(s, "fc1.weight", torch.zeros(16, 2))), "1 keys differ: .*fc1.weight is 16x2, must be 2x16"),
    "NaN": (lambda: _changed(lambda s: s["module.classifier.bias"].fill_(float("nan"))), "classifier.bias holds NaN or Inf"),
    "fp16": (lambda: OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in released(tiny()).items()), "is torch.float16, must be torch.float32"),
    "no tensors": (lambda: _changed(lambda s: s.update({"module.more": "text"})), "1 entries of its state_dict are no tensors"),
    "empty": (OrderedDict, "holds no state_dict"),
}  # fmt: skip


@pytest.mark.parametrize("misfit", MISFITS)
def test_25_does_not_fit(misfit: str, tmp_path: Path, fault_table: FaultTable) -> None:
    make, words = MISFITS[misfit]
    with fault_table.case("25", f"checkpoint does not fit: {misfit}") as case:
        for zipped in (False, True):
            with case.run():
                torch.save(
                    {"state_dict": make()},
                    tmp_path / "x.tar",
                    _use_new_zipfile_serialization=zipped,
                )
                with pytest.raises(IntegrityError, match=words) as caught:
                    sandbox.read_foreign(tmp_path / "x.tar", tiny(), "dydensenet")
                assert str(caught.value).startswith(f"{tmp_path / 'x.tar'}: ")
                assert str(caught.value).count(";") <= 6  # five keys and how many more


def test_25_the_model_that_would_fit_is_named(tmp_path: Path, fault_table: FaultTable) -> None:
    """Through the real child, both for a file of another released network."""
    torch.save(
        {"state_dict": released(create_model("cifar100_dydensenet86_h4"))}, tmp_path / "x.tar"
    )
    with fault_table.case("25", "checkpoint of another released network") as case, case.run():
        with pytest.raises(
            IntegrityError, match="checkpoint is for model cifar100_dydensenet86_h4"
        ) as caught:
            convert.convert(
                inspect(tmp_path / "x.tar"), "cifar10_dydensenet86_h4", tmp_path / "out.safetensors"
            )
        assert caught.value.exit_code == 4
        assert not list(tmp_path.glob("*out*"))


def test_25_our_own_format_is_strict_too(tmp_path: Path) -> None:
    sandbox._save(tiny(heads=2).state_dict(), str(tmp_path / "x.safetensors"), "somebody")
    with pytest.raises(
        IntegrityError, match=r"\d+ keys do not fit the model .*the file is for somebody"
    ):
        load_weights(tiny(), tmp_path / "x.safetensors")
    torch.save({"state_dict": released(tiny(heads=2))}, tmp_path / "x.tar")
    with pytest.raises(IntegrityError, match="keys differ"):
        load_released(tmp_path / "x.tar", "dydensenet", **TINY)


# --- 26: headers that lie -------------------------------------------------------------------------


def _safetensors(header: dict[str, Any] | bytes, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def _f32(shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def _names(count: int) -> bytes:
    one = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(one % number for number in range(count)) + b"}"


def _lies() -> dict[str, bytes]:
    big, four = 1 << 38, b"\0" * 16
    one = hostile.tensor("0", 4, (4,), (1,))
    claims = hostile.tensor("0", big, (big,), (1,))
    many = b"".join(hostile.entry(f"k{i}", b"h\x00") for i in range(1_000_000))
    first = hostile.entry("a", one + b"q\x00")
    return {
        "legacy: 1 TB storage": hostile.legacy(["0"], hostile.entry("a", claims), hostile.block(big, four)),
        "legacy: 1 TB tensor in 16 bytes": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", 4, (big,), (0,))), hostile.block(4, four)),
        "legacy: 1 TB by 3 dimensions": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", 4, (1 << 13,) * 3, (0, 0, 0))), hostile.block(4, four)),
        "legacy: negative shape": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", 4, (-4,), (1,))), hostile.block(4, four)),
        "legacy: negative offset": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", 4, (4,), (1,), -1)), hostile.block(4, four)),
        "legacy: outside the storage": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", 4, (2,), (9,))), hostile.block(4, four)),
        "legacy: block says another count": hostile.legacy(["0"], hostile.entry("a", one), hostile.block(big, four)),
        "legacy: a million keys": hostile.legacy(["0"], first + many, hostile.block(4, four)),
        "legacy: negative storage": hostile.legacy(["0"], hostile.entry("a", hostile.tensor("0", -4, (4,), (1,))), four),
        "zip: 1 TB storage": hostile.torch_zip(b"\x80\x02}(" + hostile.entry("a", claims) + b"u.", **{"archive/data/0": four}),
        "zip: a million keys": hostile.torch_zip(b"\x80\x02}(" + first + many + b"u.", **{"archive/data/0": four}),
        "zip: storage is absent": hostile.torch_zip(b"\x80\x02}(" + first + b"u."),
        "zip: a million members": _many_members(),
        "zip: a bomb": hostile.zip_of({"a/data.pkl": b"\x80\x02" + b"N0" * (1 << 26) + b"N."}, zipfile.ZIP_DEFLATED),
        "zip: a directory of 1 TB": hostile.torch_zip(hostile.PLAIN)[:-22] + b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0",
        "pickle: a literal of 2 GB": b"\x80\x02X\xff\xff\xff\x7fabc",
        "pickle: a literal of 8 EB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"abc",
        "pickle: a billion laughs": hostile.legacy([], b"X\x01\x00\x00\x00a" + b"]q\x01" + b"".join(b"(h\x01h\x01lq\x01" for _ in range(64)), b""),
        "safetensors: 1 TB tensor": _safetensors({"a": _f32([big], 0, 4 * big)}, four),
        "safetensors: 1 TB shape, small span": _safetensors({"a": _f32([big], 0, 16)}, four),
        "safetensors: header of 8 EB": b"\xff" * 4 + b"\0" * 4 + b"{" + four,
        "safetensors: a million keys": _safetensors(_names(1_000_000)),
        "safetensors: 30,000 keys": _safetensors(_names(30_000)),
        "safetensors: 200,000 keys": _safetensors(_names(200_000)),
        "safetensors: overlapping": _safetensors({"a": _f32([2], 0, 8), "b": _f32([2], 4, 12)}, b"\0" * 12),
        "safetensors: negative shape": _safetensors({"a": _f32([-2], 0, 8)}, b"\0" * 8),
        "safetensors: negative offsets": _safetensors({"a": _f32([2], -8, 0)}, b"\0" * 8),
        "safetensors: a gap": _safetensors({"a": _f32([1], 4, 8)}, b"\0" * 8),
        "safetensors: bytes after the end": _safetensors({"a": _f32([1], 0, 4)}, b"\0" * 8),
        "safetensors: a name twice": _safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
        "safetensors: deep JSON": _safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "safetensors: no JSON": _safetensors(b"{not json}"),
        "safetensors: wrong dtype": _safetensors({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    }  # fmt: skip


def _many_members() -> bytes:
    """Only the end record claims them: listing them would need no more."""
    import struct

    directory = b"PK\x01\x02" + b"\0" * 42
    body = directory * 300_000
    end64 = b"PK\x06\x06" + struct.pack(
        "<QHHIIQQQQ", 44, 45, 45, 0, 0, 300_000, 300_000, len(body), 4
    )
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 4 + len(body), 1)
    end = b"PK\x05\x06\0\0\0\0" + b"\xff" * 12 + b"\0\0"
    return b"PK\x03\x04" + body + end64 + locator + end


_MEASURE = """
import json, resource, sys
from pathlib import Path
from dgc.errors import DgcError
from dgc.hub import filetype, scan
out = {}
for path in map(Path, sys.argv[1:]):
    look = filetype.read_header if path.name.startswith("safetensors") else scan.inspect
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        look(path)
        told = [0, "accepted"]
    except DgcError as error:
        told = [int(error.exit_code), str(error)]
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    out[path.name] = [*told, rise / 1024]
assert "torch" not in sys.modules
print(json.dumps(out))
"""


def test_26_headers_that_lie(tmp_path: Path, fault_table: FaultTable) -> None:
    """Refused from the header: exit 4, < 200 MB of memory; the process that looks has no torch."""
    lies = _lies()
    paths = []
    for name, content in lies.items():
        paths.append(tmp_path / name.replace(":", "").replace(" ", "_"))
        paths[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    told = json.loads(done.stdout)
    with fault_table.case("26", "headers that lie: sizes, shapes, offsets, counts") as case:
        for path in paths:
            with case.run():
                code, line, megabytes = told[path.name]
                assert code == 4, (path.name, line)
                assert path.name in line
                assert megabytes < 200, (path.name, megabytes)


def test_26_good_headers_pass(tmp_path: Path) -> None:
    sandbox._save(tiny().state_dict(), str(tmp_path / "x.safetensors"), "dydensenet")
    header = filetype.read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"model": "dydensenet"}
    assert {key: shape for key, (_, shape) in header.tensors.items()} == {
        key: tuple(value.shape) for key, value in tiny().state_dict().items()
    }
