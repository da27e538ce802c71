"""The report as one HTML text. What stands in it is made here; how it is set,
in page.html.jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from dgc.talk import shown
from dgcctl.core.compare.seeds import (
    COST_KEYS,
    RESULT_KEYS,
    SeedGroup,
    Summary,
    compare,
    figure_names,
    other_data,
)
from dgcctl.core.numbers import figure
from dgcctl.core.report.plots import Plot, colour, expectations
from dgcctl.core.report.run_view import RunView
from dgcctl.core.runs import labels
from dgcctl.core.runs.listing import end_of_schedule, evaluated_macs
from dgcctl.core.runs.record import few_images


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place. `mark`: its CSS class, or `code`; `swatch`: a colour."""

    text: str
    mark: str = ""
    swatch: str = ""


@dataclass(frozen=True)
class PageTable:
    """Titles and rows; the last `numbers` columns are figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: int = 0


@dataclass(frozen=True)
class Section:
    """A heading with a table or a picture under it, a sentence, a list of notes."""

    title: str
    table: PageTable | None = None
    text: str = ""
    notes: Sequence[str] = ()
    svg: Markup | None = None


def page(views: Sequence[RunView], drawn: Sequence[Plot]) -> str:
    """The whole page. What comes from records is escaped by the template, all of it."""
    # one recipe gives the page its title; of several their names do
    recipes = list(dict.fromkeys(str(view.facts.recipe["name"]) for view in views))
    title = views[0].facts.recipe.get("title") if len(recipes) == 1 else ""
    made: list[Section | None] = [_results(views), _verdicts(views), *map(_picture, drawn)]
    made += [_cost(views), _settings(views), _runs(views), _environment(views)]
    return _template().render(
        heading=str(title) if title else ", ".join(recipes),
        subtitle=_subtitle(views),
        sections=[section for section in made if section is not None],
    )


@cache
def _template() -> Template:
    # beside this file: the template is part of the package
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, and not an empty place
        finalize=_without_controls,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja")


def _without_controls(value: object) -> object:
    """Control characters of a record written out; what is HTML already stays."""
    # what is Markup was made here, of parts that were escaped
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _subtitle(views: Sequence[RunView]) -> str:
    groups = len({view.group for view in views})
    counted = f"{len(views)} run{'s' if len(views) > 1 else ''}"
    text = f"{counted} of {groups} recipes" if groups > 1 else counted
    data = ", ".join(dict.fromkeys(_data_text(view) for view in views))
    return f"{text}. Data: {data}."


def _data_text(view: RunView) -> str:
    data = view.facts.data
    counts = [f"{data[key]:,} {key}" for key in ("train", "val") if isinstance(data.get(key), int)]
    digest = str(data.get("digest", ""))[:12]
    # facts of data sets of one's own may lack any of these
    return " ".join(
        [
            str(view.facts.recipe.get("data.name")),
            *counts,
            *([f"(digest {digest})"] if digest else []),
        ]
    )


# --- tables ---------------------------------------------------------------------------------------

Show = Callable[[float], str]


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]], numbers: int = 0) -> PageTable:
    """A table of texts and cells."""
    made = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return PageTable(head, made, numbers)


def _spread(summary: Summary | None, show: Show) -> str:
    if summary is None:
        return "-"
    return (
        f"{show(summary.mean)} ± {show(summary.std)}"
        if summary.std is not None
        else show(summary.mean)
    )


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _millions(value: float) -> str:
    return f"{value / 1e6:.3f}"


_RESULT: tuple[tuple[str, str, Show], ...] = (
    ("top1_error", "top-1 error %", _percent),
    ("top5_error", "top-5 error %", _percent),
    ("macs_dense", "MACs dense, M", _millions),
    ("macs_promised", "promised, M", _millions),
    ("macs_executed", "executed, M", _millions),
    ("parameters", "parameters, M", _millions),
)


def _results(views: Sequence[RunView]) -> Section:
    groups = compare([view.facts for view in views])
    names = {view.facts.id: view for view in views}
    shown = _columns(groups)
    rows = [_result_row(group, names[group.runs[0]], shown) for group in groups]
    head = ["recipe", *(title for _, title, _ in shown), "n"]
    # of single runs there is no spread, and the sentence would only ask for one
    spread = any(summary.std is not None for group in groups for summary in group.metrics.values())
    return Section(
        "Result",
        table(head, rows, numbers=len(head) - 1),
        "Mean ± sample standard deviation over n seeds." if spread else "",
        [
            *filter(None, [other_data([view.facts for view in views])]),
            *(f"{group.label}: {note}" for group in groups for note in group.notes),
        ],
    )


def _columns(groups: Sequence[SeedGroup]) -> list[tuple[str, str, Show]]:
    """Those of all runs, and behind the errors what scripts called their own."""
    known = {*RESULT_KEYS, *COST_KEYS}
    names = [name for name in figure_names(group.metrics for group in groups) if name not in known]
    # of a script that has no error, its loss is all there may be
    if not any("top1_error" in group.metrics for group in groups):
        names[:0] = ["loss"] if any("loss" in group.metrics for group in groups) else []
    own: list[tuple[str, str, Show]] = [(name, name, figure) for name in names]
    return [*_RESULT[:2], *own, *_RESULT[2:]]


def _result_row(
    group: SeedGroup, view: RunView, shown: Sequence[tuple[str, str, Show]]
) -> list[str | Cell]:
    # runs of a group may lack a figure; the most that any figure has is what it rests on
    n = max((summary.n for summary in group.metrics.values()), default=0)
    return [
        Cell(view.label, swatch=colour(view.group)),
        *(_spread(group.metrics.get(key), show) for key, _, show in shown),
        str(n),
    ]


def _verdicts(views: Sequence[RunView]) -> Section:
    rows = [
        _verdict_row(view, row) for view in views for row in view.facts.verdict.get("verdicts", [])
    ]
    if rows:
        head = ["run", "metric", "source", "expected", "found", "verdict"]
        return Section("Verdict", table(head, rows))
    asked = any(expectations(view) for view in views)
    missing = "The recipe expects a figure, but no run has been held against it."
    return Section("Verdict", text=missing if asked else "No figure was expected.")


def _verdict_row(view: RunView, row: dict[str, Any]) -> list[str | Cell]:
    mark = Cell("reached", "ok") if row.get("passed") else Cell("missed", "miss")
    expected = f"≤ {_figure_text(row.get('expected'))} + {_figure_text(row.get('tolerance'))}"
    named = [str(text) for text in (view.facts.id, row.get("metric", "-"), row.get("source", "-"))]
    found = _figure_text(row.get("value")) + few_images(view.facts.recipe, view.facts.run)
    return [*named, expected, found, mark]


def _picture(plot: Plot) -> Section:
    # Markup: matplotlib drew it, and wrote the texts in it as XML
    return Section(plot.title, text=plot.caption, svg=Markup(plot.svg()))


def _cost(views: Sequence[RunView]) -> Section | None:
    # reversed, so that the first run of each group is the one that stays
    first = {view.group: view for view in reversed(views)}
    rows = [_cost_row(first[group]) for group in sorted(first) if _macs(first[group])]
    if not rows:
        return None
    head = ["recipe", "dense", "promised", "executed", "dense / executed", "parameters"]
    text = (
        "Multiply-accumulates for one image, of the network that was evaluated last. Dense: the"
        " same network without gates. Promised: the authors' counter. Executed: what the gathered"
        " computation really multiplies, gates included."
    )
    return Section("Cost", table(head, rows, numbers=5), text)


def _macs(view: RunView) -> dict[str, Any]:
    """Of the result, where there is one; else as they will be at the end of the schedule."""
    return evaluated_macs(view.facts.metrics) or end_of_schedule(view.facts.model)


def _cost_row(view: RunView) -> list[str]:
    macs = _macs(view)
    figures = [_count(macs.get(key)) for key in ("dense", "promised", "executed")]
    dense, executed = (_number(macs.get(key)) for key in ("dense", "executed"))
    ratio = f"{dense / executed:.2f}" if dense and executed else "-"
    return [view.label, *figures, ratio, _count(view.facts.model.get("parameters", 0))]


def _number(value: Any) -> float | None:
    """A figure of a record; None for anything else that stands in its place."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{round(number):,}"


