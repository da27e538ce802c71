"""The whole suite for each instruction set, under each load, in three orders: `make matrix`.

Each combination is one row of a JSON lines file (commit, command, exit code, counts, seconds,
machine). A combination that has a row of this commit is not run again, so a matrix that was stopped
goes on where it was; `--again` runs those that were not green once more. Nothing here is a test: it
starts `make test` as a user would.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / ".matrix" / "rows.jsonl"  # figures of one machine at one commit: not kept in git
INSTRUCTIONS = ("", "baseline", "avx2")  # "" is the best that the machine has
LOADS = ("none", "one core", "two busy loops")
SEEDS = ("", "1", "2", "3")  # "" is the order of the files
_BUSY = "while True: pass"
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error|xfailed)")

Row = dict[str, Any]


def combinations(whole: bool) -> list[dict[str, str]]:
    """Each value of each kind beside the plain run of the others; all with all where the whole
    product is asked for.
    """
    every = [
        {"isa": isa, "load": load, "seed": seed}
        for isa in INSTRUCTIONS
        for load in LOADS
        for seed in SEEDS
    ]
    plain = {"isa": "", "load": "none", "seed": ""}
    return [one for one in every if whole or sum(one[key] != plain[key] for key in plain) <= 1]


def command(one: dict[str, str]) -> list[str]:
    """`make test` with what this combination asks for."""
    pairs = [f"{name.upper()}={one[name]}" for name in ("isa", "seed") if one[name]]
    pinned = (
        ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one["load"] == "one core" else []
    )
    return [*pinned, "make", "test", *pairs]


@contextlib.contextmanager
def busy(load: str) -> Iterator[None]:
    """Two processes that compute for nothing, while entered."""
    count = 2 if load == "two busy loops" else 0
    loops = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def counts(output: str) -> dict[str, int]:
    """What pytest's last line says, by outcome."""
    lines = [line for line in output.splitlines() if _COUNTS.search(line) and " in " in line]
    return {what: int(number) for number, what in _COUNTS.findall(lines[-1])} if lines else {}


def run(one: dict[str, str], commit: str, log: Path) -> Row:
    """Run one combination; its whole output goes to a file beside the rows."""
    words, began = command(one), time.monotonic()
    with busy(one["load"]):
        done = subprocess.run(
            words,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    output = done.stdout.decode("utf-8", "replace")
    log.write_text(output, encoding="utf-8")
    failed = [
        line.split(" - ")[0].split(" ", 1)[1]
        for line in output.splitlines()
        if line.startswith("FAILED ")
    ]
    return {
        "commit": commit,
        "command": " ".join(words),
        **one,
        "exit_code": done.returncode,
        "counts": counts(output),
        "failed": failed,
        "seconds": round(time.monotonic() - began),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def commit_of(folder: Path) -> str:
    """The commit, marked where files differ from it. Raises CalledProcessError outside a
    repository.
    """
    words = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(
        words, cwd=folder, text=True, capture_output=True, check=True
    ).stdout.strip()


def stored(rows: Path) -> list[Row]:
    """The rows so far; a last line that a kill has cut counts as none."""
    found = []
    for line in rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def missing(
    wanted: list[dict[str, str]], rows: list[Row], commit: str, again: bool
) -> list[dict[str, str]]:
    """The combinations without a row of this commit (or, `again`, without a green one)."""
    have = [row for row in rows if row["commit"] == commit and (row["exit_code"] == 0 or not again)]
    return [
        one for one in wanted if not any(all(row[key] == one[key] for key in one) for row in have)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print a line for each; 1 where a row of this commit is not green."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--whole", action="store_true", help="all values with all others (36 runs instead of 8)"
    )
    parser.add_argument(
        "--again", action="store_true", help="run those that were not green once more"
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="where the rows are kept")
    options = parser.parse_args(arguments)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    commit, wanted = commit_of(ROOT), combinations(options.whole)
    for one in missing(wanted, stored(options.rows), commit, options.again):
        name = "-".join(
            filter(None, [one["isa"] or "best", one["load"].replace(" ", "_"), one["seed"]])
        )
        row = run(one, commit, options.rows.with_name(f"{name}.txt"))
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{row['command']} ({row['load']}): exit {row['exit_code']}, {row['counts']},"
            f" {row['seconds']} s",
            flush=True,
        )
    left = missing(wanted, stored(options.rows), commit, again=True)
    for one in left:
        print(f"not green: {one}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
