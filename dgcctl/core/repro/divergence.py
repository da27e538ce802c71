"""Did two runs compute the same? Bitwise, and if not: where they part, and how far apart each
metric ends.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgc.errors import UsageError
from dgc.run.events import METRIC_KINDS, Event
from dgc.run.files import read_json
from dgc.run.paths import RunDir

_NOT_COMPARED = frozenset({"t", "crc"})


def plain_name(metric: str) -> str:
    """`eval.loss` as it is; `step` for the step of a step (`step.step`)."""
    kind, _, key = metric.partition(".")
    return kind if kind == key else metric


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
            f"first difference at step {self.step}: {plain_name(f'{self.kind}.{self.key}')} was"
            f" {self.recorded}, is now {self.repeated}"
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
        # what only one of them has is as far apart as can be
        if self.recorded is None or self.repeated is None:
            return math.inf
        return abs(self.recorded - self.repeated)

    @property
    def within(self) -> bool:
        """Within the tolerance asked for; where none was asked, equal."""
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
        # no rows are no proof: two empty logs are equal
        return self.first is None and not self.tensors and self.rows > 0

    @property
    def within(self) -> bool:
        """Whether every metric that was named is within its tolerance;
        the others are shown and do not count.

        Only where a tolerance was asked for: equal ends of unequal logs are no reproduction by
        themselves.
        """
        asked = [check for check in self.metrics if check.tolerance is not None]
        return bool(asked) and all(check.within for check in asked)

    @property
    def outside(self) -> list[str]:
        """The named metrics that are further off than was asked, with how far."""
        return [
            f"{check.name} is off by {check.difference:.6g}, allowed are {check.tolerance:g}"
            for check in self.metrics
            if check.tolerance is not None and not check.within
        ]

    @property
    def verdict(self) -> str:
        if self.bitwise:
            return "bitwise equal"
        return "within tolerance" if self.within else "not reproduced"


def first_difference(
    recorded: Sequence[Event], repeated: Sequence[Event]
) -> FirstDifference | None:
    """Where two lists of metric rows part (None:
    they are the same, to the last bit of every number).
    """
    # side by side as far as both go; a missing end is asked for afterwards
    for a, b in zip(recorded, repeated, strict=False):
        parted = _row_difference(a, b)
        if parted is not None:
            return parted
    if len(recorded) == len(repeated):
        return None
    # the first row that only one of them has
    longer = max(recorded, repeated, key=len)[min(len(recorded), len(repeated))]
    present, absent = f"{len(recorded)} rows", f"{len(repeated)} rows"
    return FirstDifference(str(longer["kind"]), int(longer["step"]), "row", present, absent)


def _row_difference(a: Event, b: Event) -> FirstDifference | None:
    # In the order of the row, so that the first key that differs is the first that was computed.
    for key in dict.fromkeys([*a, *b]):
        # `!=` is to the last bit here: the log holds the shortest text of each float, which reads
        # back to the very same number.
        if key not in _NOT_COMPARED and a.get(key) != b.get(key):
            return FirstDifference(
                str(a["kind"]), int(min(a["step"], b["step"])), key, a.get(key), b.get(key)
            )
    return None


def final_metrics(rows: Iterable[Event]) -> dict[str, float]:
    """The numbers of the last row of each kind, as `kind.key`."""
    # a dict keeps the last of each kind
    last = {row["kind"]: row for row in rows if row["kind"] in METRIC_KINDS}
    return {
        f"{kind}.{key}": value
        for kind, row in last.items()
        for key, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and key not in _NOT_COMPARED
    }


def check_metrics(
    recorded: Sequence[Event], repeated: Sequence[Event], tolerances: Mapping[str, float]
) -> list[MetricCheck]:
    """Every final metric of both; tolerances by `kind.metric`, metric or `*`.
    UsageError for an unknown metric.
    """
    a, b = final_metrics(recorded), final_metrics(repeated)
    names = sorted({*a, *b})
    # all names before any comparison: a misspelt tolerance would be no tolerance, in silence
    for key in tolerances:
        _require_known(key, names)
    return [
        MetricCheck(name, a.get(name), b.get(name), _tolerance(name, tolerances)) for name in names
    ]


def check_names(rows: Iterable[Event], tolerances: Mapping[str, float]) -> None:
    """Raise UsageError for a tolerance of a metric that the record has not:
    before anything is run again.
    """
    names = sorted(final_metrics(rows))
    for key in tolerances:
        _require_known(key, names)


def _require_known(key: str, names: Sequence[str]) -> None:
    short = dict.fromkeys(name.rpartition(".")[2] for name in names)
    if key == "*" or key in names or key in short:
        return
    near = difflib.get_close_matches(key, [*short, *names], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"metrics: {', '.join(names)}"
    raise UsageError(f"--tolerance {key}: no metric of the run is called so ({hint})")


def _tolerance(name: str, tolerances: Mapping[str, float]) -> float | None:
    # the most exact name counts first
    for key in (name, name.rpartition(".")[2], "*"):
        if key in tolerances:
            return tolerances[key]
    return None


def parse_tolerances(items: Iterable[str]) -> dict[str, float]:
    """`["top1_error=0.5", "0.01"]` -> {"top1_error": 0.5, "*": 0.01}. Raises UsageError."""
    found: dict[str, float] = {}
    for name, value in map(_tolerance_pair, items):
        if name in found:
            raise UsageError(f"--tolerance: {name} is given twice: say once how far it may be off")
        found[name] = value
    return found


def _tolerance_pair(item: str) -> tuple[str, float]:
    # from the right: a metric's name holds no `=`, and a number alone has none
    name, _, text = item.rpartition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(
            f"--tolerance {item}: expected METRIC=NUMBER or NUMBER with a number >= 0, as"
            " top1_error=0.5"
        )
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
    # last.json: both runs ended, so their last checkpoints are of the same step
    try:
        folder = run.path / str(read_json(run.last)["path"])
        files = read_json(folder / "MANIFEST.json").get("files", {})
    except FileNotFoundError:
        return {}
    return {name: _digest(entry) for name, entry in files.items() if name.endswith(".safetensors")}


def _digest(entry: Any) -> str:
    return str(entry["sha256"] if isinstance(entry, dict) else entry)
