"""What of a run goes to another tracker, the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dgc.run.paths import RunDir
from dgc.run.status import State
from dgc.talk import shown
from dgcctl.core.runs import labels
from dgcctl.core.runs.frames import numbers_of
from dgcctl.core.runs.record import RunRecord, read_record

# where a curve's name begins: whose figures they are
_FAMILY = {"step": "train", "eval": "eval", "epoch": "epoch"}


@dataclass(frozen=True)
class Point:
    """One figure of one step. `moment`: seconds since 1970."""

    curve: str
    step: int
    value: float
    moment: float


@dataclass(frozen=True)
class Outgoing:
    """A run as it leaves. `parameters`: its recipe, or its script's config, by dotted key.
    `results`: the figures of its last evaluation. `page`: its report, one HTML page.
    """

    id: str
    name: str
    title: str
    state: State
    reason: str
    began: float
    ended: float
    parameters: Mapping[str, Any]
    results: Mapping[str, float]
    points: tuple[Point, ...]
    page: str
    tags: tuple[str, ...] = ()
    note: str = ""
    commit: str = ""

    @property
    def last_step(self) -> int:
        return max((point.step for point in self.points), default=0)


def outgoing(run: RunDir) -> Outgoing:
    """Read a run for another tracker. Raises UsageError where the folder is no run, RecipeError or
    IntegrityError where it is damaged.
    """
    record = read_record(run)
    given = labels.read(run)
    status = record.status
    return Outgoing(
        id=run.id,
        name=str(record.recipe.get("name", run.id)),
        title=shown(str(record.recipe.get("title") or "")),
        state=record.state,
        reason=shown(status.reason),
        began=status.started,
        ended=status.heartbeat,
        parameters={key: plain(value) for key, value in record.recipe.items()},
        results=dict(numbers_of(record.metrics)),
        points=tuple(_points(record)),
        page=_page(record),
        tags=(*map(str, record.recipe.get("tags") or ()), *given.tags),
        note=shown(given.note),
        commit=str(record.git.get("commit") or ""),
    )


def _points(record: RunRecord) -> Iterator[Point]:
    for row in record.rows:
        for key, value in numbers_of(row):
            yield Point(f"{_FAMILY[row['kind']]}/{key}", int(row["step"]), value, float(row["t"]))


def _page(record: RunRecord) -> str:
    # matplotlib takes half a second to load
    from dgcctl.core.report.page import page
    from dgcctl.core.report.plots import plots
    from dgcctl.core.report.run_view import views

    shown_views = views([record])
    return page(shown_views, plots(shown_views))


def plain(value: Any) -> Any:
    """A parameter as every tracker keeps it: a number, a truth, or a text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return f"[{', '.join(str(plain(item)) for item in value)}]"
    return shown(str(value))
