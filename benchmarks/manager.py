"""How long the manager takes over many runs: listed with columns and a filter, and compared.

    python -m benchmarks.manager [--runs 5000] [--times 5]

writes benchmarks/results/manager.json and manager.md. Each time is that of a whole process, from its
start to its end, by the wall clock; the files of the runs are put out of the system's cache before
each (`posix_fadvise`), so that each start is a cold one. Each question is asked where nothing is
remembered of the runs (dgcctl.core.runs.remembered), and again after that. The sources are compiled
beforehand, as in an installation. The runs are made up, with the files that a training leaves and
in their sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.dashboard import machine
from dgc.bench.place import writable
from dgc.bench.rows import BenchReport, BenchRow, write_report
from dgc.errors import UsageError
from dgc.recipe.load import as_record
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from tests.tui import synthetic
from tests.tui.synthetic import Spec

RESULTS = Path(__file__).parent / "results"
RATES, SEEDS = (0.3, 0.1, 0.03, 0.01), 5
COMPARED = 1000
_LISTED = (
    "runs",
    "ls",
    "--columns",
    "lr,seed,model.gate_factor,top1_error",
    "state=done",
    "lr<0.2",
)
_COMPARED = ("runs", "compare", "name=compared")
_PART, _WHOLE = "part: ", "all of it"
BOUND = (
    "no command: the same files of {runs:,} runs opened, read and parsed, nothing done with them"
)
# whose parts are shown
DIVIDED = (
    ("the list with columns and a filter, for the first time", _LISTED, True),
    ("the list with columns and a filter, again", _LISTED, False),
    ("the comparison, for the first time", _COMPARED, True),
    ("the comparison, again", _COMPARED, False),
)
# what is asked, its bar in seconds, the words
QUESTIONS = (
    ("{runs:,} runs: `runs ls --columns lr,seed,model.gate_factor,top1_error state=done lr<0.2`", 1.0, _LISTED),
    ("{runs:,} runs: `runs ls`", None, ("runs", "ls")),
    ("{runs:,} runs: `runs ls --json`", None, ("runs", "ls", "--json")),
    ("{compared:,} of {runs:,} runs: `runs compare name=compared`", 2.0, _COMPARED),
)  # fmt: skip


def make(folder: Path, count: int) -> None:
    """Finished runs of a few recipes, some of them to be compared."""
    for name, first, last in (
        ("compared", 0, min(COMPARED, count)),
        ("others", min(COMPARED, count), count),
    ):
        templates = [_template(folder.parent / "made", name, number) for number in range(20)]
        for index in range(first, last):
            _copy(*templates[index % len(templates)], folder, index)


def _template(folder: Path, name: str, number: int) -> tuple[RunDir, dict[str, bytes]]:
    """A run as a training leaves it, and its files."""
    rate, seed = RATES[number % len(RATES)], number // len(RATES)
    spec = Spec(
        recipe=name, suffix=f"{name[:1]}{number:05d}", lr=rate, seed=seed, gates=False, log_lines=20,
        started=synthetic.T0 + number, final_error=8 + rate + seed / 10,
    )  # fmt: skip
    run = synthetic.make(folder, spec)
    write_json(run.recipe_json, as_record(run.recipe))
    files = {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in run.path.rglob("*")
        if file.is_file()
    }
    return run, files


def _copy(made: RunDir, files: dict[str, bytes], folder: Path, index: int) -> None:
    """Under an id of its own; to the manager, twenty of them repeat each other."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(synthetic.T0 + 60 * index))
    target = folder / f"{stamp}-{made.id.split('-')[1]}-{index:06x}"
    for name, data in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


