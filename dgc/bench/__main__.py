"""`python -m dgc.bench`: measure cells, merge them into one report and print it. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from dgc.bench import machine
from dgc.bench.cells import measure
from dgc.bench.contenders import MAKERS
from dgc.bench.layers import states, table
from dgc.bench.networks import NETWORKS
from dgc.bench.place import writable
from dgc.bench.report import markdown, write
from dgc.errors import DgcError, UsageError
from dgc.kernels.cpu import library
from dgc.run.files import atomic_write


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dgc.bench", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--contender", choices=sorted(MAKERS), action="append")
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
    a.out = a.out or Path(f"benchmarks/results/inference-{machine.label()}.json")
    return a


def main(argv: list[str] | None = None) -> int:
    a = _arguments(argv)
    try:
        if a.layers and not a.report_only and not library.available():
            why = library.describe()["why_not"]
            raise UsageError(f"--layers: no native plan without the kernels: {why}")
        writable(a.out)
        writable(a.out.with_suffix(".md"))
    except DgcError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    report: dict[str, Any] = (
        orjson.loads(a.out.read_bytes())
        if a.out.exists() and a.out.stat().st_size
        else {"cells": [], "layers": {}}
    )
    if not a.report_only:
        report["machine"] = machine.facts()
        report.pop("notes", None)  # they were about the figures before
        for name in a.network or NETWORKS:
            _measure(report, name, a)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write(report, a.out)
    print(markdown(report), end="")
    return 0


def _measure(report: dict[str, Any], name: str, a: argparse.Namespace) -> None:
    if a.layers:
        report["layers"][name] = table(name)
        report.setdefault("states", {})[name] = states(name)
        return
    for batch in a.batch or (1, 32):
        for threads in a.threads or (1, 2):
            wanted = a.contender or list(MAKERS)
            cell = measure(name, batch, threads, wanted, a.budget)
            print(orjson.dumps(cell).decode(), file=sys.stderr)
            _merge(report["cells"], cell)
            a.out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(a.out, orjson.dumps(report, option=orjson.OPT_INDENT_2))


def _merge(cells: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """A cell measured again with the same contenders replaces the old one; ratios are only taken
    inside a cell.
    """

    def key(c: dict[str, Any]) -> tuple[object, ...]:
        return c["network"], c["batch"], c["threads"], tuple(sorted(c["ms_per_image"]))

    cells[:] = [c for c in cells if key(c) != key(new)] + [new]


if __name__ == "__main__":
    sys.exit(main())
