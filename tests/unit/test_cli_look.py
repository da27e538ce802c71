"""recipes, profile, eval, data and doctor: what they print, and each line they refuse with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgc.errors import DgcError, ResourceError
from dgc.recipe.load import (
    diff_recipes,
    dump_recipe,
    find_recipe,
    load_recipe,
    shipped_recipes,
)
from dgc.run.paths import RunDir
from dgc.run.status import Status, write_status
from dgcctl.cli import data, doctor, main, profile
from dgcctl.cli import eval as evaluation
from dgcctl.core import diagnosis
from dgcctl.core.diagnosis import Finding, Level

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("DGCCTL_VERBOSITY", "DGCCTL_RUNS_DIR", "DGCCTL_DATA_DIR", "DGCCTL_OFFLINE"):
        monkeypatch.setenv(name, "")


def fails(said: Said, code: int, *words: str) -> str:
    """Run a command that must end with a code and one error line; the line."""
    assert main.main(list(words)) == code
    errors = [line for line in said.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("error: ")


# --- recipes --------------------------------------------------------------------------------------


def test_recipes_ls_has_all_shipped_ones(capsys: Said) -> None:
    assert main.main(["recipes", "ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["name"] for row in rows] == shipped_recipes()
    assert {row["name"]: row["expected"] for row in rows}["cifar10_h4"] == 4.77


def test_recipes_show_prints_what_loads_back(capsys: Said, tmp_path: Path) -> None:
    assert main.main(["recipes", "show", "cifar10_h4", "optim.lr=0.2"]) == 0
    copy = tmp_path / "copy.yaml"
    copy.write_text(capsys.readouterr().out)
    assert load_recipe(copy) == load_recipe(find_recipe("cifar10_h4"), ["optim.lr=0.2"])


def test_recipes_show_why_gives_origins_and_what_is_expected(capsys: Said) -> None:
    assert main.main(["recipes", "show", "cifar10_h4", "--why"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "paper" in lines["optim.lr"]
    assert "4.77 ± " in lines["expect.top1_error"]
    assert main.main(["recipes", "show", "demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["digest"] == load_recipe(find_recipe("demo")).digest()


def test_recipes_validate_finds_every_problem_of_every_file(capsys: Said, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        dump_recipe(load_recipe(find_recipe("demo"))).replace("  lr: 0.1", "  lrr: 0.1\n  lr: -1")
    )
    assert main.main(["recipes", "validate", "demo", str(bad)]) == 2
    said = capsys.readouterr()
    assert said.out == f"demo{' ' * (len(str(bad)) - 4)}  ok\n{bad}  2 problems\n"
    errors = said.err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith(f"error: {bad}:") for line in errors)
    assert main.main(["recipes", "validate", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"] == [
        {"recipe": "demo", "ok": True, "problems": []}
    ]


def test_recipes_diff_names_what_differs(capsys: Said, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(dump_recipe(load_recipe(find_recipe("demo"), ["optim.lr=0.5", "seed=3"])))
    assert main.main(["recipes", "diff", "demo", str(other)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["key", "demo", str(other)], ["seed", "0", "3"], ["optim.lr", "0.1", "0.5"]]
    assert main.main(["recipes", "diff", "demo", "demo"]) == 0
    assert capsys.readouterr() == ("", "no difference\n")


def test_recipes_cp_copies_and_never_overwrites_unasked(capsys: Said, tmp_path: Path) -> None:
    assert main.main(["recipes", "cp", "demo"]) == 0
    assert capsys.readouterr().out == "demo.yaml\n"
    assert (tmp_path / "demo.yaml").read_bytes() == find_recipe("cifar10_h4").with_name(
        "demo.yaml"
    ).read_bytes()
    (tmp_path / "mine.yaml").write_text("precious")
    line = fails(capsys, 2, "recipes", "cp", "cifar10_h4", "mine.yaml")
    assert (
        line
        == "mine.yaml exists. Replace it? stdin is no terminal, so nobody can be asked: pass --yes"
        " to agree"
    )
    assert (tmp_path / "mine.yaml").read_text() == "precious"
    assert main.main(["recipes", "cp", "cifar10_h4", "mine.yaml", "--yes"]) == 0
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"
    same = [
        key
        for key, *_ in diff_recipes(
            load_recipe(Path("mine.yaml")), load_recipe(find_recipe("cifar10_h4"))
        )
    ]
    assert same == ["name"]
    assert main.main(["recipes", "cp", "demo", "other"]) == 0
    assert load_recipe(tmp_path / "other.yaml").name == "other"
    assert capsys.readouterr().out == "mine.yaml\nother.yaml\n"
    line = fails(capsys, 2, "recipes", "cp", "demo", "my own.yaml")
    assert line.startswith("recipes cp: the name 'my own': should be a name of at most 64 letters")
    assert not (tmp_path / "my own.yaml").exists()
    capsys.readouterr()
    line = fails(capsys, 2, "recipes", "cp", "mine.yaml", "mine.yaml")
    assert (
        line
        == "mine.yaml: is that recipe itself: give another name, e.g. `dgcctl recipes cp mine.yaml"
        " my.yaml`"
    )
    line = fails(capsys, 2, "recipes", "cp", "demo", "no/such/x.yaml")
    assert line == "no/such/x.yaml: there is no folder no/such: make it first"


# --- a process that answers -----------------------------------------------------------------------

Asked = list[tuple[str, list[str]]]


def answering(monkeypatch: pytest.MonkeyPatch, module: Any, answer: dict[str, Any]) -> Asked:
    """Let a command's process answer at once; what it was asked."""
    asked: Asked = []

    def ask(
        name: str, arguments: list[str], *, say: Callable[[str], None], **_: Any
    ) -> dict[str, Any]:
        asked.append((name, list(arguments)))
        return answer

    monkeypatch.setattr(module, "query", ask)
    return asked


