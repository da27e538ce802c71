"""What a logged step costs a plain script, and what is left of its log after kill -9.

    python -m benchmarks.script_log             # all, in turns; results/scripts.json and .md
    python -m benchmarks.script_log --report    # the page again, from the results

The same loop (a product of two matrices a step) logs three figures a step with `dgc.run.start`, with
TensorBoard's SummaryWriter as it comes, with the same flushed after each step, and with wandb
offline; `none` logs nothing. Each is a process of its own, and they take turns. `call` is the time of
the logging call as the script sees it; `loop` what a step of the loop takes more than without
logging, which counts threads and processes that work beside it too.

After kill -9: a script logs 1,000 steps and kills itself right after the last one; what the tool's own
reader then finds is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dgc.bench import machine
from dgc.bench.rows import BenchReport, BenchRow, read_report, write_report

RESULTS = Path(__file__).resolve().parent / "results"
JSON, PAGE = RESULTS / "scripts.json", RESULTS / "scripts.md"
BAR = 50.0  # microseconds a logged step
STEPS, ROUNDS, KILLS = 2000, 3, 3
KILLED_AFTER = 1000
NAMES = {
    "none": "no logging",
    "dgc": "`dgc.run.start`",
    "tensorboard": "TensorBoard's SummaryWriter",
    "tensorboard_flushed": "the same, `flush()` each step",
    "wandb": "wandb, offline",
}
Log = Callable[[int, float], None]
End = Callable[[], None]


# --- one script ------------------------------------------------------------------------------------


def open_log(name: str, folder: Path) -> tuple[Log, End]:
    """What a step calls, and what the end of the script calls."""
    if name == "dgc":
        import dgc

        run = dgc.run.start("own-loop", {"lr": 0.1}, steps=STEPS, runs_dir=folder)
        return lambda step, loss: run.log(step, loss=loss, lr=0.1, error=5.0), run.finish
    if name.startswith("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder))

        def add(step: int, loss: float) -> None:
            writer.add_scalar("loss", loss, step)
            writer.add_scalar("lr", 0.1, step)
            writer.add_scalar("error", 5.0, step)
            if name.endswith("flushed"):
                writer.flush()

        return add, writer.close
    if name == "wandb":
        import wandb

        settings = wandb.Settings(mode="offline", silent=True)
        kept = wandb.init(dir=str(folder), project="p", config={"lr": 0.1}, settings=settings)
        return lambda step, loss: kept.log(
            {"loss": loss, "lr": 0.1, "error": 5.0}, step=step
        ), kept.finish
    return lambda _step, _loss: None, lambda: None


def script(name: str, folder: Path, steps: int, *, killed: bool) -> None:
    """The loop; its times on stdout."""
    import numpy as np

    rng = np.random.default_rng(0)
    a = rng.standard_normal((192, 192), dtype=np.float32)
    clock = time.perf_counter
    began = clock()
    log, end = open_log(name, folder)
    started = clock() - began
    calls = []
    loop = clock()
    for step in range(1, steps + 1):
        loss = float((a @ a)[0, 0])
        before = clock()
        log(step, loss)
        calls.append(clock() - before)
    looped = clock() - loop
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    before = clock()
    end()
    told = {"calls": calls, "loop": looped, "start": started, "end": clock() - before}
    sys.stdout.write(json.dumps(told))


def call(name: str, folder: Path, steps: int, *, killed: bool = False) -> dict[str, Any]:
    words = ["--script", name, str(folder), str(steps), *(["--killed"] if killed else [])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.script_log", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != (-signal.SIGKILL if killed else 0):
        raise SystemExit(f"{name} ended with {done.returncode}")
    return {} if killed else dict(json.loads(done.stdout))


# --- what was kept ---------------------------------------------------------------------------------


def kept(name: str, folder: Path) -> int:
    """Steps of which all figures can be read."""
    if name == "dgc":
        from dgc.run.events import read_events
        from dgc.run.paths import RunDir

        (run,) = folder.iterdir()
        return sum(event["kind"] == "step" for event in read_events(RunDir(run)))
    if name.startswith("tensorboard"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        tags = found.Tags()["scalars"]
        return min((len(found.Scalars(tag)) for tag in tags), default=0) if len(tags) == 3 else 0
    time.sleep(3)  # its service goes on after the script, and writes what it was sent
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return sum(1 for record in wandb_records(file) if record.WhichOneof("record_type") == "history")


def wandb_records(file: Path) -> Iterator[Any]:
    """LevelDB's log format: records of protobuf in blocks of 32 KiB. Ends at the first half one."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        piece = data[place + 7 : place + 7 + length]
        if len(piece) < length or kind not in (1, 2, 3, 4):
            return
        whole += piece
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            try:
                record.ParseFromString(whole)
            except DecodeError:
                return
            yield record
            whole = b""