def cool(folder: Path) -> None:
    """Put the files out of the cache, so that they are read from the disk again."""
    os.sync()
    for place, _, names in os.walk(folder):
        for name in names:
            file = os.open(os.path.join(place, name), os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def timed(folder: Path, words: tuple[str, ...], *, first: bool) -> float:
    """Seconds of one process. `first`: nothing is remembered of the runs.
    Raises CalledProcessError where it fails.
    """
    cache = folder.parent / "cache"
    if first:
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "dgcctl", *words, "--runs-dir", str(folder)]
    # pip compiles what it installs; a checkout under this variable would be compiled at each start
    env = {**_compiled(), "DGCCTL_CACHE_DIR": str(cache)}
    cool(folder)
    cool(cache)
    began = time.perf_counter()
    subprocess.run(
        command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


# run with the words of the command: the seconds of each part, as JSON on stderr
_PARTS = """
import json, os, sys, time
began = float(os.environ["BEGAN"])
from dgcctl.cli import compare as command, main, runs
from dgcctl.cli._ui import diagnostics, output, run_columns
from dgcctl.core.runs import filters, listing, read_ahead, remembered
parts = {"Python starts, modules are loaded": time.time() - began}
within = []
def timed(owner, name, part):
    inner = getattr(owner, name)
    def outer(*given, **named):
        start = time.perf_counter()
        within.append(0.0)
        try:
            return inner(*given, **named)
        finally:
            took = time.perf_counter() - start
            parts[part] = parts.get(part, 0.0) + took - within.pop()
            if within:
                within[-1] += took
    setattr(owner, name, outer)
timed(remembered, "of", "what is remembered is read")
timed(remembered.Memory, "recall", "each run and its files are asked whether they changed")
timed(listing, "_recalled", "the runs are made of it")
timed(read_ahead, "ask_for", "the files are asked for")
timed(listing, "_may_be_run", "status and metrics of each run are read")
timed(listing, "read_run", "status and metrics of each run are read")
timed(listing, "read_tree", "the recipe of each run is read")
timed(listing, "values_of", "the recipe of each run as dotted keys")
timed(filters, "select", "the filter, and the values that it asks for")
timed(run_columns, "ordered", "order and columns")
timed(run_columns, "table", "order and columns")
timed(command, "read_record", "the records of the compared runs are read")
timed(command, "compare_runs", "runs are grouped, figures averaged")
timed(output, "table", "the text of the table")
timed(diagnostics, "warn", "notes below the table")
timed(listing.RunList, "remember", "what is new is remembered")
start = time.perf_counter()
main.main(sys.argv[1:])
parts["the rest: the words of the command line, the folder"] = (
    time.perf_counter() - start - sum(list(parts.values())[1:])
)
sys.stderr.write("\\n" + json.dumps({"parts": parts, "ended": time.time()}))
"""
# the files that a first listing has to read, and nothing else done with them
_BOUND = """
import os, sys
import orjson
from pathlib import Path
from dgcctl.core.runs import read_ahead
folder = sys.argv[1]
names = sorted(os.listdir(folder), reverse=True)
read_ahead.ask_for((Path(folder, name) for name in names), read_ahead.LISTED)
for name in names:
    for part in read_ahead.LISTED:
        file = os.open(f"{folder}/{name}/{part}", os.O_RDONLY)
        data = os.read(file, 1 << 20)
        os.close(file)
        if part != "recipe.yaml":
            orjson.loads(data)
"""


def _compiled() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def parts(
    folder: Path, words: tuple[str, ...], times: int, *, first: bool
) -> dict[str, list[float]]:
    """Seconds of each part of a command, once for each process. `first`: nothing is remembered."""
    cache = folder.parent / "cache"
    found: dict[str, list[float]] = {}
    for _ in range(times):
        if first:
            shutil.rmtree(cache, ignore_errors=True)
        cool(folder)
        cool(cache)
        env = {**_compiled(), "DGCCTL_CACHE_DIR": str(cache)}
        command = [sys.executable, "-c", _PARTS, *words, "--runs-dir", str(folder)]
        began = time.time()
        done = subprocess.run(
            command, env={**env, "BEGAN": repr(began)}, check=True, capture_output=True, text=True
        )
        ended = time.time()
        told = json.loads(done.stderr.rpartition("\n")[2])
        told["parts"]["Python ends"] = ended - told["ended"]
        for name, seconds in told["parts"].items():
            found.setdefault(name, []).append(seconds)
        found.setdefault(_WHOLE, []).append(ended - began)
    return found


def bound(folder: Path) -> float:
    """Seconds of a process that reads the files of a first listing, parses them and ends."""
    cool(folder)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _BOUND, str(folder)], env=_compiled(), check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    try:
        figures, shown = writable(asked.out / "manager.json"), writable(asked.out / "manager.md")
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    report = BenchReport("manager")
    key = report.add_machine(machine())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        folder.mkdir()
        make(folder, asked.runs)
        for question, bar, words in QUESTIONS:
            name = question.format(runs=asked.runs, compared=min(COMPARED, asked.runs))
            timed(folder, words, first=True)  # not counted: it leaves the compiled sources
            for first, when in ((True, "for the first time"), (False, "again")):
                values = [timed(folder, words, first=first) for _ in range(asked.times)]
                report.rows.append(_row(f"{name}, {when}", values, bar, key))
                write_report(figures, report)
        floor = [bound(folder) for _ in range(asked.times)]
        report.rows.append(_row(BOUND.format(runs=asked.runs), floor, None, key))
        for title, words, first in DIVIDED:
            for name, values in parts(folder, words, asked.times, first=first).items():
                report.rows.append(_row(f"{_PART}{title}: {name}", values, None, key))
            write_report(figures, report)
    shown.write_text(as_markdown(report))
    sys.stdout.write(as_markdown(report))
    return 0 if all(row.passed is not False for row in report.rows) else 1


