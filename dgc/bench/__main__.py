"""`python -m dgc.bench`: measure cells, merge them into one report and print it. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson

from dgc.bench import machine
from dgc.bench.cells import measure
from dgc.bench.contenders import FLOAT32, MAKERS
from dgc.bench.inference_report import markdown, write
from dgc.bench.layers import states, table
from dgc.bench.networks import NETWORKS
from dgc.bench.place import writable
from dgc.bench.precisions import ANY_PRECISION
from dgc.bench.rows import BenchReport, read_report, write_report
from dgc.errors import DgcError, UsageError
from dgc.kernels.cpu import library
from dgc.talk import put, run_program, say, say_error


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dgc.bench", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--contender", choices=sorted(MAKERS), action="append")
    parser.add_argument(
        "--precision",
        choices=["float32", "int8"],
        default="float32",
        help="int8: the plan in 8 bits against dense engines in any precision",
    )
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of timing for a cell")
    parser.add_argument(
        "--layers", action="store_true", help="the per-layer table instead of the cells"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="table and plots from what the JSON file holds"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file; by default one named after this machine"
    )
    a = parser.parse_args(argv)
    kind = "" if a.precision == "float32" else f"-{a.precision}"
    a.out = a.out or Path(f"benchmarks/results/inference{kind}-{machine.label()}.json")
    return a


def main(argv: list[str] | None = None) -> int:
    a = _arguments(argv)
    try:
        if a.layers and not a.report_only and not library.available():
            why = library.describe()["why_not"]
            raise UsageError(f"--layers: no native plan without the kernels: {why}")
        writable(a.out)
        writable(a.out.with_suffix(".md"))
        report = read_report(a.out, "inference")
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    if not a.report_only:
        key = report.add_machine(machine.facts())
        report.beside.pop("notes", None)  # they were about the figures before
        for name in a.network or NETWORKS:
            _measure(report, key, name, a)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write(report, a.out)
    put(markdown(report).removesuffix("\n"))
    return 0


def _measure(report: BenchReport, key: str, network: str, a: argparse.Namespace) -> None:
    if a.layers:
        report.beside.setdefault("layers", {})[network] = table(network)
        report.beside.setdefault("states", {})[network] = states(network)
        return
    for batch in a.batch or (1, 32):
        for threads in a.threads or (1, 2):
            wanted = a.contender or list(FLOAT32 if a.precision == "float32" else ANY_PRECISION)
            began = datetime.now(UTC).isoformat(timespec="seconds")
            rows = measure(network, batch, threads, wanted, a.budget, machine=key, run=began)
            for row in rows:
                say(orjson.dumps(asdict(row)).decode())
            report.add_run(rows)
            a.out.parent.mkdir(parents=True, exist_ok=True)
            write_report(a.out, report)


if __name__ == "__main__":
    run_program(main)
