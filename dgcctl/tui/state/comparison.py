"""Several runs against each other: rows of differences and of figures, from dgcctl.core (read off
the UI thread).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dgc.errors import DgcError
from dgc.run import metrics
from dgc.run.paths import RunDir
from dgcctl.core import numbers
from dgcctl.core.compare.rundiff import Difference, diff_runs
from dgcctl.core.compare.seeds import SeedGroup, Summary, compare, figures, other_data
from dgcctl.core.runs.record import RunRecord, read_record
from dgcctl.tui.state import curves, run_facts
from dgcctl.tui.state.sign import Sign
from dgcctl.tui.widgets.virtual_table import Cell, ListColumn, Row

MAX_PATCH = 400
_COSTS = ("macs_dense", "macs_promised", "macs_executed", "parameters")


@dataclass(frozen=True)
class ComparedRuns:
    """What was read of the runs; `problems` names those that could not be,
    and data that do not compare.
    """

    runs: list[RunRecord] = field(default_factory=list)
    groups: list[SeedGroup] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    patch: list[str] = field(default_factory=list)
    differences: list[tuple[str, str, tuple[object, ...]]] = field(default_factory=list)


def read(dirs: Sequence[RunDir]) -> ComparedRuns:
    """Read and compare. Never raises for a damaged run: it is left out and named."""
    found, problems = [], []
    for run in dirs:
        try:
            found.append(read_record(run))
        except (DgcError, OSError, ValueError, TypeError) as error:
            problems.append(f"{run.id}: {str(error).splitlines()[0]}")
    # all against the first: pairs of all with all would be more than anybody reads
    diffs = [diff_runs(found[0], other) for other in found[1:]]
    patch = [line for diff in diffs for line in diff.patch][:MAX_PATCH]
    return ComparedRuns(
        found,
        compare(found) if found else [],
        [*filter(None, [other_data(found)]), *problems],
        patch,
        _merged([d.differences for d in diffs]),
    )


def _merged(diffs: list[list[Difference]]) -> list[tuple[str, str, tuple[object, ...]]]:
    """One row a key: its value in the first run and in each other (where a run does not differ, the
    first one's).
    """
    names = dict.fromkeys((row.section, row.key) for diff in diffs for row in diff)
    rows = []
    for section, key in names:
        found = [
            next((row for row in diff if (row.section, row.key) == (section, key)), None)
            for diff in diffs
        ]
        first = next(row.a for row in found if row is not None)
        rows.append((section, key, (first, *(first if row is None else row.b for row in found))))
    return rows


# --- tables ---------------------------------------------------------------------------------------


def metric_columns() -> tuple[ListColumn, ...]:
    return (
        ListColumn("run", least=26), ListColumn("seed", 5, True, 4),
        ListColumn("top-1 error", 14, True),
        ListColumn("top-5 error", 13, True, 3), ListColumn("loss", 14, True, 5),
        ListColumn("dense", 7, True, 6),
        ListColumn("promised", 8, True, 2), ListColumn("executed", 8, True),
        ListColumn("images/s", 8, True, 1),
    )  # fmt: skip


def metric_rows(
    found: ComparedRuns,
    speed: dict[str, float | None],
    sign: Callable[[str], Sign],
    *,
    wide: bool,
) -> list[Row]:
    """Each group of seeds with mean, spread and n; below it its runs."""
    rows = []
    by_id = {run.id: run for run in found.runs}
    for index, group in enumerate(found.groups):
        rows.append(_group_row(index, group))
        for run_id in group.runs:
            name = run_id if wide else run_facts.short_id(run_id)
            rows.append(_run_row(by_id[run_id], sign(run_id), name, speed.get(run_id)))
        rows += [Row(f"note {index} {note}", ((f"  ! {note}", "warn"),)) for note in group.notes]
    return rows + [Row(problem, ((problem, "bad"),)) for problem in found.problems]


def _group_row(index: int, group: SeedGroup) -> Row:
    told = [_spread(group.metrics.get(name)) for name in metrics.ALWAYS]
    costs = [
        numbers.rough_count(group.metrics[name].mean) if name in group.metrics else "-"
        for name in _COSTS[:3]
    ]
    cells = (f"{group.label}  n={len(group.runs)}", "", *told, *costs, "")
    return Row(f"group {index}", tuple((cell, "head") for cell in cells))


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return f"{summary.mean:.3g}" + ("" if summary.std is None else f" ± {summary.std:.2g}")


def _run_row(run: RunRecord, sign: Sign, shown: str, images_per_s: float | None) -> Row:
    values = figures(run)
    errors = [f"{values[name]:.3g}" if name in values else "-" for name in metrics.ALWAYS]
    costs = [numbers.rough_count(values.get(name)) for name in _COSTS[:3]]
    name: Cell = (f"  {sign.letter} {shown}", f"s{sign.colour}")
    return Row(run.id, (name, str(run.seed), *errors, *costs, curves.shorten(images_per_s)))


def difference_columns(letters: Sequence[str]) -> tuple[ListColumn, ...]:
    return (ListColumn("in", 11), ListColumn("key", 24), *map(ListColumn, letters))


def difference_rows(found: ComparedRuns) -> list[Row]:
    rows = [
        Row(f"{section}.{key}", ((section, "dim"), key, *map(_shown, values)))
        for section, key, values in found.differences
    ]
    patch = [
        Row(f"patch {number}", (("code", "dim"), ("patch", "dim"), (line, _patch_role(line))))
        for number, line in enumerate(found.patch)
    ]
    return rows + patch + [Row(problem, ((problem, "bad"),)) for problem in found.problems]


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _patch_role(line: str) -> str:
    return {"+": "good", "-": "bad", "@": "accent"}.get(line[:1], "dim")
