"""Runs for a notebook: the filter language of the commands, and pandas' tables. No torch.

pandas is no dependency: it is asked for when a table is.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from dgc.errors import UsageError
from dgc.run.events import METRIC_KINDS, Event, EventKind, live_rows, read_events
from dgcctl.core import settings
from dgcctl.core.runs import filters
from dgcctl.core.runs.listing import UNREADABLE, Run, list_runs

_CLOCKS = frozenset({"age"})  # another value at each look
_LINE = frozenset({"kind", "crc", "nonfinite"})


class Runs(Sequence[Run]):
    """Runs that fitted a filter, the newest first: a sequence, with tables of pandas."""

    def __init__(self, found: Sequence[Run]) -> None:
        self._found = list(found)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._found[index]) if isinstance(index, slice) else self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        ids = ", ".join(run.id for run in self._found[:3])
        more = ", ..." if len(self) > 3 else ""
        return f"<{len(self)} run{'s' * (len(self) != 1)}{': ' * bool(ids)}{ids}{more}>"

    def frame(self) -> Any:
        """A pandas.DataFrame, one row a run: state, result, cost, every value of its recipe (or its
        script's config) by dotted key, tags and note. `started` is a moment in UTC.

        Raises UsageError where pandas is not installed.
        """
        pandas = _pandas()
        # what is another number at each look would make two equal tables differ
        rows = [
            {key: value for key, value in run.values.items() if key not in _CLOCKS}
            for run in self._found
        ]
        # what every run has comes first, then what belongs to some
        first = list(self._found[0].row()) if self._found else ["id", "state"]
        rest = sorted({key for row in rows for key in row} - set(first))
        table = pandas.DataFrame(rows, columns=[*first, *rest])
        if "started" in table:
            table["started"] = pandas.to_datetime(table["started"], unit="s", utc=True)
        return table

    def curves(self, kind: str = "step") -> Any:
        """A pandas.DataFrame of the figures that were logged, one row a logged `step` (or `eval`,
        or `epoch`): the run's id, step, epoch, the figures, and `t`, its moment. Rows that a
        resumed run computed again stand once.

        Raises UsageError where pandas is not installed, or for another kind.
        """
        if kind not in METRIC_KINDS:
            raise UsageError(
                f"curves({kind!r}): should be one of {', '.join(sorted(METRIC_KINDS))}"
            )
        pandas = _pandas()
        rows = [
            {"run": run.id, **figures(event)}
            for run in self._found
            if run.state != UNREADABLE
            for event in live_rows(read_events(run.dir))
            if event["kind"] == EventKind(kind)
        ]
        # without rows the columns would be unknown to those who ask for them
        table = pandas.DataFrame(rows, columns=None if rows else ["run", "step", "epoch", "t"])
        table["t"] = pandas.to_datetime(table["t"], unit="s", utc=True)
        return table


def runs(filter: str = "", *, runs_dir: Path | str | None = None) -> Runs:
    """The runs of a folder that fit a filter ("state=done lr>0.05",
    see `dgcctl runs ls`), the newest first.

    `runs_dir`: default $DGCCTL_RUNS_DIR, the project file dgcctl.toml, or ./runs, as for commands.
    Raises UsageError for a filter that cannot be read, or a folder that was named and is not there.
    """
    # as the commands find it, but the environment stays as it is: a notebook lives on
    folder = _folder(runs_dir)
    return Runs(filters.select(list_runs(folder), filters.parse_filter(filter)))


def _folder(given: Path | str | None) -> Path:
    """Where commands that are typed here would look."""
    if given is not None:
        if not Path(given).is_dir():
            raise UsageError(f"{given}: no such folder (runs_dir): check the path")
        return Path(given)
    of_project = settings.runs_dir_of_project()
    return settings.present_runs_dir() if of_project is None else of_project


def figures(event: Event) -> dict[str, Any]:
    """What an event of the log says, with its NaN and infinities, which JSON cannot hold."""
    odd = {key: float(text) for key, text in (event.get("nonfinite") or {}).items()}
    return {**{key: value for key, value in event.items() if key not in _LINE}, **odd}


def numbers_of(event: Event) -> Iterator[tuple[str, float]]:
    """The figures of an event that are numbers, NaN and infinities too, without its place."""
    for key, value in figures(event).items():
        if key in ("step", "epoch", "t") or isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            yield key, float(value)


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ModuleNotFoundError:
        # from None: the import error says nothing more than the sentence
        raise UsageError("a table needs pandas: pip install 'dgcctl[pandas]'") from None
