"""The stages of dvc.yaml. DVC deletes a stage's outputs before it runs and guards against Ctrl-C
only.

So the run directory is no output: it stays below runs/, an interrupted one is found again and
resumed, and the output is an export, written when the run is done. A run is taken up only if it was
made for the same output, and computes the same: recipe, and the code that computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, UsageError
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe
from dgc.run import provenance
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.core.launch import launcher
from dgcctl.core.launch.query import query
from dgcctl.core.launch.run_to_end import run_to_end
from dgcctl.core.report.build import write_report
from dgcctl.core.repro import run_archive
from dgcctl.core.runs import listing
from dgcctl.core.runs.record import read_record

MARK = "stage.json"
_TIMES = ("images_per_s", "seconds")
Say = Callable[[str], None]


def prepare(recipe: str, out: Path) -> dict[str, Any]:
    """Check that the data is there and write its digest and counts.
    Raises DataError, saying what is missing.
    """
    # in a process of its own: this one must not load torch
    data: dict[str, Any] = dict(
        query("dgc.jobs.metadata", ["--recipe", str(find_recipe(recipe)), "--data-only"])["data"]
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, data)
    return data


# --- train ----------------------------------------------------------------------------------------


def train(recipe: str, out: Path, folder: Path, say: Say) -> RunDir:
    """Train, or go on where an interrupted call was, and export to `out`.
    Raises the trainer's error.
    """
    wanted = load_recipe(find_recipe(recipe))
    run = _taken_up(wanted, out, folder, say) or _new_run(wanted, out, folder)
    _wait_while_running(run, say)
    if listing.read_run(run).state != State.DONE:
        # last.json: without a checkpoint there is nothing
        # to go on from, and it starts from the beginning
        resume = ["--resume"] if run.last.exists() else []
        say(f"run {run.id}: {'resumed' if resume else 'started'}")
        run_to_end(
            run,
            [*launcher.module_command("dgc.train"), "--run-dir", str(run.path.absolute()), *resume],
        )
    run_archive.export(run, out)
    # marked after the export: a kill in between exports once more, which is harmless
    _mark(run, out, exported=True)
    return run


def _new_run(wanted: Recipe, out: Path, folder: Path) -> RunDir:
    run = launcher.create(
        folder, wanted.name, dump_recipe(wanted), {"argv": ["dvc", "repro"], "out": str(out)}
    )
    _mark(run, out, exported=False)
    return run


def _mark(run: RunDir, out: Path, *, exported: bool) -> None:
    facts = {"out": str(out), "exported": exported, "code": provenance.code_digest()}
    write_json(run.file(MARK), facts)


def _taken_up(wanted: Recipe, out: Path, folder: Path, say: Say) -> RunDir | None:
    """The newest run for this output that was never exported, if it computes what is wanted now."""
    # the newest first; of runs that were exported none is taken up, they are done
    for seen in listing.list_runs(folder):
        mark = _read_mark(seen.dir)
        if mark is None or mark.get("out") != str(out) or mark.get("exported"):
            continue
        # the recipe first: who changed it wants another training, whatever the code
        if load_recipe(seen.dir.recipe).digest() != wanted.digest():
            say(f"run {seen.id} was interrupted, but its recipe differs: a new one is started")
        elif mark.get("code") != provenance.code_digest():
            say(f"run {seen.id} was interrupted, but its code differs: a new one is started")
        elif seen.state in (*listing.RESUMABLE, State.RUNNING, State.DONE):
            return seen.dir
        # only the newest of this output counts: an older one was given up before
        return None
    return None


def _read_mark(run: RunDir) -> dict[str, Any] | None:
    try:
        return read_json(run.file(MARK))
    except (OSError, DgcError):
        return None


def _wait_while_running(run: RunDir, say: Say) -> None:
    """A trainer that outlived the DVC that started it is waited for."""
    if listing.read_run(run).state == State.RUNNING:
        say(f"run {run.id} is still being trained: waiting for it")
    while listing.read_run(run).state == State.RUNNING:
        time.sleep(0.5)


# --- evaluate and report --------------------------------------------------------------------------


def evaluate(recipe: str, exported: Path, out: Path) -> dict[str, Any]:
    """Evaluate an export's final weights as the recipe says now,
    and hold them against what it expects.

    The final ones, not the best: the best are chosen on the very images that are measured here.
    """
    # an export that was changed would be measured as if it were the run's
    changed = run_archive.check_export(exported)
    if changed:
        raise UsageError(
            f"{exported}: changed since it was exported ({', '.join(changed[:3])}): `dvc repro -f`"
            " makes it anew"
        )
    run = RunDir(exported)
    weights = run.path / str(read_json(run.last)["path"])
    path = find_recipe(recipe)
    answer = query(
        "dgc.jobs.evaluate",
        ["--weights", str(weights / "model.safetensors"), "--recipe", str(path)],
    )
    figures = _figures(answer)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {**figures, **_verdicts(answer["expected"], figures)}
    write_json(out, found)
    return found


def _figures(answer: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation that a repetition must give again,
    named as in a run's metrics.json.
    """
    flat = {**answer, **{f"macs_{key}": value for key, value in answer.get("macs", {}).items()}}
    # times differ from run to run, and DVC would see another result each time
    left_out = (*_TIMES, "world_size", "chunk")
    return {
        key: value
        for key, value in flat.items()
        if isinstance(value, int | float) and key not in left_out
    }


def _verdicts(expected: list[dict[str, Any]], figures: dict[str, Any]) -> dict[str, bool]:
    """`<metric>_reached` for each figure that is expected of these images."""
    return {
        f"{row['metric']}_reached": figures[row["metric"]] <= row["expected"] + row["tolerance"]
        for row in expected
        if row["metric"] in figures
    }


def report(recipe: str, exported: Path, evaluation: Path, out: Path, pictures: Path) -> None:
    """The report page of an export, with title and expectation as the recipe says now."""
    wanted = load_recipe(find_recipe(recipe))
    facts = read_record(RunDir(exported))
    figures = read_json(evaluation)
    # the recipe of now: its title and expectations may have been mended since
    expected = [vars(row) for row in wanted.expect]
    verdicts = [
        {
            **row,
            "expected": row["value"],
            "value": figures[row["metric"]],
            "passed": figures[f"{row['metric']}_reached"],
        }
        for row in expected
        if f"{row['metric']}_reached" in figures
    ]
    now = {**facts.recipe, "title": wanted.title, "expect": expected}
    write_report([replace(facts, recipe=now, verdict={"verdicts": verdicts})], out, pictures)
