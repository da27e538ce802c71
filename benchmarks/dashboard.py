"""How quick is the dashboard? `python -m benchmarks.dashboard` writes
benchmarks/results/dashboard.{json,md}.

Bars (the design's): 1,000 runs listed in < 1 s; a new event on screen in <= 0.5 s; a key to its
frame in <= 50 ms while a run with 100,000 points is open; nothing drawn while nothing changes.
Beside them: 12,000 metric names, memory, and the chart libraries that could draw the same 100,000
points.

Keys and events are measured from outside: `dgcctl dash` runs in a pseudo-terminal of 160 x 48, and
the time goes from the key (or the append to events.jsonl) to the first byte of the frame. The rest
is measured in the app, headless. n repetitions; median and worst are given.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from dgc.bench.place import writable
from dgc.bench.rows import BenchReport, BenchRow, write_report
from dgc.errors import UsageError
from dgc.run.paths import RunDir, create_run
from dgcctl.tui.app import DashApp
from dgcctl.tui.screens.run_screen import RunScreen
from tests.tui import frames, synthetic
from tests.tui.synthetic import Spec
from tests.tui.terminal import Terminal

RESULTS = Path(__file__).parent / "results"
SIZE = (160, 48)
POINTS, RUNS, NAMES = 100_000, 1_000, 12_000


@dataclass
class Figure:
    """One row of the report. `bar` None: there is none, the figure is for information."""

    question: str
    unit: str
    values: list[float]
    bar: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self, machine: str) -> BenchRow:
        return BenchRow(
            "dashboard",
            self.question,
            unit=self.unit,
            n=len(self.values),
            median=round(self.median, 3),
            high=round(max(self.values), 3),
            spread="worst",
            bar=self.bar,
            passed=None if self.bar is None else self.median <= self.bar,
            machine=machine,
            note=self.note,
        )


@dataclass
class Place:
    """A runs folder for one question."""

    folder: Path
    figures: list[Figure] = field(default_factory=list)


# --- making runs ----------------------------------------------------------------------------------


def big_run(folder: Path, points: int = POINTS, keys: int = 0, suffix: str = "aaaaaa") -> RunDir:
    """A run of many points. It has ended, for the figures of a living process would be frames of
    their own.
    """
    spec = Spec(
        suffix=suffix, state="stopped", epochs=100, steps_per_epoch=points // 100, now_step=0
    )
    run = synthetic.make(folder, spec)
    synthetic.fast_steps(run, points, started=time.time() - points * 0.1, keys=keys)
    return run


def many_runs(folder: Path, count: int) -> None:
    """Finished runs that differ in seed and result."""
    template = synthetic.make(folder, Spec(now_step=600))
    kept = {
        path.relative_to(template.path): path.read_bytes()
        for path in template.path.rglob("*")
        if path.is_file()
    }
    for _ in range(count - 1):
        run = create_run(folder, "demo_fashion")
        for name, data in kept.items():
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_bytes(data)


@asynccontextmanager
async def opened(folder: Path, *names: str) -> Any:
    """The app on these runs, everything read, quiet."""
    app = DashApp(frames.options(folder, open=names, interval=0.2))
    async with app.run_test(size=SIZE) as pilot:
        await frames.until(
            pilot, lambda: app.complete and (not names or isinstance(app.screen, RunScreen)), 120
        )
        await frames.settled(pilot)
        yield app, pilot


def rendered(app: DashApp) -> None:
    """All lines of the frame, as they go to the terminal."""
    for strip in app.screen._compositor.render_strips():
        strip.render(app.console)


# --- questions ------------------------------------------------------------------------------------


def terminal(folder: Path, *names: str) -> Terminal:
    """`dgcctl dash` as a user starts it, in a pseudo-terminal, everything read, quiet."""
    env = {"DGCCTL_CACHE_DIR": str(folder.parent / "cache")}
    found = Terminal(
        ["-m", "dgcctl", "dash", *names, "--runs-dir", str(folder)], size=SIZE, env=env
    )
    found.wait_for(lambda: found.shows("images/s"), 60, "the run")
    quiet(found, 1.5)
    return found


def quiet(found: Terminal, seconds: float) -> None:
    """Wait until nothing has been written for a while."""
    size, since = -1, time.perf_counter()
    while time.perf_counter() - since < seconds:
        if len(found.output) != size:
            size, since = len(found.output), time.perf_counter()
        time.sleep(0.01)


def until_written(found: Terminal, act: Callable[[], object]) -> float:
    """Seconds from an act to the first byte of the frame that it causes (a frame is written whole)."""
    found.output.clear()
    began = time.perf_counter()
    act()
    while not found.output:
        if time.perf_counter() - began > 10:
            raise AssertionError("no frame came")
        time.sleep(0.0002)
    return time.perf_counter() - began


KEYS = {
    "cursor left": "\x1b[D", "logarithmic y": "y", "steps, epochs, time": "x", "smooth (all points averaged anew)": "+",
    "log opened and closed": "l",
}  # fmt: skip


async def key_to_frame(folder: Path) -> list[Figure]:
    """From a key typed into the terminal to the frame that the terminal gets, with 100,000 points
    open.
    """
    run, other = big_run(folder), big_run(folder, POINTS // 2, suffix="second")
    told = []
    for names, shown in (
        ((run.id,), f"{POINTS:,} points"),
        ((run.id, other.id), f"{POINTS * 3 // 2:,} points, two runs"),
    ):
        found = terminal(folder, *names)
        try:
            for name, key in KEYS.items():
                values = [_press(found, key) for _ in range(12)]
                told.append(Figure(f"key to frame: {name}; {shown}", "ms", values[2:], 50.0))
        finally:
            found.end()
    return told


def _press(found: Terminal, key: str) -> float:
    """Milliseconds from the key to its frame; smoothing is then undone, so that the next one
    averages anew.
    """
    took = until_written(found, lambda: found.type(key)) * 1000
    quiet(found, 0.15)
    if key == "+":
        until_written(found, lambda: found.type("0"))
        quiet(found, 0.15)
    return took


async def event_to_screen(folder: Path) -> list[Figure]:
    """From the write of an event to the frame that the terminal gets."""
    run = big_run(folder)
    spec = Spec(epochs=100, steps_per_epoch=POINTS // 100)
    found = terminal(folder, run.id)
    values = []
    try:
        for index in range(15):
            lines = b"".join(synthetic.step_lines(spec, POINTS + index + 1))

            def append(lines: bytes = lines) -> None:
                with run.events.open("ab") as file:
                    file.write(lines)

            values.append(until_written(found, append))
            quiet(found, 0.3 + 0.017 * index)  # at every phase of the poll
    finally:
        found.end()
    return [Figure(f"event written to its frame; {POINTS:,} points open", "s", values, 0.5)]


async def thousand_runs(folder: Path) -> list[Figure]:
    """From the start of the app to the frame with all runs; then filter and group."""
    many_runs(folder, RUNS)
    starts, filters = [], []
    for _ in range(5):
        app = DashApp(frames.options(folder, interval=0.2))
        began = time.perf_counter()
        async with app.run_test(size=SIZE) as pilot:
            while len(getattr(getattr(app.screen, "listing", None), "rows", ())) < RUNS:
                await asyncio.sleep(0.001)
            rendered(app)
            starts.append(time.perf_counter() - began)
            await pilot.pause(0.3)
            app.store.view.filter = "seed=0 lr>0.05 state=done"
            began = time.perf_counter()
            app.screen.look()
            rendered(app)
            filters.append((time.perf_counter() - began) * 1000)
    return [
        Figure(f"{RUNS:,} runs listed, from the start of the app", "s", starts, 1.0),
        Figure(
            f"filter by a recipe key over {RUNS:,} runs (first time: reads their recipes)",
            "ms",
            filters,
        ),
    ]


async def many_names(folder: Path) -> list[Figure]:
    """A run with 12,000 metric names: open its list, search in it."""
    run = big_run(folder, 2_000, NAMES)
    lists, searches = [], []
    async with opened(folder, run.id) as (app, pilot):
        screen = app.screen
        for _ in range(6):
            began = time.perf_counter()
            screen.action_drawer("metrics")
            rendered(app)
            lists.append((time.perf_counter() - began) * 1000)
            screen.drawer.search = "probe/117"
            began = time.perf_counter()
            screen.look()
            rendered(app)
            searches.append((time.perf_counter() - began) * 1000)
            screen.action_drawer("metrics")
            await pilot.pause(0.1)
        assert len(app.store.feed(run.id).names()) > NAMES
    return [
        Figure(f"{NAMES:,} metric names: open the list", "ms", lists[1:]),
        Figure(f"{NAMES:,} metric names: search", "ms", searches[1:]),
    ]


async def catching_up(folder: Path) -> list[Figure]:
    """Opening a run of 100,000 points: until all are there, and the longest the UI thread was busy
    meanwhile.
    """
    run = big_run(folder)
    app = DashApp(frames.options(folder, open=(run.id,), interval=0.2))
    began = time.perf_counter()
    longest = 0.0
    async with app.run_test(size=SIZE):
        last = time.perf_counter()
        while not (isinstance(app.screen, RunScreen) and app.complete):
            await asyncio.sleep(0)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        rendered(app)
        took = time.perf_counter() - began
    rss = psutil.Process().memory_info().rss / 2**20
    return [
        Figure(f"start to all {POINTS:,} points on screen", "s", [took]),
        Figure("longest time the screen's thread was busy meanwhile", "ms", [longest * 1000]),
        Figure(f"memory of the process with {POINTS:,} points open", "MiB", [rss]),
    ]


async def idle(folder: Path) -> list[Figure]:
    """Frames drawn, and CPU used, while nothing changes."""
    synthetic.make(folder, Spec())
    drawn: list[object] = []
    async with opened(folder, "aaaaaa") as (app, pilot):
        await pilot.pause(1)
        shown = app._display
        app._display = lambda screen, what: (drawn.append(what), shown(screen, what))  # type: ignore[method-assign]
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(10)
        share = (time.process_time() - cpu) / (time.perf_counter() - began) * 100
    return [
        Figure("frames drawn in 10 s in which nothing changed", "frames", [float(len(drawn))], 0.0),
        Figure("CPU while nothing changes (poll every 0.2 s)", "% of a core", [share]),
    ]


async def libraries(folder: Path) -> list[Figure]:
    """The same 100,000 points, by our reduction on the kept canvas, and handed to each library as
    they are.
    """
    import numpy as np

    values = (
        0.3
        + np.exp(-np.arange(POINTS) / POINTS * 6)
        + np.random.default_rng(0).normal(0, 0.05, POINTS)
    )
    steps = np.arange(POINTS, dtype=float)
    told = [
        Figure(
            "100,000 points into one chart: reduced to columns, textual-hires-canvas (ours)",
            "ms",
            _ours(steps, values),
        )
    ]
    for name, draw in (
        ("textual-plot", _textual_plot),
        ("plotext (what textual-plotext wraps)", _plotext),
    ):
        try:
            told.append(
                Figure(
                    f"100,000 points into one chart: {name}, as they are",
                    "ms",
                    await draw(steps, values),
                )
            )
        except ImportError:
            sys.stderr.write(f"{name} is not installed: left out\n")
    return told


def _ours(steps: Any, values: Any) -> list[float]:
    from textual_hires_canvas import Canvas

    from dgcctl.tui.raster import cells, characters, spans

    canvas, told = Canvas(140, 40), []
    for _ in range(6):
        began = time.perf_counter()
        canvas.reset(refresh=False)
        canvas._refreshes_pending = 1
        reduced = spans(steps, values, 0.0, float(POINTS), 280)
        for column, row, character in characters(cells(reduced, 0.0, 1.5, 140, 40)):
            canvas.set_pixel(column, row, character, "red")
        told.append((time.perf_counter() - began) * 1000)
    return told[1:]


async def _textual_plot(steps: Any, values: Any) -> list[float]:
    from textual.app import App, ComposeResult
    from textual_plot import HiResMode, PlotWidget

    class One(App[None]):
        def compose(self) -> ComposeResult:
            yield PlotWidget()

    told = []
    app = One()
    async with app.run_test(size=(150, 44)) as pilot:
        plot = app.query_one(PlotWidget)
        for _ in range(3):
            began = time.perf_counter()
            plot.clear()
            plot.plot(steps, values, hires_mode=HiResMode.BRAILLE)
            await pilot.pause()
            told.append((time.perf_counter() - began) * 1000)
    return told


async def _plotext(steps: Any, values: Any) -> list[float]:
    import plotext

    told = []
    for _ in range(3):
        began = time.perf_counter()
        plotext.clear_figure()
        plotext.plotsize(140, 40)
        plotext.plot(steps.tolist(), values.tolist(), marker="braille")
        plotext.build()
        told.append((time.perf_counter() - began) * 1000)
    return told


QUESTIONS: list[Callable[[Path], Awaitable[list[Figure]]]] = [
    thousand_runs, event_to_screen, key_to_frame, catching_up, many_names, idle, libraries,
]  # fmt: skip


# --- report ---------------------------------------------------------------------------------------


def ask(index: int, machine: str) -> list[BenchRow]:
    """One question in this process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        folder.mkdir()
        return [
            figure.row(machine) for figure in asyncio.run(_as_coroutine(QUESTIONS[index](folder)))
        ]