def _figure_text(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{number:.2f}"


# what a reader asks of a recipe first; the whole of it stands in the run's recipe.yaml
_SETTINGS = (
    "model.name", "model.form", "model.heads", "model.gate_factor", "data.name", "data.augment",
    "data.limit_train", "train.epochs", "train.batch_size", "optim.name", "optim.lr",
    "optim.weight_decay",
)  # fmt: skip


def _settings(views: Sequence[RunView]) -> Section:
    """What each recipe set; of a script's run all that it gave."""
    # reversed, so that the first run of each group is the one that stays
    first = {view.group: view for view in reversed(views)}
    rows = [[first[group].label, _settings_text(first[group])] for group in sorted(first)]
    return Section("Settings", table(["recipe", "settings"], rows))


def _settings_text(view: RunView) -> str:
    recipe = view.facts.recipe
    keys = [key for key in _SETTINGS if recipe.get(key) is not None]
    if view.facts.by_script:
        keys = [key for key in recipe if key not in ("name", "title", "tags", "seed")]
    return "  ".join(f"{key}={recipe[key]}" for key in keys) or "-"


def _runs(views: Sequence[RunView]) -> Section:
    given = {view.facts.id: labels.read(view.facts.run) for view in views}
    rows: list[list[str | Cell]] = []
    for view in views:
        status = view.facts.status
        commit = str(view.facts.git.get("commit") or "-")[:12]
        notes = "; ".join(view.notes) or "-"
        state = f"{view.facts.state}{': ' + status.reason if status.reason else ''}"
        name = Cell(view.facts.id, "code")
        label = given[view.facts.id]
        tags = " ".join(dict.fromkeys([*(view.facts.recipe.get("tags") or ()), *label.tags])) or "-"
        rows.append(
            [name, view.label, str(view.facts.seed), state, commit, tags, label.note or "-", notes]
        )
    head = ["run", "recipe", "seed", "state", "commit", "tags", "note", "what to know"]
    kept = [n for n in range(len(head)) if n not in (5, 6) or any(_said(row[n]) for row in rows)]
    return Section("Runs", table([head[n] for n in kept], [[row[n] for n in kept] for row in rows]))


def _said(cell: str | Cell) -> bool:
    return cell != "-"


_ENVIRONMENT = (
    "cpu", "cpus", "device", "world_size", "threads", "python", "platform", "torch.version",
    "torch.cuda",
    "torch.cpu_capability", "determinism.algorithms",
)  # fmt: skip


def _environment(views: Sequence[RunView]) -> Section:
    """One column a distinct environment."""
    # runs of one environment share a column: a study on one machine has one
    seen: dict[tuple[str, ...], list[str]] = {}
    for view in views:
        seen.setdefault(tuple(_fact(view, key) for key in _ENVIRONMENT), []).append(view.facts.id)
    head = [
        "fact",
        *([f"{len(runs)} runs" for runs in seen.values()] if len(seen) > 1 else ["value"]),
    ]
    rows = [[key, *(values[index] for values in seen)] for index, key in enumerate(_ENVIRONMENT)]
    # a line that says nothing in any column is left out
    known = [row for row in rows if any(cell != "-" for cell in row[1:])]
    return Section("Environment", table(head, known))


def _fact(view: RunView, key: str) -> str:
    value: Any = view.facts.env
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "-" if value is None else str(value)
