"""Is training a DGC network cheaper than training its dense twin, whichever way that is trained
fastest?

    python -m dgc.bench.training [--network NAME] [--progress P] [--threads T] [--way NAME]
        [--steps N] [--out FILE.json]

Each contender trains in a process of its own, beside that of the dense twin as it comes, step by
step in turn: what a table compares are ratios of neighbouring steps. At most two processes live at
once. Each cell is written as soon as it is there. Saved activations are exact: bytes of the
distinct storages kept for backward that are neither parameters nor buffers. What fails is named in
the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from dgc.bench import machine
from dgc.bench.named import contender
from dgc.bench.place import writable
from dgc.bench.rows import BenchReport, BenchRow, read_report, write_report
from dgc.bench.training_contenders import CONTENDERS, NETWORKS, native_bf16
from dgc.errors import DgcError
from dgc.run.files import atomic_write
from dgc.talk import put, run_program, say, say_error

REFERENCE = "dense"
LEAST_MEMORY = 2e9  # bytes that must be free before another process starts
NO_BF16 = (
    "this processor has no BF16 instructions: the bf16 ways are emulated, and slower than they"
    " would be with them"
)
HEADER = """# Training: DGC against its dense twin

{cpu}, torch {torch}, Python {python}, kernels {isa}, {date}.
Time: forward + backward + update, median of n steps; ratio: median over neighbouring steps of \
this way and of the dense
twin as it comes (range). Best dense way: the dense row with the least ratio; "/ best" divides by \
it, "/ best f32" by the best of those in float32.
dgc: the project as it comes; plain: without its C++ kernels; masked: the formulation of the \
released code.
Saved: MB an image kept for backward. Peak: resident MB of the way's own process.

| network, batch | progress | threads | way | n | s/step | / dense | / best \
| best dense way | / best f32 | saved MB | peak MB |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


class ContenderFailedError(Exception):
    """A process ended before it had answered; the message is its last line."""