async def _as_coroutine(awaited: Awaitable[list[Figure]]) -> list[Figure]:
    return await awaited


def machine() -> dict[str, Any]:
    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("textual", "textual-hires-canvas", "numpy", "rich")
    return {
        "cpu": cpu, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "python": platform.python_version(),
        "packages": {name: version(name) for name in packages}, "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def as_markdown(report: BenchReport) -> str:
    facts = report.machine
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    lines = [
        "# The dashboard's speed", "",
        f"Measured {facts['date']} on {facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the start; "
        f"Python {facts['python']}, {packages}. `make bench-dashboard` repeats it. "
        f"{SIZE[0]} x {SIZE[1]} cells; each question in a process of its own; keys and events through a "
        "pseudo-terminal.", "",
        "| question | median | worst | n | bar | |", "|--|--:|--:|--:|--:|--|",
    ]  # fmt: skip
    for row in report.rows:
        held = {None: "", True: "holds", False: "**misses**"}[row.passed]
        bar = "" if row.bar is None else f"{row.bar:g} {row.unit}"
        lines.append(
            f"| {row.name} | {row.median:g} {row.unit} | {row.high:g} | {row.n} | {bar} | {held} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    try:
        figures, shown = writable(out / "dashboard.json"), writable(out / "dashboard.md")
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    report = BenchReport("dashboard")
    key = report.add_machine(machine())
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for index in range(len(QUESTIONS)):
            report.rows += pool.apply(ask, (index, key))
            write_report(figures, report)
    shown.write_text(as_markdown(report))
    sys.stdout.write(as_markdown(report))
    return 0 if all(row.passed is not False for row in report.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