# --- all of them -----------------------------------------------------------------------------------


def measure() -> BenchReport:
    """Every contender in turns, then every contender killed."""
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for _ in range(ROUNDS):
        for name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                told[name].append(call(name, Path(folder), STEPS))
    left: dict[str, list[int]] = {}
    for name in [name for name in NAMES if name != "none"]:
        left[name] = []
        for _ in range(KILLS):
            with tempfile.TemporaryDirectory() as folder:
                call(name, Path(folder), KILLED_AFTER, killed=True)
                left[name].append(kept(name, Path(folder)))
    report = BenchReport("scripts")
    key = report.add_machine({**machine.facts(), "beside": versions()})
    run = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bare = statistics.median(one["loop"] for one in told["none"]) / STEPS
    report.add_run([_row(name, told[name], left.get(name), bare, key, run) for name in NAMES])
    return report


def versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tensorboard", "wandb")}


def _row(
    name: str,
    told: list[dict[str, Any]],
    left: list[int] | None,
    bare: float,
    key: str,
    run: str,
) -> BenchRow:
    calls = [1e6 * value for one in told for value in one["calls"]]
    low, median, high = statistics.quantiles(calls, n=4, method="inclusive")
    loops = [1e6 * (one["loop"] / STEPS - bare) for one in told]
    more = {
        "mean_call_us": statistics.fmean(calls),
        "loop_us": statistics.median(loops),
        "loop_us_rounds": loops,
        "step_without_us": 1e6 * bare,
        "start_ms": 1e3 * statistics.median(one["start"] for one in told),
        "end_ms": 1e3 * statistics.median(one["end"] for one in told),
        "killed_after": KILLED_AFTER,
        "kept_after_kill": left,
    }
    own = name == "dgc"
    return BenchRow(
        "scripts",
        name,
        unit="us/step",
        n=len(calls),
        median=median,
        low=low,
        high=high,
        bar=BAR if own else None,
        passed=median < BAR if own else None,
        machine=key,
        run=run,
        threads=1,
        more=more,
    )


def page(report: BenchReport) -> str:
    facts = report.machine
    beside = ", ".join(f"{name} {version}" for name, version in facts["beside"].items())
    bare = report.rows[0].more["step_without_us"]
    lines = [
        "# A logged step of one's own script",
        "",
        "`python -m benchmarks.script_log` wrote this page from [scripts.json](scripts.json).",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['date']}; Python {facts['python']}, "
        f"torch {facts['packages']['torch']}, {beside}.",
        f"A step without logging takes {bare:.0f} µs; three figures are logged each step; "
        f"{ROUNDS} rounds of {STEPS:,} steps each, in turns.",
        "",
        "| | call, median (quartiles), µs | call, mean, µs | the loop takes longer, µs a step"
        " | start, ms | end, ms | of 1,000 steps left after kill -9 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report.rows[1:]:
        more = row.more
        left = more["kept_after_kill"]
        span = f"{min(left)}" if min(left) == max(left) else f"{min(left)} to {max(left)}"
        lines.append(
            f"| {NAMES[row.name]} | {row.median:.1f} ({row.low:.1f} to {row.high:.1f})"
            f" | {more['mean_call_us']:.1f} | {more['loop_us']:.1f} | {more['start_ms']:.0f}"
            f" | {more['end_ms']:.0f} | {span} (n = {len(left)}) |"
        )
    own = next(row for row in report.rows if row.name == "dgc")
    word = "kept" if own.passed else "missed"
    lines += [
        "",
        f"The bar, {BAR:.0f} µs a logged step: {word}, {own.median:.1f} µs.",
        "",
        "`dgc.run.log` hands each step to the system before it returns, so that a killed process has lost"
        " nothing. SummaryWriter hands its figures to a thread of the script, and wandb to a process beside"
        " it: what they had not taken when it was killed is lost.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", nargs=3, metavar=("NAME", "FOLDER", "STEPS"))
    parser.add_argument("--killed", action="store_true")
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.script:
        name, folder, steps = given.script
        script(name, Path(folder), int(steps), killed=given.killed)
        return
    if not given.report:
        write_report(JSON, measure())
    PAGE.write_text(page(read_report(JSON, "scripts")), encoding="utf-8")


if __name__ == "__main__":
    main()
