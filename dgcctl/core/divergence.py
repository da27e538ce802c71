"""Did two runs compute the same? Bitwise, and if not: where they part, and how far apart each metric ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgc.errors import UsageError
from dgc.records import METRIC_KINDS, Event, RunDir, read_json

_NOT_COMPARED = frozenset({"t", "crc"})


@dataclass(frozen=True)
class FirstDifference:
    """The first metric row in which two runs part."""

    kind: str
    step: int
    key: str
    recorded: Any
    repeated: Any

    def __str__(self) -> str:
        return (
            f"first difference at step {self.step}: {self.kind}.{self.key} was {self.recorded}, is now {self.repeated}"
        )


@dataclass(frozen=True)
class MetricCheck:
    """One final metric of both runs. `within` is None where no tolerance was asked."""

    name: str
    recorded: float | None
    repeated: float | None
    tolerance: float | None

    @property
    def difference(self) -> float:
        if self.recorded is None or self.repeated is None:
            return math.inf
        return abs(self.recorded - self.repeated)

    @property
    def within(self) -> bool:
        return self.difference <= (self.tolerance or 0.0)


@dataclass(frozen=True)
class Comparison:
    """What a repetition showed."""

    rows: int
    first: FirstDifference | None
    tensors: list[str] = field(default_factory=list)
    metrics: list[MetricCheck] = field(default_factory=list)

    @property
    def bitwise(self) -> bool:
        return self.first is None and not self.tensors and self.rows > 0

    @property
    def within(self) -> bool:
        """Only where a tolerance was asked for: equal ends of unequal logs are no reproduction by themselves."""
        asked = any(check.tolerance is not None for check in self.metrics)
        return asked and all(check.within for check in self.metrics)

    @property
    def verdict(self) -> str:
        if self.bitwise:
            return "bitwise equal"
        return "within tolerance" if self.within else "not reproduced"


def first_difference(recorded: Sequence[Event], repeated: Sequence[Event]) -> FirstDifference | None:
    """Where two lists of metric rows part (None: they are the same, to the last bit of every number)."""
    for a, b in zip(recorded, repeated, strict=False):
        parted = _row_difference(a, b)
        if parted is not None:
            return parted
    if len(recorded) == len(repeated):
        return None
    longer = max(recorded, repeated, key=len)[min(len(recorded), len(repeated))]
    present, absent = f"{len(recorded)} rows", f"{len(repeated)} rows"
    return FirstDifference(str(longer["kind"]), int(longer["step"]), "row", present, absent)


def _row_difference(a: Event, b: Event) -> FirstDifference | None:
    for key in dict.fromkeys([*a, *b]):
        if key not in _NOT_COMPARED and a.get(key) != b.get(key):
            return FirstDifference(str(a["kind"]), int(min(a["step"], b["step"])), key, a.get(key), b.get(key))
    return None


def final_metrics(rows: Iterable[Event]) -> dict[str, float]:
    """The numbers of the last row of each kind, as `kind.key`."""
    last = {row["kind"]: row for row in rows if row["kind"] in METRIC_KINDS}
    return {
        f"{kind}.{key}": float(value)
        for kind, row in last.items()
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in _NOT_COMPARED
    }


def check_metrics(
    recorded: Sequence[Event], repeated: Sequence[Event], tolerances: Mapping[str, float]
) -> list[MetricCheck]:
    """Every final metric of both; tolerances by metric name or `*`."""
    a, b = final_metrics(recorded), final_metrics(repeated)
    return [MetricCheck(name, a.get(name), b.get(name), _tolerance(name, tolerances)) for name in sorted({*a, *b})]


def _tolerance(name: str, tolerances: Mapping[str, float]) -> float | None:
    for key in (name, name.rpartition(".")[2], "*"):
        if key in tolerances:
            return tolerances[key]
    return None


def parse_tolerances(items: Iterable[str]) -> dict[str, float]:
    """`["top1_error=0.5", "0.01"]` -> {"top1_error": 0.5, "*": 0.01}. Raises UsageError."""
    return dict(_tolerance_pair(item) for item in items)


def _tolerance_pair(item: str) -> tuple[str, float]:
    name, _, text = item.rpartition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"--tolerance {item}: expected METRIC=NUMBER or NUMBER with a number >= 0, as top1_error=0.5")
    return name or "*", value


def tensor_differences(recorded: RunDir, repeated: RunDir) -> list[str]:
    """Files of the last checkpoints whose digests differ ([] where all are equal)."""
    return list(_differing_files(last_manifest(recorded), last_manifest(repeated)))


def _differing_files(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            yield name


def last_manifest(run: RunDir) -> dict[str, str]:
    """File name -> SHA-256 of the tensor files of the last checkpoint ({} where there is none)."""
    try:
        folder = run.path / str(read_json(run.last)["path"])
        files = read_json(folder / "MANIFEST.json").get("files", {})
    except FileNotFoundError:
        return {}
    return {name: _digest(entry) for name, entry in files.items() if name.endswith(".safetensors")}


def _digest(entry: Any) -> str:
    return str(entry["sha256"] if isinstance(entry, dict) else entry)
