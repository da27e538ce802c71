"""Is training a DGC network cheaper than training its dense twin, whichever way that is trained
fastest?

    python -m dgc.bench.training [--network NAME] [--progress P] [--threads T] [--way W] [--steps N] [--out FILE.json]

Each way trains in a process of its own, beside that of the dense twin as it comes, step by step in
turn: what a table compares are ratios of neighbouring steps. At most two processes live at once.
Each cell is written as soon as it is there. Saved activations are exact: bytes of the distinct
storages kept for backward that are neither parameters nor buffers. A way that fails is named in the
table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from dgc.bench import machine
from dgc.bench.place import writable
from dgc.bench.training_ways import NETWORKS, WAYS, native_bf16
from dgc.errors import DgcError
from dgc.run.files import atomic_write

REFERENCE = "dense"
LEAST_MEMORY = 2e9  # bytes that must be free before another process starts
NO_BF16 = (
    "this processor has no BF16 instructions: the bf16 ways are emulated, and slower than they"
    " would be with them"
)
HEADER = """# Training: DGC against its dense twin

{cpu}, torch {torch}, Python {python}, kernels {isa}, {date}.
Time: forward + backward + update, median of n steps; ratio: median over neighbouring steps of this way and of the dense
twin as it comes (range). Best dense way: the dense row with the least ratio; "/ best" divides by it.
dgc: the project as it comes; plain: without its C++ kernels; masked: the formulation of the released code.
Saved: MB an image kept for backward. Peak: resident MB of the way's own process.

| network, batch | progress | threads | way | n | s/step | / dense | / best | best dense way | saved MB | peak MB |
|---|---|---|---|---|---|---|---|---|---|---|"""


class WayFailedError(Exception):
    """A process ended before it had answered; the message is its last line."""


class Process:
    """One way in its process (dgc.bench.training_ways)."""

    def __init__(self, network: str, progress: float, way: str, threads: int) -> None:
        free = psutil.virtual_memory().available
        if free < LEAST_MEMORY:
            raise WayFailedError(f"only {free / 1e9:.1f} GB of memory free")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process lives
        command = [
            sys.executable,
            "-m",
            "dgc.bench.training_ways",
            network,
            str(progress),
            way,
            str(threads),
        ]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )
        try:
            self.facts: dict[str, Any] = json.loads(self._answer())
        except WayFailedError:
            self.close()
            raise

    def step(self) -> float:
        assert self.child.stdin is not None
        try:
            self.child.stdin.write("\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and the answer says how
        return float(json.loads(self._answer()))

    def _answer(self) -> str:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if line:
            return line
        code = self.child.wait()
        self.errors.seek(0)
        last = [text.strip() for text in self.errors if text.strip()]
        killed = f"ended by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        raise WayFailedError(
            killed if code < 0 else last[-1][:200] if last else f"ended with {code}"
        )

    def close(self) -> None:
        """End it, and wait until its memory is given back."""
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.errors.close()


class Cell(NamedTuple):
    network: str
    progress: float
    threads: int


def measure(cell: Cell, ways: Sequence[str], steps: int) -> dict[str, Any]:
    """One cell of the table: each way in turn beside the dense twin as it comes."""
    rows: dict[str, Any] = {}
    failed: dict[str, str] = {}
    dense = Process(cell.network, cell.progress, REFERENCE, cell.threads)
    try:
        rows[REFERENCE] = _row([dense.step() for _ in range(steps)], None, dense.facts)
        for way in ways:
            if way == REFERENCE:
                continue
            try:
                rows[way] = _beside(dense, cell, way, steps)
            except WayFailedError as error:
                failed[way] = str(error)
    finally:
        dense.close()
    found = {
        **cell._asdict(),
        "batch": dense.facts["batch"],
        "n": steps,
        "ways": rows,
        "failed": failed,
    }
    return found | {"best_dense": best_dense(rows), "suspicious": suspicious(rows)}


def _beside(dense: Process, cell: Cell, way: str, steps: int) -> dict[str, Any]:
    other = Process(cell.network, cell.progress, way, cell.threads)
    try:
        pairs = [(dense.step(), other.step()) for _ in range(steps)]
    finally:
        other.close()
    return _row([ours for _, ours in pairs], [theirs for theirs, _ in pairs], other.facts)


def _row(seconds: list[float], dense: list[float] | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The ratio is the median of the ratios of neighbouring steps; its spread, their smallest and
    largest.
    """
    ratios = [ours / theirs for ours, theirs in zip(seconds, dense or seconds, strict=True)]
    saved = facts["saved_bytes"]
    return {
        "seconds_median": statistics.median(seconds),
        "seconds_all": seconds,
        "time_ratio": statistics.median(ratios),
        "time_ratio_range": [min(ratios), max(ratios)],
        "saved_mb_per_sample": None if saved is None else saved / facts["batch"] / 1e6,
        "peak_mb": facts["peak_mb"],
    }