LAYER = {
    "name": "conv",
    "kind": "Conv2d",
    "shape": [8, 4, 4],
    "params": 10,
    "dense": 300,
    "promised": 100,
    "executed": 120,
}
IDLE = {**LAYER, "name": "norm", "params": 0, "dense": 0, "promised": 0, "executed": 0}
TOTALS = {"params": 10, "dense": 300, "promised": 100, "executed": 120}


def test_profile_has_three_columns_of_macs_and_a_total(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    answer = {"recipe": "demo", "image_size": 32, "layers": [LAYER, IDLE], "totals": TOTALS}
    asked = answering(monkeypatch, profile, answer)
    assert main.main(["profile", "demo", "model.heads=2", "--progress", "0.5"]) == 0
    assert asked == [
        ("dgc.jobs.profile", [str(find_recipe("demo")), "model.heads=2", "--progress=0.5"])
    ]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["conv", "Conv2d", "8x4x4", "10", "300", "100", "120"],
        ["total", "10", "300", "100", "120"],
    ]
    assert main.main(["profile", "demo", "--all", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in document["layers"]] == ["conv", "norm"]
    assert document["totals"] == TOTALS


def test_profile_refuses_a_bad_recipe_before_it_starts_anything(capsys: Said) -> None:
    assert "model.heads" in fails(capsys, 2, "profile", "demo", "model.heads=3")


# --- eval -----------------------------------------------------------------------------------------

FIGURES = {
    "top1_error": 5.0,
    "top5_error": 0.25,
    "samples": 10000,
    "images_per_s": 1234.5,
    "engine": "native",
    "device": "cpu",
    "macs": {"dense": 300, "promised": 100, "executed": 120},
    "expected": [],
}


def test_eval_of_a_run_is_held_against_its_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: Said, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "runs" / "20260101T000000Z-cifar10_h4-aaa111")
    run.path.mkdir(parents=True)
    run.recipe.write_text(dump_recipe(load_recipe(find_recipe("cifar10_h4"))))
    write_status(run, Status(state="done"))
    wish = {"metric": "top1_error", "expected": 4.77, "tolerance": 0.3, "source": "paper"}
    asked = answering(monkeypatch, evaluation, {**FIGURES, "expected": [wish]})
    assert (
        main.main(["eval", "--run", "latest", "--step", "best", "--data-dir", "d", "--per-class"])
        == 0
    )
    arguments = [
        f"--run-dir={run.path}",
        "--step=best",
        "--engine=auto",
        "--precision=float32",
        f"--data-dir={tmp_path / 'd'}",
        "--per-class",
    ]
    assert asked == [("dgc.jobs.evaluate", arguments)]
    shown = capsys.readouterr().out
    assert f"evaluated       {run.id}, its best checkpoint, 10,000 images\n" in shown
    assert "top-1 error     5.00 %, expected 4.77 ± " in shown
    assert "images/s        1,234  (native, cpu)\n" in shown
    assert "MACs, executed  120\n" in shown