class Process:
    """One contender in its process (dgc.bench.training_contenders)."""

    def __init__(self, network: str, progress: float, name: str, threads: int) -> None:
        free = psutil.virtual_memory().available
        if free < LEAST_MEMORY:
            raise ContenderFailedError(f"only {free / 1e9:.1f} GB of memory free")
        # A file and no pipe: nobody reads while it works, and a full pipe would stop it.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process lives
        command = [
            sys.executable,
            "-m",
            "dgc.bench.training_contenders",
            network,
            str(progress),
            name,
            str(threads),
        ]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )
        try:
            self.facts: dict[str, Any] = json.loads(self._answer())
        except ContenderFailedError:
            self.close()
            raise

    def step(self) -> float:
        assert self.child.stdin is not None
        try:
            # A line is a step: between them it waits, so never two work at once.
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
        raise ContenderFailedError(
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


class TrainingCell(NamedTuple):
    network: str
    progress: float
    threads: int


def measure(
    cell: TrainingCell, names: Sequence[str], steps: int, *, machine: str, run: str
) -> list[BenchRow]:
    """One run: each contender in turn beside the dense twin as it comes."""
    # The dense twin lives through the whole run, and every other way is timed beside it: the clock
    # of a shared machine drifts by more than what is to be told apart.
    dense = Process(cell.network, cell.progress, REFERENCE, cell.threads)
    common = {"machine": machine, "run": run, "batch": dense.facts["batch"]}
    try:
        rows = [
            _row(cell, REFERENCE, [dense.step() for _ in range(steps)], None, dense.facts, common)
        ]
        for name in names:
            if name == REFERENCE:
                continue
            try:
                rows.append(_beside(dense, cell, name, steps, common))
            except ContenderFailedError as error:
                rows.append(replace(_blank(cell, name, common), why_not=str(error)))
    finally:
        dense.close()
    return rows


def _beside(
    dense: Process, cell: TrainingCell, name: str, steps: int, common: dict[str, Any]
) -> BenchRow:
    other = Process(cell.network, cell.progress, name, cell.threads)
    try:
        pairs = [(dense.step(), other.step()) for _ in range(steps)]
    finally:
        other.close()
    ours, theirs = [ours for _, ours in pairs], [theirs for theirs, _ in pairs]
    return _row(cell, name, ours, theirs, other.facts, common)


def _blank(cell: TrainingCell, name: str, common: dict[str, Any]) -> BenchRow:
    """The row of a contender before it is measured."""
    fields = contender(name)
    fields["more"] = {"progress": cell.progress, **fields["more"]}
    return BenchRow(
        benchmark="training", network=cell.network, threads=cell.threads, unit="s/step",
        spread="range",
        **fields, **common,
    )  # fmt: skip


def _row(
    cell: TrainingCell,
    name: str,
    seconds: list[float],
    dense: list[float] | None,
    facts: dict[str, Any],
    common: dict[str, Any],
) -> BenchRow:
    """The ratio is the median of the ratios of neighbouring steps;
    its spread, their smallest and largest.
    """
    ratios = [ours / theirs for ours, theirs in zip(seconds, dense or seconds, strict=True)]
    saved, blank = facts["saved_bytes"], _blank(cell, name, common)
    kept = None if saved is None else saved / facts["batch"] / 1e6
    return replace(
        blank,
        n=len(seconds),
        median=statistics.median(seconds),
        low=min(seconds),
        high=max(seconds),
        values=tuple(seconds),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        ratio_to=REFERENCE,
        more={**blank.more, "saved_mb_per_sample": kept, "peak_mb": facts["peak_mb"]},
    )


def measured(rows: Sequence[BenchRow]) -> list[BenchRow]:
    return [row for row in rows if row.median is not None]


def best_dense(rows: Sequence[BenchRow], precision: str | None = None) -> BenchRow:
    """The dense contender with the least time; of those in one precision, where it is named."""
    dense = [
        row
        for row in measured(rows)
        if row.variant == "dense" and precision in (None, row.precision)
    ]
    return min(dense, key=lambda row: row.ratio or 0.0)


def suspicious(rows: Sequence[BenchRow]) -> list[str]:
    """Figures that are the same for all contenders: such a figure was not measured of each."""
    found = measured(rows)
    if len(found) < 2:
        return []
    figures = {
        "median": [row.median for row in found],
        "peak_mb": [row.more.get("peak_mb") for row in found],
    }
    return [
        name
        for name, values in figures.items()
        if None not in values and len({round(float(value or 0), 3) for value in values}) == 1
    ]


# --- the report ---


def table(report: BenchReport) -> str:
    facts = report.machine
    lines = [HEADER.format(**facts, torch=facts["packages"]["torch"])]
    notes = [] if facts.get("native_bf16", True) else [NO_BF16]
    for rows in report.by_run().values():
        lines += [_line(row, rows) for row in measured(rows)]
        where = f"{rows[0].network}, progress {_progress(rows[0])}, {rows[0].threads} threads"
        notes += [
            f"{where}: {row.name} was not measured: {row.why_not}" for row in rows if row.why_not
        ]
        notes += [
            f"{where}: {name} is the same for all ways: do not trust it"
            for name in suspicious(rows)
        ]
    return (
        "\n".join(lines) + "\n" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
    )


def _progress(row: BenchRow) -> float:
    return float(row.more.get("progress", 0.0))


def _line(row: BenchRow, run: Sequence[BenchRow]) -> str:
    saved, peak = row.more.get("saved_mb_per_sample"), row.more.get("peak_mb")
    best, ratio = best_dense(run), row.ratio or 0.0
    least, float32 = best.ratio or 1.0, best_dense(run, "float32").ratio or 1.0
    return (
        f"| {row.network}, {row.batch} | {_progress(row)} | {row.threads} | {row.name} |"
        f" {row.n} | {row.median:.3f} | {ratio:.2f}"
        f" ({row.ratio_low:.2f}-{row.ratio_high:.2f}) | {ratio / least:.2f} | {best.name} |"
        f" {ratio / float32:.2f} | {'-' if saved is None else f'{saved:.2f}'} |"
        f" {'-' if peak is None else f'{peak:.0f}'} |"
    )


def _known(out: Path, machine: str) -> list[BenchRow]:
    """Rows that were measured before on this machine, with these versions."""
    return [row for row in read_report(out, "training").rows if row.machine == machine]


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
        "--way",
        choices=list(CONTENDERS),
        action="append",
        help="all by default; the dense twin always",
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file; the table goes beside it, as .md")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given = _arguments(argv)
    facts = {**machine.facts(), "native_bf16": native_bf16()}
    out = given.out or Path(f"benchmarks/results/training-{machine.label()}.json")
    report = BenchReport("training")
    key = report.add_machine(facts)
    try:
        writable(out)
        writable(out.with_suffix(".md"))
        report.rows = _known(out, key)
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    for network in given.network or [name for name in NETWORKS if name != "tiny"]:
        for progress in given.progress or (0.0, 0.5, 0.9):
            for threads in given.threads or (torch.get_num_threads(),):
                try:
                    _add(report, TrainingCell(network, progress, threads), given, key)
                except ContenderFailedError as error:
                    say(f"error: the dense twin of {network} cannot be trained here: {error}")
                    return 1
                _keep(report, out)
                say(f"{network}, progress {progress}, {threads} threads: done")
    put(table(report).removesuffix("\n"))
    return 0


def _add(report: BenchReport, cell: TrainingCell, given: argparse.Namespace, key: str) -> None:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    names = given.way or list(CONTENDERS)
    rows = measure(cell, names, given.steps, machine=key, run=began)
    # one run a setting: a new one replaces the old, whatever its contenders were
    report.rows = [row for row in report.rows if row.setting != rows[0].setting] + rows
    report.rows.sort(key=lambda row: (row.network, _progress(row), row.threads or 0))


def _keep(report: BenchReport, out: Path) -> None:
    write_report(out, report)
    atomic_write(out.with_suffix(".md"), table(report).encode())


if __name__ == "__main__":
    run_program(main)
