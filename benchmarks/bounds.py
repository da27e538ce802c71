"""The design's bars in seconds that are no tests: `python -m benchmarks.bounds`, on a machine that
is otherwise idle.

Tests count instead (modules loaded, bytes read, memory); those of the dashboard stand in
benchmarks/dashboard.py. Prints a line a bar, median and worst of the repetitions, and ends with 1
where a median misses its bar.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dgc.errors import RecipeError
from dgc.recipe.load import load_recipe
from dgc.run.events import EventKind, EventReader, encode_event
from dgc.run.paths import RunDir

REPETITIONS = 7
ALIASES = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def help_text(_: Path) -> None:
    """`dgcctl --help`, from the start of its process to its end."""
    subprocess.run([sys.executable, "-m", "dgcctl", "--help"], check=True, capture_output=True)


def hostile_recipe(folder: Path) -> None:
    """A recipe of 400 bytes that would expand to gigabytes."""
    path = folder / "bomb.yaml"
    path.write_text(ALIASES)
    with contextlib.suppress(RecipeError):
        load_recipe(path)


def long_log(folder: Path) -> None:
    """One look at a log that has grown by 100 MB."""
    run = RunDir(folder)
    if not run.events.exists():
        line = encode_event(EventKind.STEP, {"step": 1, "loss": 1.0, "text": "x" * 900})
        run.events.write_bytes(line * (100_000_000 // len(line)))
    EventReader(run.events, chunk=1 << 20).poll()


BARS: dict[str, tuple[Callable[[Path], None], float]] = {
    "dgcctl --help": (help_text, 0.3),
    "a recipe that is a bomb is refused": (hostile_recipe, 0.5),
    "one look at a log that grew by 100 MB": (long_log, 1.0),
}


def main() -> int:
    """Measure every bar; 1 where one is missed."""
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        for question, (work, bar) in BARS.items():
            work(Path(name))  # warms caches, makes files
            seconds = [_seconds(work, Path(name)) for _ in range(REPETITIONS)]
            median, worst = statistics.median(seconds), max(seconds)
            missed += median > bar
            print(
                f"{question}: {median:.3f} s (worst {worst:.3f}), bar {bar} s:"
                f" {'held' if median <= bar else 'MISSED'}"
            )
    return int(missed > 0)


def _seconds(work: Callable[[Path], None], folder: Path) -> float:
    began = time.perf_counter()
    work(folder)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
