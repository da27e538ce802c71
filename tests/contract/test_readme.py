"""What the README shows is what happens: its commands and its code are run, its figures are the
known ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dgcctl.cli.main import build
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Put behind each `train`, so that a test of the README takes seconds.
SMALL = (
    *("model.stages=[1,1]", "model.growth=[8,8]", "train.max_steps=3", "train.batch_size=16"),
    *("data.limit_train=64", "data.limit_val=20", "train.threads=1"),
)


def blocks(language: str, *, run: bool = True) -> Iterator[str]:
    for skipped, name, text in BLOCK.findall(README):
        if name == language and run is not bool(skipped):
            yield text


def commands(*, run: bool) -> list[str]:
    lines = [line for text in blocks("bash", run=run) for line in text.splitlines()]
    return [line for line in lines if line.startswith("dgcctl ")]


def every_command() -> list[str]:
    inline = re.findall(r"`(dgcctl [a-z][^`]*)`", README)
    return [*commands(run=True), *commands(run=False), *inline]


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "DGCCTL_RUNS_DIR": str(folder / "runs"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )


def test_its_commands_run_in_their_order(playground: Path) -> None:
    """One after the other: later ones use the run that an earlier one made."""
    assert len(commands(run=True)) >= 8
    for line in commands(run=True):
        words = shlex.split(line)[1:]
        small = SMALL if words[0] == "train" else ()
        done = call([sys.executable, "-m", "dgcctl", *words, *small], playground)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout, line


def test_its_make_targets_exist() -> None:
    targets = [
        line.split()[1]
        for text in blocks("bash")
        for line in text.splitlines()
        if line.startswith("make ")
    ]
    assert targets == ["demo", "test"]
    for target in targets:
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", every_command())
def test_each_command_it_names_is_a_command(line: str) -> None:
    """Also those that need data or GPUs: the words are parsed as the program would."""
    words = shlex.split(line.replace("...", "").replace(" RUN", " latest"))[1:]
    node: Any = typer.main.get_command(build())
    while hasattr(node, "list_commands"):
        node = node.get_command(None, words[0])
        assert node is not None, line
        words = words[1:]
        if not words and hasattr(node, "list_commands"):
            return
    node.make_context("dgcctl", words)


def test_its_code_runs(playground: Path) -> None:
    codes = list(blocks("python"))
    assert codes
    for code in codes:
        done = call([sys.executable, "-c", code.replace("range(100)", "range(3)")], playground)
        assert done.returncode == 0, done.stderr


def test_it_quotes_the_published_figures_and_no_others() -> None:
    """The table, from the recipes' own `expect`, whose figures have a source."""
    from dgc.recipe.load import find_recipe, load_recipe

    section = README.partition("## The paper's recipes")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", section, re.MULTILINE))
    assert sorted(rows) == [
        "cifar100_h4",
        "cifar10_h4",
        "imagenet_condensenet_h4",
        "imagenet_resnet18_h4",
    ]
    for name, shown in rows.items():
        expected = {row.metric: row.value for row in load_recipe(find_recipe(name)).expect}
        first, second = (text.strip() for text in shown.split("/"))
        assert float(first.removesuffix(" %")) == expected["top1_error"]
        if second == "-":
            assert "top5_error" not in expected
        else:
            assert float(second.removesuffix(" %")) == expected["top5_error"]


ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "eager": "PyTorch"}


def test_its_speeds_are_those_of_the_report() -> None:
    """Each row is computed again from the rows of one run."""
    report = json.loads((ROOT / "benchmarks/results/inference-intel-xeon-vnni.json").read_text())
    section = README.partition("x best dense, any precision")[2].partition("\n\n")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    assert len(lines) == 12
    network = ""
    for name, batch, threads, int8, any_precision, float32, same, eager in lines:
        network = name.partition(" ")[0] or network
        rows = [
            row
            for row in report["rows"]
            if (row["network"], row["batch"], row["threads"]) == (network, int(batch), int(threads))
            and row["median"]
        ]
        ms = {row["name"]: row["median"] for row in rows}
        dense = [row for row in rows if row["variant"] == "dense"]
        best, best_float = (
            min(found, key=lambda row: row["median"])
            for found in (dense, [row for row in dense if row["precision"] == "float32"])
        )
        assert int8 == f"{ms['native_int8']:.2f}"
        assert float32 == f"{ms['native']:.2f}"
        told = f"{best['median'] / ms['native_int8']:.2f} ({ENGINES[best['engine']]}, "
        assert any_precision.startswith(told)
        assert best["precision"] in any_precision
        assert ("and bf16" in any_precision) == ("rest" in best["more"])
        by = ENGINES[best_float["engine"]]
        assert same == f"{best_float['median'] / ms['native']:.2f} ({by})"
        assert eager == f"{ms['dense_eager'] / ms['native']:.2f}"