def test_eval_check(monkeypatch: pytest.MonkeyPatch, capsys: Said, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"x")
    wish = {"metric": "top1_error", "expected": 4.0, "tolerance": 0.5, "source": "a wish"}
    answering(monkeypatch, evaluation, {**FIGURES, "expected": [wish]})
    line = fails(capsys, 11, "eval", "--checkpoint", str(weights), "--check")
    assert line == "w.safetensors: top1_error is 5.00 %, above 4.00 + 0.50 % (a wish)"
    answering(monkeypatch, evaluation, {**FIGURES, "expected": [{**wish, "tolerance": 1.0}]})
    assert main.main(["eval", "--checkpoint", str(weights), "--check"]) == 0
    answering(monkeypatch, evaluation, FIGURES)
    line = fails(capsys, 2, "eval", "--checkpoint", str(weights), "--check")
    assert line == "w.safetensors: --check, but nothing is expected of it: leave --check out"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "no network was named: give one of --run RUN, --pretrained NAME, --checkpoint FILE"),
        (
            ["--run", "a", "--checkpoint", "b"],
            (
                "--run and --checkpoint exclude each other: give one of --run RUN, --pretrained"
                " NAME, --checkpoint FILE"
            ),
        ),
        (["--run", "a", "--step", "first"], "--step first: should be a step number, best or last"),
        (
            ["--checkpoint", "none.pt"],
            (
                "none.pt: no such file: `dgcctl ckpt ls` lists the released networks, `dgcctl runs"
                " ls` your runs"
            ),
        ),
        (
            ["--run", "a", "--check", "--limit", "5"],
            "--check judges the whole set, and --limit leaves some out: drop one of them",
        ),
    ],
)
def test_what_eval_refuses(capsys: Said, words: list[str], line: str) -> None:
    assert fails(capsys, 2, "eval", *words) == line


def test_an_unknown_engine_is_refused_with_the_known_ones(capsys: Said) -> None:
    line = fails(capsys, 2, "eval", "--run", "a", "--engine", "warp")
    assert "warp" in line
    assert "native" in line


# --- data -----------------------------------------------------------------------------------------

SPLIT = {"samples": 5, "sha256": "ab" * 32, "digest_of": "content"}
WHOLE = {
    "name": "cifar10",
    "dir": "data/cifar10",
    "classes": 10,
    "train": SPLIT,
    "val": SPLIT,
    "bad": [],
}


