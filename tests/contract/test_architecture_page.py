"""Files and folders that docs/architecture.md and comments in the code name: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
_PATH = re.compile(r"`((?:dgc|dgcctl|tests|benchmarks|docs|recipes)/[\w./-]*\w)/?`")
_MODULE = re.compile(r"`((?:dgc|dgcctl)(?:\.[a-z_0-9]+)+)`")


def missing(text: str) -> list[str]:
    """Paths and modules that a page names and that are not there."""
    paths = [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    return paths + [name for name in _MODULE.findall(text) if not _is_there(name)]


def _is_there(module: str) -> bool:
    """A module, or a name in one."""
    for name in (module, module.rpartition(".")[0]):
        place = ROOT / name.replace(".", "/")
        if place.is_dir() or place.with_suffix(".py").exists():
            return name == module or place.with_suffix(".py").exists()
    return False


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    assert missing((ROOT / page).read_text(encoding="utf-8")) == []


def test_a_path_that_is_gone_is_found() -> None:
    text = "`dgc/engine/fuse.py`, `dgc.records`, `dgc/infer`, `dgc.run.files.atomic_write`"
    assert missing(text) == ["dgc/engine/fuse.py", "dgc.records"]


def test_the_functions_of_the_walks_are_where_the_page_says() -> None:
    rows = re.findall(
        r"^ *\| `([\w./]+\.py)` \| (`[^|]+`) \|",
        (ROOT / PAGES[0]).read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) > 40
    wrong = [
        f"{name} in {path}"
        for path, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if not re.search(rf"(def|class) {name}\b|^{name}\b", _text(path), re.MULTILINE)
    ]
    assert wrong == []


_IN_CODE = re.compile(r"(?<![\w./-])((?:dgc|dgcctl|tests|benchmarks)/[\w/]+\.(?:py|h|cpp))(?!\w)")


def gone(text: str) -> list[str]:
    """Files that comments, docstrings and messages name, and that are not there."""
    return [path for path in _IN_CODE.findall(text) if not (ROOT / path).exists()]


def test_what_the_code_names_is_there() -> None:
    files = [p for folder in ("dgc", "dgcctl", "benchmarks") for p in (ROOT / folder).rglob("*")]
    sources = [path for path in files if path.suffix in (".py", ".h", ".cpp", ".cmake")]
    assert len(sources) > 400
    found = {
        str(path.relative_to(ROOT)): gone(path.read_text(encoding="utf-8")) for path in sources
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_a_file_that_is_gone_is_found_in_code() -> None:
    text = '"""As pool_room in dgc/infer/pools.py counts it; see dgc/infer/fuse.py."""'
    assert gone(text) == ["dgc/infer/pools.py"]


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
