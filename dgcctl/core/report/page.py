"""The report as one HTML text: tables and inline SVG, one style, no script, nothing from a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape as escape_marks
from typing import Any

from dgcctl.core.compare.seeds import Group, Summary, compare
from dgcctl.core.report.plots import Plot, colour, expectations
from dgcctl.core.report.series import RunView
from dgcctl.core.runs.listing import end_of_schedule
from dgcctl.core.text import shown

_STYLE = """
:root{color-scheme:light;--line:#dcdcdc;--dim:#5b5b5b}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:62rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.2rem 0 .4rem;border-bottom:1px solid var(--line)}
p,figcaption{max-width:48rem}.dim,figcaption{color:var(--dim);font-size:.86rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;margin:.5rem 0}
th,td{padding:.22rem .7rem .22rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #eee}
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
figure{margin:.6rem 0 1.4rem}svg{max-width:100%;height:auto;display:block}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em}
.ok{color:#00694a;font-weight:600}.miss{color:#a53b00;font-weight:600}
code{font-size:.84rem;overflow-wrap:anywhere}
@media print{body{margin:0;max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


def escape(text: str) -> str:
    """Text from a record, without marks of HTML and without control characters, in an element or in
    an attribute.
    """
    return escape_marks(shown(text), quote=True)


def page(views: Sequence[RunView], drawn: Sequence[Plot]) -> str:
    """The whole page."""
    title = (
        views[0].facts.recipe.get("title")
        if len({view.facts.recipe["name"] for view in views}) == 1
        else ""
    )
    heading = (
        str(title)
        if title
        else ", ".join(dict.fromkeys(str(view.facts.recipe["name"]) for view in views))
    )
    sections = [
        _results(views),
        _verdicts(views),
        *map(_figure, drawn),
        _cost(views),
        _runs(views),
        _environment(views),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(heading)}</h1>{_subtitle(views)}\n{body}\n</body></html>\n"
    )


def _subtitle(views: Sequence[RunView]) -> str:
    groups = len({view.group for view in views})
    counted = f"{len(views)} run{'s' if len(views) > 1 else ''}"
    text = f"{counted} of {groups} recipes" if groups > 1 else counted
    data = ", ".join(dict.fromkeys(_data_text(view) for view in views))
    return f'<p class="dim">{escape(text)}. Data: {escape(data)}.</p>'


def _data_text(view: RunView) -> str:
    data = view.facts.data
    counts = [f"{data[key]:,} {key}" for key in ("train", "val") if isinstance(data.get(key), int)]
    digest = str(data.get("digest", ""))[:12]
    return " ".join(
        [
            str(view.facts.recipe.get("data.name")),
            *counts,
            *([f"(digest {digest})"] if digest else []),
        ]
    )


# --- tables ---------------------------------------------------------------------------------------

Cell = Any
Show = Callable[[float], str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table of HTML cells; the last `numbers` columns are figures."""
    first = len(head) - numbers
    marks = ['class="n"' if index >= first else "" for index in range(len(head))]
    top = "".join(f"<th {mark}>{text}</th>" for text, mark in zip(head, marks, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td {mark}>{text}</td>" for text, mark in zip(row, marks, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


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


def _results(views: Sequence[RunView]) -> str:
    groups = compare([view.facts for view in views])
    names = {view.facts.id: view for view in views}
    rows = [_result_row(group, names[group.runs[0]]) for group in groups]
    head = ["recipe", *(title for _, title, _ in _RESULT), "n"]
    text = "<h2>Result</h2>" + table(head, rows, numbers=len(head) - 1)
    notes = [f"{group.label}: {note}" for group in groups for note in group.notes]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    spread = any(summary.std is not None for group in groups for summary in group.metrics.values())
    explained = (
        '<p class="dim">Mean ± sample standard deviation over n seeds.</p>' if spread else ""
    )
    return text + explained + (f'<ul class="dim">{listed}</ul>' if listed else "")


def _result_row(group: Group, view: RunView) -> list[str]:
    swatch = f'<span class="swatch" style="background:{colour(view.group)}"></span>'
    n = max((summary.n for summary in group.metrics.values()), default=0)
    return [
        swatch + escape(view.label),
        *(_spread(group.metrics.get(key), show) for key, _, show in _RESULT),
        str(n),
    ]


def _verdicts(views: Sequence[RunView]) -> str:
    rows = [
        _verdict_row(view, row) for view in views for row in view.facts.verdict.get("verdicts", [])
    ]
    if rows:
        return "<h2>Verdict</h2>" + table(
            ["run", "metric", "source", "expected", "found", "verdict"], rows
        )
    asked = any(expectations(view) for view in views)
    text = (
        "The recipe expects a figure, but no run has been held against it."
        if asked
        else "No figure was expected."
    )
    return f'<h2>Verdict</h2><p class="dim">{text}</p>'


def _verdict_row(view: RunView, row: dict[str, Any]) -> list[str]:
    mark = (
        '<span class="ok">reached</span>'
        if row.get("passed")
        else '<span class="miss">missed</span>'
    )
    expected = f"≤ {_figure_text(row.get('expected'))} + {_figure_text(row.get('tolerance'))}"
    named = [
        escape(str(text))
        for text in (view.facts.id, row.get("metric", "-"), row.get("source", "-"))
    ]
    return [*named, expected, _figure_text(row.get("value")), mark]


def _figure(plot: Plot) -> str:
    return f"<h2>{escape(plot.title)}</h2><figure>{plot.svg()}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _cost(views: Sequence[RunView]) -> str:
    first = {view.group: view for view in reversed(views)}
    rows = [_cost_row(first[group]) for group in sorted(first) if _macs(first[group])]
    if not rows:
        return ""
    head = ["recipe", "dense", "promised", "executed", "dense / executed", "parameters"]
    text = (
        "Multiply-accumulates for one image, of the network that was evaluated last. Dense: the"
        " same network without gates. Promised: the authors' counter. Executed: what the gathered"
        " computation really multiplies, gates included."
    )
    return "<h2>Cost</h2>" + table(head, rows, numbers=5) + f'<p class="dim">{text}</p>'


def _macs(view: RunView) -> dict[str, Any]:
    """Of the result, where there is one; else as they will be at the end of the schedule."""
    result = {
        key: view.facts.metrics.get(f"macs_{key}") for key in ("dense", "promised", "executed")
    }
    return result if result["executed"] is not None else end_of_schedule(view.facts.model)


def _cost_row(view: RunView) -> list[str]:
    macs = _macs(view)
    figures = [_count(macs.get(key)) for key in ("dense", "promised", "executed")]
    dense, executed = (_number(macs.get(key)) for key in ("dense", "executed"))
    ratio = f"{dense / executed:.2f}" if dense and executed else "-"
    return [escape(view.label), *figures, ratio, _count(view.facts.model.get("parameters", 0))]


def _number(value: Any) -> float | None:
    """A figure of a record; None for anything else that stands in its place."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{round(number):,}"


def _figure_text(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{number:.2f}"


def _runs(views: Sequence[RunView]) -> str:
    rows = []
    for view in views:
        status = view.facts.status
        commit = str(view.facts.git.get("commit") or "-")[:12]
        notes = "; ".join(view.notes) or "-"
        name = f"<code>{escape(view.facts.id)}</code>"
        state = f"{escape(str(view.facts.state))}{': ' + escape(status.reason) if status.reason else ''}"
        rows.append(
            [name, escape(view.label), str(view.facts.seed), state, escape(commit), escape(notes)]
        )
    return "<h2>Runs</h2>" + table(["run", "recipe", "seed", "state", "commit", "notes"], rows)


_ENVIRONMENT = (
    "cpu", "cpus", "device", "world_size", "threads", "python", "platform", "torch.version", "torch.cuda",
    "torch.cpu_capability", "determinism.algorithms",
)  # fmt: skip


def _environment(views: Sequence[RunView]) -> str:
    """One column a distinct environment."""
    seen: dict[tuple[str, ...], list[str]] = {}
    for view in views:
        seen.setdefault(tuple(_fact(view, key) for key in _ENVIRONMENT), []).append(view.facts.id)
    head = [
        "fact",
        *([f"{len(runs)} runs" for runs in seen.values()] if len(seen) > 1 else ["value"]),
    ]
    rows = [
        [key, *(escape(values[index]) for values in seen)] for index, key in enumerate(_ENVIRONMENT)
    ]
    return "<h2>Environment</h2>" + table(
        head, [row for row in rows if any(cell != "-" for cell in row[1:])]
    )


def _fact(view: RunView, key: str) -> str:
    value: Any = view.facts.env
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "-" if value is None else str(value)
