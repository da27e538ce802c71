"""The rules of CONTRIBUTING.md that a machine can hold: import contracts, interpreters that stay
light, and the text of the sources.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import structure
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "textual", "dvc", "matplotlib", "numpy")

# What dgcctl may use of dgc, and each must stand without torch.
LIGHT = (
    "dgc",
    "dgc.errors",
    "dgc.settings",
    "dgc.schedule",
    "dgc.talk",
    "dgc.recipe.load",
    "dgc.run.checkpoint_store",
    "dgc.run.events",
    "dgc.run.files",
    "dgc.run.lock",
    "dgc.run.paths",
    "dgc.run.provenance",
    "dgc.run.status",
    "dgc.hub.registry",
    "dgc.hub.fetch",
)


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_of(package: str) -> list[str]:
    folder = ROOT / package.replace(".", "/")
    paths = (path.relative_to(ROOT).with_suffix("") for path in sorted(folder.rglob("*.py")))
    return [
        ".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"
    ]


# --- import contracts -----------------------------------------------------------------------------


# An editable installation would lead the linter back to the checkout.
LINT = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
sys.path.insert(0, sys.argv.pop(1))
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            LINT,
            str(folder),
            "--config",
            str(folder / "pyproject.toml"),
            "--no-cache",
        ],
        cwd=folder,
        env={"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources that may be broken."""
    folder = tmp_path_factory.mktemp("sources")
    for package in ("dgc", "dgcctl"):
        shutil.copytree(ROOT / package, folder / package, ignore=lambda _, names: _no_source(names))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _no_source(names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


def test_all_import_contracts_hold(copied: Path) -> None:
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("dgc/schedule.py", "import torch", "no torch in recipes"),
        (
            "dgcctl/core/runs/listing.py",
            "from dgc.layers import DynamicGroupConv2d",
            "the manager never imports torch",
        ),
        ("dgc/layers/__init__.py", "import dgc.models", "the science"),
        ("dgcctl/core/runs/tail.py", "import typer", "typer only in dgcctl.cli"),
    ],
)
def test_a_broken_import_rule_is_noticed(copied: Path, file: str, line: str, contract: str) -> None:
    path = copied / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        done = lint_imports(copied)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert re.search(rf"{re.escape(contract)}.*BROKEN", done.stdout), done.stdout


# --- clean interpreters ---------------------------------------------------------------------------

LOADED = """
import importlib, json, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""


@pytest.mark.parametrize("module", LIGHT)
def test_what_the_manager_uses_of_dgc_loads_nothing_heavy(module: str) -> None:
    assert json.loads(run_python(LOADED, json.dumps(HEAVY), module)) == []


def test_no_command_loads_torch_textual_or_dvc() -> None:
    """All modules of the manager but the dashboard's, imported in one process."""
    modules = [*modules_of("dgcctl.core"), *modules_of("dgcctl.cli")]
    assert len(modules) > 20
    # `report` draws with matplotlib, and nothing else loads it
    heavy = ["torch", "torchvision", "textual", "dvc"]
    assert json.loads(run_python(LOADED, json.dumps(heavy), *modules)) == []


def test_the_dashboard_loads_no_torch() -> None:
    assert (
        json.loads(run_python(LOADED, json.dumps(["torch", "dvc"]), *modules_of("dgcctl.tui")))
        == []
    )


# --- texts ----------------------------------------------------------------------------------------


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_output_alone_writes_stdout_and_diagnostics_alone_stderr() -> None:
    found = []
    for path, tree in sources("dgcctl/cli", "dgcctl/core"):
        if path.name in ("output.py", "diagnostics.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _writes(ast.unparse(node.func)):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}")
    assert found == []


def test_every_program_of_dgc_speaks_through_one_file() -> None:
    """dgc/talk.py: it shows what a message holds; tracebacks too, where a program begins there."""
    found = []
    for path, tree in sources("dgc"):
        name = path.relative_to(ROOT)
        for node in ast.walk(tree) if path.name != "talk.py" else []:
            if isinstance(node, ast.Call) and _writes(ast.unparse(node.func)):
                found.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}")
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                begins = ast.unparse(node.body[-1]).startswith("run_program(")
                found += [] if begins else [f"{name}:{node.lineno}: begins without run_program"]
    assert found == []


def _writes(name: str) -> bool:
    return name in ("print", "typer.echo", "typer.secho") or bool(
        re.match(r"sys\.std(out|err)\.(write|buffer)", name)
    )


@pytest.mark.parametrize("package", ["dgc", "dgcctl"])
def test_a_file_and_a_class_have_a_name_of_their_own_in_their_package(package: str) -> None:
    """Who reads a name, or searches for it, means one thing."""
    found = structure.measure(ROOT / package)
    names = {**found.names, **{f"class {name}": count for name, count in found.classes.items()}}
    assert [name for name, count in names.items() if count > 1] == []


def test_no_global_statement() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources("dgc", "dgcctl")
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    assert found == []


def test_functions_are_short_and_files_hold_one_idea() -> None:
    """Median of at most 10 lines, at most 60 each, nearly all at most 40; files of at most 400
    lines.
    """
    lengths: dict[str, int] = {}
    long_files = []
    for path, tree in sources("dgc", "dgcctl"):
        name = str(path.relative_to(ROOT))
        if len(path.read_text(encoding="utf-8").splitlines()) > 400:
            long_files.append(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{name}:{node.lineno} {node.name}"] = (
                    (node.end_lineno or node.lineno) - node.lineno + 1
                )
    ordered = sorted(lengths.values())
    assert long_files == []
    assert ordered[len(ordered) // 2] <= 10
    assert [name for name, length in lengths.items() if length > 60] == []
    assert sum(length > 40 for length in ordered) <= 0.02 * len(ordered)


def tracked_texts() -> Iterator[tuple[str, str]]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = done.stdout.decode().split("\0") if done.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [
        path for path in ROOT.rglob("*") if path.is_file()
    ]
    for path in paths:
        if path.is_file() and path != Path(__file__).resolve() and ".venv" not in path.parts:
            try:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


FORBIDDEN = re.compile(
    r"\b(TODO|FIXME|XXX|HACK)\b|raise"
    r" NotImplementedError\b|pytest\.skip\(\)|(?<![\w.<$}])/(home|root|Users)/\w"
    r"|weights_only\s*=\s*False(?!\s*anywhere)",
    re.IGNORECASE,
)
# Texts that must name what they forbid.
NAMES_IT = {
    "tests/contract/test_source_rules.py",
    "tests/faults/test_hostile.py",
    "CONTRIBUTING.md",
    "docs/checkpoints.md",
}


def test_nothing_unfinished_and_nothing_of_one_machine_in_the_texts() -> None:
    found = [
        f"{name}:{number}: {match[0]}"
        for name, text in tracked_texts()
        if name not in NAMES_IT and not name.endswith((".svg", ".html", ".lock"))
        for number, line in enumerate(text.splitlines(), 1)
        if (match := FORBIDDEN.search(line))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "# TODO later",
        "raise NotImplementedError",
        "see /home/someone/dgc",
        "torch.load(f, weights_only=False)",
    ],
)
def test_the_forbidden_words_are_found(line: str) -> None:
    assert FORBIDDEN.search(line)