def _row(name: str, values: list[float], bar: float | None, key: str) -> BenchRow:
    median = statistics.median(values)
    return BenchRow(
        "manager", name, unit="s", n=len(values), median=round(median, 3), high=round(max(values), 3),
        spread="worst", bar=bar, passed=None if bar is None else median <= bar, machine=key,
        values=tuple(round(value, 3) for value in values),
    )  # fmt: skip


def as_markdown(report: BenchReport) -> str:
    facts = report.machine
    lines = [
        "# The manager's speed", "",
        f"Measured {facts['date']} on {facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the start; "
        f"Python {facts['python']}. `python -m benchmarks.manager` repeats it. Each time is that of a whole "
        "process; before each, the files of the runs are put out of the system's cache. For the first time: nothing "
        "is remembered of the runs; again: those that have ended are remembered from the listing before.", "",
        "| question | median | worst | n | bar | |", "|--|--:|--:|--:|--:|--|",
    ]  # fmt: skip
    asked = [row for row in report.rows if not row.name.startswith(_PART)]
    for row in asked:
        held = {None: "", True: "holds", False: "**misses**"}[row.passed]
        bar = "" if row.bar is None else f"{row.bar:g} s"
        lines.append(f"| {row.name} | {row.median:g} s | {row.high:g} | {row.n} | {bar} | {held} |")
    for title, _, _ in DIVIDED:
        begins = f"{_PART}{title}: "
        measured = {
            row.name.removeprefix(begins): row for row in report.rows if row.name.startswith(begins)
        }
        if whole := measured.pop(_WHOLE, None):
            lines += [
                "", f"The parts of {title}, {whole.n} processes of their own:", "",
                "| part | median, s | of all, % |", "|--|--:|--:|",
            ]  # fmt: skip
            lines += [
                f"| {name} | {row.median:g} | {100 * row.median / whole.median:.0f} |"
                for name, row in measured.items()
            ]
            named = sum(row.median for row in measured.values()) / whole.median
            lines.append(f"| {_WHOLE} | {whole.median:g} | {100 * named:.0f} named |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
