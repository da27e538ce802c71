"""The report: JSON, a table in Markdown, plots. It says what was measured, whether or not a bar was
reached.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from dgc.bench.contenders import DENSE_ENGINES
from dgc.bench.markdown_table import markdown_table
from dgc.bench.networks import NETWORKS
from dgc.bench.precisions import DENSE_LOWER
from dgc.bench.rows import BenchReport, BenchRow, write_report
from dgc.bench.timing import REST_S
from dgc.run.files import atomic_write

# contenders that took turns with each other
Run = dict[str, BenchRow]

# Over the tables. The lines of a page are longer than those of code, hence the backslashes.
INTRO = """Milliseconds per image, median of n interleaved rounds (quartiles in the JSON file). \
All contenders of a row
ran in one process, one call of each after the other, each after a rest (the idle threads of \
other engines
spin) and some calls of its own kind. `x dense`, `x best dense` and `x masked`: how many times \
faster the
native plan is in that row. `int8 x best dense`: the plan in 8 bits against the fastest dense
engine in any precision.

"""
GMACS = """GMAC/s count the multiply-adds of direct convolution, of which Winograd's F(2x2, 3x3) \
needs 16 in 36: its
layers may exceed the peak.

"""


def write(report: BenchReport, path: Path) -> None:
    """path (JSON), and beside it the same name with .md, -speedup.png and -roofline.png."""
    networks = list(NETWORKS)
    report.rows.sort(key=lambda r: (networks.index(r.network), r.batch or 0, r.threads or 0))
    write_report(path, report)
    atomic_write(path.with_suffix(".md"), markdown(report).encode())
    if report.rows:
        _plot_speedup(report, path.with_name(path.stem + "-speedup.png"))
    if report.beside.get("layers"):
        _plot_roofline(report, path.with_name(path.stem + "-roofline.png"))


def runs(report: BenchReport) -> list[Run]:
    """The runs of the report: rows that were measured, by contender."""
    groups = report.by_run().values()
    return [{row.name: row for row in rows if row.median is not None} for rows in groups]


def ratio(run: Run, name: str) -> float | None:
    """How many times as long `name` takes as the native plan,
    both medians of one interleaved run.
    """
    if name not in run or "native" not in run:
        return None
    theirs, ours = run[name].median, run["native"].median
    return None if theirs is None or ours is None else theirs / ours


def best_dense(run: Run) -> tuple[str, float] | None:
    """The fastest dense engine of the run and its ratio."""
    found = [(r, n) for n in DENSE_ENGINES if (r := ratio(run, n)) is not None]
    return (min(found)[1], min(found)[0]) if found else None


def best_any(run: Run) -> tuple[str, float] | None:
    """The fastest dense engine in any precision,
    and how many times as long as the plan in 8 bits it takes.
    """
    ours = run.get("native_int8")
    found = [
        (run[n].median / ours.median, n)  # type: ignore[operator]
        for n in (*DENSE_ENGINES, *DENSE_LOWER)
        if n in run and ours is not None and ours.median
    ]
    return (min(found)[1], min(found)[0]) if found else None


def markdown(report: BenchReport) -> str:
    m = report.machine
    versions = _versions(m)
    lines = [
        "# Inference: DGC against its dense twin, side by side",
        "",
        (
            f"{m.get('cpu')}, {m.get('cores')} cores, {m.get('system')}; kernels {m.get('isa')},"
            f" measured peak of one core {m.get('peak_gmacs')} GMAC/s; Python {m.get('python')},"
            f" {versions}; {m.get('date')}. float32 where nothing else is said."
        ),
        "",
    ]
    return (
        "\n".join(
            lines
            + _runs(runs(report))
            + _others(report)
            + _notes(report)
            + _states(report)
            + _layers(report.beside.get("layers", {}))
        )
        + "\n"
    )


def _runs(found: list[Run]) -> list[str]:
    if not found:
        return []
    shown = sorted({name for run in found for name in run}, key=_order)
    rows = [["network", "batch", "threads", *shown, "n", "x dense", "x best dense", "x masked"]]
    in_bytes = any(best_any(run) for run in found)
    rows[0] += ["int8 x best dense"] if in_bytes else []
    for run in found:
        best, first = best_dense(run), next(iter(run.values()))
        lower = best_any(run)
        rows.append(
            [first.network, str(first.batch), str(first.threads)]
            + [_times(run[name].median) if name in run else "" for name in shown]
            + [str(min(row.n for row in run.values())), _times(ratio(run, "dense_eager"))]
            + [
                f"{best[1]:.2f} ({best[0].removeprefix('dense_')})" if best else "",
                _times(ratio(run, "masked")),
            ]
            + ([f"{lower[1]:.2f} ({lower[0].removeprefix('dense_')})" if lower else ""] * in_bytes)
        )
    return [*INTRO.splitlines(), *markdown_table(rows)]


def _order(name: str) -> tuple[int, str]:
    order = ("native_int8", "native", "plain", *DENSE_ENGINES, *DENSE_LOWER, "sgc_eager", "masked")
    return order.index(name) if name in order else len(order), name


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(a: float, b: float) -> str:
    """Nothing where `b` rounds to no time at all: the other thread did all of it."""
    return _times(a / b if b else None)


def _others(report: BenchReport) -> list[str]:
    """Rows that the first line does not speak of."""
    lines = []
    for key, count in report.other_machines.items():
        facts = report.machines.get(key, {})
        place = f"{facts.get('cpu', 'another machine')}, {facts.get('date', 'earlier')}"
        lines.append(f"{count} of the rows were measured on: {place}; {_versions(facts)}.")
    return [*lines, ""] if lines else []


def _versions(facts: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in facts.get("packages", {}).items() if v)


def _notes(report: BenchReport) -> list[str]:
    """What somebody wrote of these figures into the JSON file; measuring anew drops it."""
    return [
        line for note in report.beside.get("notes", []) for line in (*textwrap.wrap(note, 118), "")
    ]


def _states(report: BenchReport) -> list[str]:
    lines: list[str] = []
    for name, rows in report.beside.get("states", {}).items():
        columns = [c for c in rows[0] if c != "kind"] if rows else []
        total = {c: sum(r[c] for r in rows) for c in columns}
        shown = [
            [r["kind"], *(f"{r[c]:.2f}" for c in columns), _ratio(r[columns[2]], r[columns[1]])]
            for r in rows
        ]
        shown.append(
            [
                "all",
                *(f"{total[c]:.2f}" for c in columns),
                _ratio(total[columns[2]], total[columns[1]]),
            ]
        )
        lines += [f"## {name}: where the time goes, batch 1, milliseconds of the first thread", ""]
        lines += markdown_table([["operations", *columns, "rested / not"], *shown])
    if lines:
        lines += [f"Rested: after {REST_S} s of sleep, as in the rounds of the benchmark.", ""]
    return lines


def _layers(layers: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines: list[str] = []
    if layers:
        lines = GMACS.splitlines()
    for name, rows in layers.items():
        convolutions = [r for r in rows if "gmacs" in r]
        others = [f"{r['kind']} {r['ms']:.2f} ms" for r in rows if "gmacs" not in r]
        keys = ("kind", "channels", "kept", "outputs", "heads", "taps", "size", "ms", "gmacs")
        lines += [f"## {name}: each convolution of the plan, batch 1, 1 thread", ""]
        lines += markdown_table([list(keys), *([str(r[k]) for k in keys] for r in convolutions)])
        lines += ["Everything else: " + ", ".join(others) + ".", ""]
    return lines


def _plot_speedup(report: BenchReport, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6, 5), layout="constrained")
    axes = figure.add_subplot()
    for run in runs(report):
        speedup = ratio(run, "dense_eager")
        if speedup is None:
            continue
        row = run["native"]
        promised = NETWORKS[row.network].mac_ratio
        axes.plot(
            promised,
            speedup,
            "o" if row.batch == 1 else "s",
            mfc="C0" if row.threads == 1 else "C1",
            mec="k",
        )
        axes.annotate(row.network, (promised, 0.3), rotation=90, fontsize=8, ha="right")
    limit = axes.get_ylim()[1]
    axes.plot([1, limit], [1, limit], "k:", label="as the MACs promise")
    axes.set(
        xlim=(1.8, 2.7),
        ylim=(0, limit),
        xlabel="MACs, dense / DGC",
        ylabel="time, dense PyTorch / native",
    )
    axes.set_title("circle: batch 1, square: larger; blue: 1 thread, orange: 2", fontsize=9)
    axes.legend()
    figure.savefig(str(path), dpi=120)


def _plot_roofline(report: BenchReport, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, rows) in enumerate(report.beside["layers"].items()):
        for kind, marker in (("dynamic", "o"), ("dynamic, Winograd", "D"), ("static", "^")):
            points = [(r["macs_per_byte"], r["gmacs"]) for r in rows if r["kind"] == kind]
            if points:
                axes.plot(
                    *zip(*points, strict=True), marker, color=f"C{i}", ms=4, label=f"{name}, {kind}"
                )
    peak = report.machine.get("peak_gmacs")
    if peak:
        axes.axhline(peak, color="k", ls=":", label="measured peak of one core")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="MACs per byte of input, output and kept weights",
        ylabel="GMAC/s",
    )
    axes.legend(fontsize=8)
    figure.savefig(str(path), dpi=120)
