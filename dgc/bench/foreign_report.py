"""`python -m dgc.bench.foreign_report --network torchvision/resnet50`: networks that are not ours,
dense and converted, side by side. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from dgc.bench import machine
from dgc.bench.foreign_layers import kinds
from dgc.bench.foreign_layers import rows as layer_rows
from dgc.bench.foreign_networks import BARS, BENCHMARK, ENGINES, OWN, Case, case, measure
from dgc.bench.markdown_table import markdown_table
from dgc.bench.place import writable
from dgc.bench.rows import BenchReport, BenchRow, read_report, write_report
from dgc.errors import DgcError
from dgc.hub import foreign
from dgc.run.files import atomic_write
from dgc.talk import put, run_program, say, say_error


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dgc.bench.foreign_report", description=__doc__)
    parser.add_argument("--network", action="append", help="torchvision/NAME or timm/NAME")
    parser.add_argument("--gate-factor", type=float, action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of timing for a run")
    parser.add_argument("--layers", action="store_true", help="the table of layers instead")
    parser.add_argument("--report-only", action="store_true", help="the page from the JSON file")
    parser.add_argument("--out", type=Path, default=Path(f"{BENCHMARK}.json"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    a = _arguments(argv)
    try:
        for name in a.network or BARS:
            foreign.check_name(name)
        writable(a.out)
        writable(a.out.with_suffix(".md"))
        report = read_report(a.out, BENCHMARK)
        if not a.report_only:
            key = report.add_machine(machine.facts())
            for name in a.network or BARS:
                _one(report, key, name, a)
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    page = markdown(report)
    write_report(a.out, report)
    atomic_write(a.out.with_suffix(".md"), page.encode())
    put(page.removesuffix("\n"))
    return 0


def _one(report: BenchReport, key: str, name: str, a: argparse.Namespace) -> None:
    factors = a.gate_factor or [0.25, 0.5]
    for batch in a.batch or [1]:
        made = case(name, factors, batch=batch)
        _tell(report, made)
        if a.layers:
            for factor in factors:
                found = report.beside.setdefault("layers", {}).setdefault(name, {})
                found[f"{factor:g}"] = layer_rows(made, factor)
            continue
        for threads in a.threads or [1, 2]:
            began = datetime.now(UTC).isoformat(timespec="seconds")
            rows = measure(made, threads, a.budget, machine=key, run=began)
            for row in rows:
                say(orjson.dumps(asdict(row)).decode())
            report.add_run(rows)
            report.beside.setdefault("parts", {})[name] = kinds(made)
            write_report(a.out, report)


def _tell(report: BenchReport, made: Case) -> None:
    """What is the same for every run of a network."""
    said = report.beside.setdefault("networks", {}).setdefault(made.name, {})
    said["macs_dense"] = made.dense_macs
    for factor, one in made.converted.items():
        said[f"{factor:g}"] = {
            "macs": one.macs,
            "converted": len(one.report.converted),
            "convolutions": len(one.report.layers),
            "share": round(one.report.share, 4),
            "gate_parameters": one.report.gate_parameters,
        }


def markdown(report: BenchReport) -> str:
    m = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in m.get("packages", {}).items() if v)
    lines = [
        "# Networks of torchvision and timm, dense and converted, side by side",
        "",
        f"{m.get('cpu')}, {m.get('cores')} cores, {m.get('system')}; kernels {m.get('isa')},"
        f" peak of one core {m.get('peak_gmacs')} GMAC/s; Python {m.get('python')}, {versions};"
        f" {m.get('date')}.",
        "",
        "One image of 224x224, float32, random weights, 4 heads, the end of the schedule.",
        "Milliseconds, median of n rounds in which all contenders of a line took turns. x: how",
        "many times faster the converted network in our engine is than the best dense engine",
        "of its line; bar: what it has to reach (bold: missed). Native: the dense network in our",
        "engine.",
        "MACs: converted over dense, gates included.",
        "",
    ]
    return (
        "\n".join([*lines, *_runs(report), *_notes(report), *_parts(report), *_layers(report)])
        + "\n"
    )


def _runs(report: BenchReport) -> list[str]:
    engines = [name.removeprefix("dense_") for name in ENGINES]
    head = ["network", "gate_factor", "threads", "batch", *engines, "native", "converted"]
    head += ["x", "bar", "MACs", "n"]
    found = []
    for rows in report.by_run().values():
        dense = {row.name: row for row in rows if row.name in (*ENGINES, OWN)}
        found += [_line(report, dense, row) for row in rows if "gate_factor" in row.more]
    found.sort()
    return markdown_table([head, *found]) if found else []


def _line(report: BenchReport, dense: dict[str, BenchRow], row: BenchRow) -> list[str]:
    whole = report.beside.get("networks", {}).get(row.network, {}).get("macs_dense")
    times = 1 / row.ratio if row.ratio else None
    missed = row.passed is False
    said = "" if times is None else f"{times:.2f} ({(row.ratio_to or '').removeprefix('dense_')})"
    cells = [row.network, f"{row.more['gate_factor']:g}", str(row.threads), str(row.batch)]
    cells += [_ms(dense[n].median) if n in dense else "" for n in (*ENGINES, OWN)]
    cells += [_ms(row.median), f"**{said}**" if missed else said]
    cells += ["" if row.bar is None else f"{row.bar:g}"]
    cells += [f"{row.more['macs'] / whole:.0%}" if whole else "", str(row.n)]
    return cells


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _notes(report: BenchReport) -> list[str]:
    return [line for note in report.beside.get("notes", []) for line in (note, "")]


def _parts(report: BenchReport) -> list[str]:
    """By kind of operation, and the time that all MACs would take at the peak of one core."""
    lines: list[str] = []
    peak = report.machine.get("peak_gmacs")
    for name, rows in report.beside.get("parts", {}).items():
        columns = [c for c in ("dense", "0.25", "0.5") if any(c in row for row in rows)]
        lines += [f"## {name}: where the time goes, milliseconds of one thread (operations)", ""]
        cells = [
            [row["kind"], *(f"{row[c][1]:.2f} ({row[c][0]})" if c in row else "" for c in columns)]
            for row in rows
        ]
        sums = [sum(row[c][1] for row in rows if c in row) for c in columns]
        cells.append(["all", *(f"{total:.2f}" for total in sums)])
        said = report.beside.get("networks", {}).get(name, {})
        macs = [
            said.get("macs_dense") if c == "dense" else said.get(c, {}).get("macs") for c in columns
        ]
        if peak:
            bound = [f"{m / peak / 1e6:.2f}" if m else "" for m in macs]
            cells.append(["its MACs at the peak of one core", *bound])
        lines += markdown_table([["kind", *columns], *cells])
    return lines


def _layers(report: BenchReport) -> list[str]:
    lines: list[str] = []
    for name, factors in report.beside.get("layers", {}).items():
        for factor, rows in factors.items():
            lines += [f"## {name}, gate_factor {factor}: each convolution, one thread", ""]
            if not rows:
                lines += ["There is no native plan of the whole network.", ""]
                continue
            head = ["layer", "M MACs", "then", "ms", "then", "how", "why"]
            lines += markdown_table([head, *map(_layer, rows), _total(rows)])
    return lines


def _layer(row: dict[str, Any]) -> list[str]:
    macs = ["" if row[k] is None else f"{row[k] / 1e6:.1f}" for k in ("macs_dense", "macs")]
    ms = ["" if row[k] is None else f"{row[k]:.3f}" for k in ("ms_dense", "ms")]
    return [row["layer"], *macs, *ms, row["how"], row["why"]]


def _total(rows: list[dict[str, Any]]) -> list[str]:
    def total(key: str) -> float:
        return sum(row[key] or 0.0 for row in rows)

    macs = [f"{total(k) / 1e6:.1f}" for k in ("macs_dense", "macs")]
    return ["all", *macs, *(f"{total(k):.3f}" for k in ("ms_dense", "ms")), "", ""]


if __name__ == "__main__":
    run_program(main)