def best_dense(rows: dict[str, Any]) -> str:
    """The dense way with the least time."""
    return min(
        (way for way in rows if WAYS[way].form == "dense"),
        key=lambda way: float(rows[way]["time_ratio"]),
    )


def suspicious(rows: dict[str, Any]) -> list[str]:
    """Figures that are the same for all ways: such a figure was not measured of each."""
    if len(rows) < 2:
        return []
    figures = ("seconds_median", "peak_mb")
    return [
        name for name in figures if len({round(float(row[name]), 3) for row in rows.values()}) == 1
    ]


# --- the report ---


def table(report: dict[str, Any]) -> str:
    facts = report["machine"]
    lines = [HEADER.format(**facts, torch=facts["packages"]["torch"])]
    notes = [] if report["native_bf16"] else [NO_BF16]
    for cell in report["cells"]:
        lines += [_line(cell, way) for way in cell["ways"]]
        where = f"{cell['network']}, progress {cell['progress']}, {cell['threads']} threads"
        notes += [f"{where}: {way} was not measured: {why}" for way, why in cell["failed"].items()]
        notes += [
            f"{where}: {name} is the same for all ways: do not trust it"
            for name in cell["suspicious"]
        ]
    return (
        "\n".join(lines) + "\n" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
    )


def _line(cell: dict[str, Any], way: str) -> str:
    row, best = cell["ways"][way], cell["best_dense"]
    low, high = row["time_ratio_range"]
    saved = row["saved_mb_per_sample"]
    against = row["time_ratio"] / cell["ways"][best]["time_ratio"]
    return (
        f"| {cell['network']}, {cell['batch']} | {cell['progress']} | {cell['threads']} | {way} |"
        f" {cell['n']} | {row['seconds_median']:.3f} | {row['time_ratio']:.2f}"
        f" ({low:.2f}-{high:.2f}) | {against:.2f} | {best} |"
        f" {'-' if saved is None else f'{saved:.2f}'} | {row['peak_mb']:.0f} |"
    )


def _merged(old: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """A cell that is measured again replaces the old one."""
    place = Cell._fields
    kept = [cell for cell in old if any(cell[key] != new[key] for key in place)]
    return sorted([*kept, new], key=lambda cell: tuple(cell[key] for key in place))


def _known(out: Path, facts: dict[str, object]) -> list[dict[str, Any]]:
    """Cells that were measured before on this machine, with this program."""
    if not out.exists() or not out.stat().st_size:
        return []
    report = json.loads(out.read_bytes())
    same = {key: value for key, value in facts.items() if key not in ("date", "peak_gmacs")}
    before = report.get("machine", {})
    fits = all(before.get(key) == value for key, value in same.items()) and "native_bf16" in report
    return list(report["cells"]) if fits else []


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dgc.bench.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", choices=list(NETWORKS), action="append")
    parser.add_argument(
        "--progress", type=float, action="append", help="0.0, 0.5 and 0.9 by default"
    )
    parser.add_argument(
        "--threads", type=int, action="append", help="those that PyTorch takes by default"
    )
    parser.add_argument(
        "--way", choices=list(WAYS), action="append", help="all by default; the dense twin always"
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file; the table goes beside it, as .md")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given = _arguments(argv)
    facts = machine.facts()
    out = given.out or Path(f"benchmarks/results/training-{machine.label()}.json")
    try:
        writable(out)
        writable(out.with_suffix(".md"))
        cells = _known(out, facts)
    except DgcError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    networks = given.network or [name for name in NETWORKS if name != "tiny"]
    report: dict[str, Any] = {"machine": facts, "native_bf16": native_bf16(), "cells": cells}
    for network in networks:
        for progress in given.progress or (0.0, 0.5, 0.9):
            for threads in given.threads or (torch.get_num_threads(),):
                try:
                    found = measure(
                        Cell(network, progress, threads), given.way or list(WAYS), given.steps
                    )
                except WayFailedError as error:
                    print(
                        f"error: the dense twin of {network} cannot be trained here: {error}",
                        file=sys.stderr,
                    )
                    return 1
                report["cells"] = _merged(report["cells"], found)
                atomic_write(out, json.dumps(report, indent=1).encode() + b"\n")
                atomic_write(out.with_suffix(".md"), table(report).encode())
                print(
                    f"{network}, progress {progress}, {threads} threads: done",
                    file=sys.stderr,
                    flush=True,
                )
    print(table(report), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