def test_data_ls_says_where_each_is_looked_for(
    capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "cifar100").mkdir(parents=True)
    (tmp_path / "sets" / "cifar100" / "x").touch()
    monkeypatch.setenv("DGCCTL_DATA_DIR", str(tmp_path / "sets"))
    assert main.main(["data", "ls", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["data"]}
    assert {name: row["there"] for name, row in rows.items()} == {
        "fashion_mnist": "yes",
        "cifar10": "no",
        "cifar100": "yes",
        "imagenet": "no",
        "image_folder": "no",
    }
    assert rows["cifar10"]["dir"] == str(tmp_path / "sets" / "cifar10")


def test_data_verify_prints_counts_and_digests(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    asked = answering(monkeypatch, data, WHOLE)
    assert main.main(["data", "verify", "cifar10", "--full"]) == 0
    assert asked == [("dgc.jobs.data_sets", ["verify", "cifar10", "--full"])]
    assert f"train    5 images, sha256 {'ab' * 32} of content\n" in capsys.readouterr().out


def test_data_verify_lists_every_bad_file_and_ends_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    bad = [
        {"file": "train/a/1.jpg", "reason": "cut short"},
        {"file": "val/b/2.png", "reason": "bad CRC"},
    ]
    answering(monkeypatch, data, {**WHOLE, "bad": bad})
    assert main.main(["data", "verify", "cifar10"]) == 3
    said = capsys.readouterr()
    assert "train/a/1.jpg  cut short\nval/b/2.png    bad CRC\n" in said.out
    expected = (
        "error: data/cifar10: 2 files cannot be used: mend or remove them, or leave them out "
        "(--write-quarantine FILE)\n"
    )
    assert said.err == expected
    asked = answering(monkeypatch, data, {**WHOLE, "bad": bad})
    assert main.main(["data", "verify", "cifar10", "--write-quarantine", "/tmp/bad.txt"]) == 3
    assert asked == [
        ("dgc.jobs.data_sets", ["verify", "cifar10", "--write-quarantine=/tmp/bad.txt"])
    ]
    assert capsys.readouterr().err.endswith(
        "mend or remove them, or train with data.quarantine=/tmp/bad.txt\n"
    )


def test_what_data_refuses(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    assert (
        fails(capsys, 2, "data", "verify", "cifar")
        == "cifar: no such data set (did you mean cifar10?)"
    )
    line = fails(capsys, 2, "data", "verify", "zzz")
    assert (
        line
        == "zzz: no such data set (known: fashion_mnist, cifar10, cifar100, imagenet, image_folder)"
    )
    line = fails(capsys, 2, "data", "download", "imagenet")
    assert line.startswith("imagenet cannot be downloaded: it is got from image-net.org by hand")
    monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    line = fails(capsys, 6, "data", "download", "cifar10")
    assert (
        line == "cifar10: DGCCTL_OFFLINE forbids the network: unset it, or copy the data set to"
        " data/cifar10"
    )


def test_a_dry_download_fetches_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    asked = answering(monkeypatch, data, WHOLE)
    assert main.main(["data", "download", "cifar10", "--dry-run"]) == 0
    assert (asked, capsys.readouterr().err) == ([], "would fetch cifar10 into data/cifar10\n")


# --- doctor ---------------------------------------------------------------------------------------

TORCH = {
    "torch": "2.10.0+cpu",
    "torchvision": "0.25",
    "cuda_build": None,
    "cpu_capability": "AVX2",
    "threads": 2,
    "gpus": [],
}


def findings(
    monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], native: dict[str, Any]
) -> dict[str, Finding]:
    answering(monkeypatch, diagnosis, {"torch": {**TORCH, **torch}, "native": native})
    return {
        finding.name: finding for finding in diagnosis.examine(Path("runs"), say=lambda _: None)
    }


def test_doctor_on_a_machine_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"index": 0, "name": "Some GPU", "memory": 80 << 30, "capability": "9.0"}
    found = findings(
        monkeypatch,
        {"gpus": [gpu], "cuda_build": "13.2"},
        {"available": True, "isa": "avx2", "threads": 2},
    )
    assert found["GPU 0"].value == "Some GPU, 80 GiB, compute capability 9.0"
    assert found["native kernels"] == Finding("native kernels", "in use (isa avx2, threads 2)")
    assert {name for name, finding in found.items() if finding.level is Level.PROBLEM} <= {
        "memory",
        "packages",
    }


@pytest.mark.parametrize(
    ("system", "machine", "libc", "said", "level"),
    [
        (
            "Linux",
            "x86_64",
            ("glibc", "2.36"),
            "Linux x86_64 glibc 2.36 (everything was tried)",
            Level.OK,
        ),
        ("Linux", "aarch64", ("glibc", "2.34"), "plan files were tried in an emulator", Level.OK),
        ("Linux", "x86_64", ("glibc", "2.31"), "Linux x86_64 glibc 2.31 (not tried)", Level.NOTE),
        ("Linux", "x86_64", ("", ""), "Linux x86_64 (not tried)", Level.NOTE),
        ("Darwin", "arm64", ("", ""), "Darwin arm64 (not tried)", Level.NOTE),
        ("Windows", "AMD64", ("", ""), "Windows AMD64 (not tried)", Level.NOTE),
    ],
)
def test_doctor_claims_no_platform_that_was_not_tried(
    system: str, machine: str, libc: tuple[str, str], said: str, level: Level
) -> None:
    found = diagnosis.platform_finding(system, machine, libc)
    assert said in found.value
    assert found.level is level


def test_doctor_says_why_something_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, {}, {"available": False, "why_not": "no compiler"})
    assert found["native kernels"].level is Level.NOTE
    assert (
        found["native kernels"].advice
        == "no compiler: `pip install -e .` builds them where there is a C++ compiler"
    )
    assert found["GPU"].advice.startswith("a CPU build of torch: ")


