"""What differs between two runs: recipe, code, data, environment, and the results that followed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dgc.run.files import read_bounded
from dgc.run.paths import RunDir
from dgcctl.core.compare.seeds import figures
from dgcctl.core.runs.recipe_values import flatten
from dgcctl.core.runs.record import RunRecord

# Facts of the moment, not of the environment: they differ between any two runs.
_MOMENTARY = frozenset(
    {"pid", "start_token", "boot", "time", "started", "hostname_pid", "argv", "run_dir"}
)


# Recorded later than the rest: an older record that lacks them does not differ in them.
_LATER = frozenset({"kernel_features", "kernels_built_from"})


@dataclass(frozen=True)
class Difference:
    """One key: in which section, its name, and both values (None where it is absent)."""

    section: str
    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class RunDiff:
    a: str
    b: str
    differences: list[Difference] = field(default_factory=list)
    patch: list[str] = field(default_factory=list)

    def section(self, name: str) -> list[Difference]:
        return [row for row in self.differences if row.section == name]


def diff_runs(a: RunRecord, b: RunRecord) -> RunDiff:
    """Compare two runs. `patch` is a unified diff
    of their uncommitted changes (patches and untracked files).
    """
    differences = [
        *_section("recipe", _values(a), _values(b)),
        *_section("code", _code(a), _code(b)),
        *_section("data", _flat(a.data), _flat(b.data)),
        *_section("environment", *_comparable(_flat(a.env), _flat(b.env))),
        *_section("result", figures(a), figures(b)),
    ]
    return RunDiff(a.id, b.id, differences, list(_patch_lines(a, b)))


def _section(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    # in the order of the first run, then what only the second has
    for key in dict.fromkeys([*a, *b]):
        if a.get(key) != b.get(key):
            yield Difference(name, key, a.get(key), b.get(key))


def _comparable(a: dict[str, Any], b: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    # in one record and not in the other: that says when it was written, not how it ran
    alone = _LATER & (a.keys() ^ b.keys())
    first, second = (
        {key: value for key, value in side.items() if key not in alone} for side in (a, b)
    )
    return first, second


def _values(run: RunRecord) -> dict[str, Any]:
    """The recipe without the reasons given for its values."""
    # why a value was chosen changes nothing that is computed
    return {key: value for key, value in run.recipe.items() if key != "origin"}


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: inner
        for key, inner in flatten(value).items()
        if key.rpartition(".")[2] not in _MOMENTARY
    }


def _code(run: RunRecord) -> dict[str, Any]:
    return {key: value for key, value in _flat(run.git).items() if not isinstance(value, list)}


def code_files(run: RunDir) -> dict[str, str]:
    """The uncommitted sources a run recorded:
    `git.patch` and every file below `untracked/`, as text.
    """
    untracked = run.file("untracked")
    files = [
        run.file("git.patch"),
        *sorted(path for path in untracked.rglob("*") if path.is_file()),
    ]
    return {
        # bounded and never raw: a record may come from anybody
        str(path.relative_to(run.path)): read_bounded(path).decode("utf-8", errors="replace")
        for path in files
        if path.is_file()
    }


def _patch_lines(a: RunRecord, b: RunRecord) -> Iterator[str]:
    old, new = code_files(a.run), code_files(b.run)
    for name in sorted({*old, *new}):
        lines = difflib.unified_diff(
            old.get(name, "").splitlines(),
            new.get(name, "").splitlines(),
            f"{a.id}/{name}",
            f"{b.id}/{name}",
            lineterm="",
        )
        yield from lines