def test_its_speeds_of_converted_networks_are_those_of_the_report() -> None:
    report = json.loads((ROOT / "benchmarks/results/foreign-intel-xeon-avx512.json").read_text())
    rows = {
        (row["network"].partition("/")[2], row["more"]["gate_factor"], row["threads"]): row
        for row in report["rows"]
        if "gate_factor" in row["more"]
    }
    section = README.partition("| network, channels kept |")[2].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines()[2:]]
    assert len(lines) * 4 == len(rows) == 32
    for name, *told in lines:
        wanted = [rows[name, kept, threads] for kept in (0.25, 0.5) for threads in (1, 2)]
        assert told == [f"{1 / row['ratio']:.2f}" for row in wanted], name
        assert all(7 <= row["n"] <= 13 for row in wanted)


@pytest.mark.parametrize("page", ["README.md", "docs/int8.md"])
def test_speeds_in_bytes_on_zen_4_are_those_of_the_report(page: str) -> None:
    report = json.loads((ROOT / "benchmarks/results/inference-amd-epyc-avx512.json").read_text())
    cells: dict[str, dict[tuple[int, int], dict[str, float]]] = {}
    for row in report["rows"]:
        cell = cells.setdefault(row["network"], {}).setdefault((row["batch"], row["threads"]), {})
        cell[row["name"]] = row["median"]
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    for network, found in cells.items():
        times = [
            min(ms for name, ms in cell.items() if name.startswith("dense")) / cell["native_int8"]
            for _, cell in sorted(found.items())
        ]
        if page == "README.md":
            told = re.search(rf"([\d.]+) to ([\d.]+)(?: times)? \({network}\)", text)
            assert told
            assert told.groups() == (f"{min(times):.2f}", f"{max(times):.2f}")
        else:
            assert f"{network} {', '.join(f'{one:.2f}' for one in times)}" in text


def test_speeds_without_vnni_are_those_of_the_report() -> None:
    file = "benchmarks/results/inference-intel-xeon-forced-avx2.json"
    told = " ".join((ROOT / "docs/int8.md").read_text(encoding="utf-8").split())
    for network in ("condensenet", "densenet86", "resnet18"):
        times = []
        for batch in (1, 32):
            ms = {
                row["name"]: row["median"]
                for row in json.loads((ROOT / file).read_text())["rows"]
                if (row["network"], row["batch"], row["threads"]) == (network, batch, 1)
            }
            dense = min(took for name, took in ms.items() if name.startswith("dense"))
            times.append(f"{dense / ms['native_int8']:.2f}")
        assert re.search(rf"{times[0]} and {times[1]}(?: times)? \({network}\)", told), network


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


# --- the fault table ------------------------------------------------------------------------------

GROUPS = {  # the README's rows, by rows of the list of faults
    "recipes": range(1, 8),
    "data": range(8, 13),
    "downloads": range(13, 21),
    "foreign and own checkpoints": range(21, 27),
    "durability and resume": range(27, 34),
    "locks, logs and the dashboard": range(34, 37),
    "signals, ranks, NaN, memory": range(37, 41),
}


def table_rows(path: Path) -> list[list[str]]:
    lines = path.read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ]


def test_the_fault_table_is_the_sum_of_the_suites_own() -> None:
    cases = [row for row in table_rows(ROOT / "docs" / "faults.md") if row[0].isdigit()]
    shown = {
        row[0].partition(":")[0]: row[1:]
        for row in table_rows(ROOT / "README.md")
        if row[-1].endswith(" s")
    }
    for name, numbers in GROUPS.items():
        own = [row for row in cases if int(row[0]) in numbers]
        runs, passed = (sum(int(row[column]) for row in own) for column in (2, 3))
        worst = max(float(row[4].removesuffix(" s")) for row in own)
        assert shown[name] == [f"{runs:,}", f"{passed:,}", f"{worst:.1f} s"], name