def test_doctor_names_a_torch_that_loads_unsafely(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, {"torch": "2.9.1"}, {"available": True})
    assert found["torch"].level is Level.PROBLEM
    assert (
        found["torch"].advice
        == "older than 2.10 loads checkpoints unsafely: `pip install 'torch>=2.10'`"
    )


def test_doctor_survives_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> dict[str, Any]:
        raise DgcError("python -m dgc.jobs.doctor failed (ImportError: libfoo.so)")

    monkeypatch.setattr(diagnosis, "query", broken)
    found = {
        finding.name: finding for finding in diagnosis.examine(Path("runs"), say=lambda _: None)
    }
    assert found["torch"].level is Level.PROBLEM
    assert "libfoo.so" in found["torch"].advice
    assert "python" in found


def test_doctor_names_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(diagnosis.os, "access", lambda *_: False)
    answering(monkeypatch, diagnosis, {"torch": TORCH, "native": {"available": True}})
    found = {
        finding.name: finding
        for finding in diagnosis.examine(tmp_path / "runs", say=lambda _: None)
    }
    assert (
        found["runs folder"].advice
        == f"{tmp_path} cannot be written: set DGCCTL_RUNS_DIR to another folder"
    )


def test_doctor_ends_with_1_where_something_must_be_mended(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    bad = [
        Finding("python", "3.9", Level.PROBLEM, "use 3.11"),
        Finding("GPU", "none", Level.NOTE, "no GPU"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(bad))
    assert main.main(["doctor"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[1:] == ["problem  python  3.9", "note     GPU     none"]
    assert said.err == "note: GPU: no GPU\nerror: python: 3.9: use 3.11\n"
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(bad[1:]))
    assert main.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["level"] == "note"


def test_too_little_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available, total = 1 << 20, 1 << 30

    monkeypatch.setattr(diagnosis.psutil, "virtual_memory", Little)
    assert findings(monkeypatch, {}, {"available": True})["memory"].level is Level.PROBLEM


def test_errors_of_a_process_keep_their_code(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def broken(*_: Any, **__: Any) -> dict[str, Any]:
        raise ResourceError("no room")

    monkeypatch.setattr(data, "query", broken)
    assert fails(capsys, 7, "data", "verify", "cifar10") == "no room"
