"""What a run came to: the lines that `train`, `resume` and `runs show` print."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from dgc.errors import DgcError, TargetMissedError
from dgc.run import code_record
from dgc.run.class_folders import FOLDER_SETS
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.trusted_code import CODE_KEYS, trust_words, untrusted
from dgc.talk import shown
from dgcctl.cli._ui import output
from dgcctl.cli._ui.diagnostics import Painted, paint
from dgcctl.cli._ui.state_style import state_style
from dgcctl.core import numbers, settings
from dgcctl.core.compare.seeds import COST_KEYS
from dgcctl.core.runs.listing import RESUMABLE, Run, end_of_schedule, evaluated_macs, read_run
from dgcctl.core.runs.record import few_images, own_figures

_METRICS = {"top1_error": "top-1 error", "top5_error": "top-5 error"}
TOP5_MEANS_NOTHING = 5  # of so many classes or fewer the right one is always among the first five


def read_optional(run: RunDir, name: str) -> dict[str, Any]:
    """A JSON record of a run, {} where it is absent or damaged."""
    try:
        value = read_json(run.file(name))
    except (OSError, DgcError):
        return {}
    value.pop("schema_version", None)
    return value


def verdicts(run: RunDir) -> list[dict[str, Any]]:
    """verdict.json: what the recipe expected and what came."""
    found = read_optional(run, "verdict.json").get("verdicts", [])
    return [row for row in found if isinstance(row, dict)]


def document(run: RunDir) -> dict[str, Any]:
    """The whole of a run for --json."""
    seen = read_run(run)
    return {
        "run": seen.row(),
        "labels": {"tags": seen.values["tags"], "note": seen.values["note"]},
        "verdicts": verdicts(run),
        "metrics": seen.metrics,
        "model": {
            key: value for key, value in read_optional(run, "model.json").items() if key != "layers"
        },
        "data": read_optional(run, "data.json"),
        "git": read_optional(run, "git.json"),
        "recipe": seen.recipe,
        "last": read_optional(run, "last.json"),
        "best": read_optional(run, "best.json"),
    }


def rows(run: RunDir) -> list[tuple[str, Any]]:
    """`name, value` lines: result first, then what it was measured on, then where it lies."""
    seen = read_run(run)
    lines = [
        ("run", seen.id),
        ("state", _state(seen)),
        *([("repeats", seen.repeats)] if seen.repeats else []),
        *_labels(seen),
        *_results(run, seen),
        *_made(run, seen),
        *_cost(run, seen),
        *_code(run),
    ]
    return [
        *lines,
        ("where", run.path),
        *_own_code(seen),
        *[("next", command) for command in next_commands(seen)],
    ]


def _how_far(seen: Run) -> str:
    status = seen.status
    if not status.step and seen.state in RESUMABLE - {"queued"}:
        return "no step was made"
    if not status.steps and not status.step:
        return "not started"
    epoch = [f"epoch {status.epoch}/{status.epochs}"] if status.epochs else []
    return ", ".join([*epoch, f"step {numbers.part(status.step, status.steps)}"])


def _labels(seen: Run) -> list[tuple[str, Any]]:
    tags, note = " ".join(map(str, seen.values["tags"])), seen.values["note"]
    return [(name, text) for name, text in (("tags", tags), ("note", note)) if text]


def _state(seen: Run) -> str:
    status = seen.status
    done = _how_far(seen)
    reason = seen.problem or status.reason
    state = paint(seen.state, state_style(seen.state), sys.stdout)
    return Painted(state + shown(f" ({done})" + (f": {reason}" if reason else "")))


def _results(run: RunDir, seen: Run) -> list[tuple[str, Any]]:
    held = {str(row.get("metric")): row for row in verdicts(run)}
    lines = []
    for key, name in _METRICS.items():
        if key == "top5_error" and seen.recipe.get("model.num_classes", 10) <= TOP5_MEANS_NOTHING:
            continue
        if key in held:
            lines.append((name, verdict_text(held[key], few_images(seen.recipe, run))))
        elif seen.metrics.get(key) is not None:
            lines.append((name, numbers.percent(seen.metrics[key])))
        # beside the raw weights', by which a recipe's expectation is held
        if seen.metrics.get(f"ema_{key}") is not None:
            averaged = numbers.percent(seen.metrics[f"ema_{key}"])
            lines.append((f"{name}, averaged weights", averaged))
    if not run.config.exists():
        return lines
    # of a script nobody knows which of its figures is the result
    own = own_figures(seen.metrics, (*_METRICS, *COST_KEYS), seen.recipe)
    return [*lines, *((name, numbers.figure(value)) for name, value in own.items())]


def _made(run: RunDir, seen: Run) -> list[tuple[str, Any]]:
    """What it started and learnt from; of a script's run the values that it gave."""
    model = read_optional(run, "model.json")
    told = (("starts from", model.get("init")), ("taught by", model.get("teacher")))
    lines = [(name, str(which["file"])) for name, which in told if which and which.get("file")]
    if run.config.exists():
        values = {
            key: value
            for key, value in seen.recipe.items()
            if key not in ("name", "title", "tags", "seed")
        }
        given = " ".join(
            f"{key}={value if isinstance(value, str) else output.json_text(value)}"
            for key, value in values.items()
        )
        lines += [("config", given)] if given else []
        lines += [("seed", str(seen.recipe.get("seed", 0)))]
        lines += [("took", numbers.duration(seen.status.seconds))]
    return lines


def verdict_text(row: dict[str, Any], on: str = "") -> str:
    """`21.30 %, expected 22.00 ± 2.00 % (ours): reached`; `on` says of which images."""
    word = (
        paint("reached", "green", sys.stdout)
        if row.get("passed")
        else paint("missed", "red", sys.stdout)
    )
    expected = f"{row.get('expected', 0):.2f} ± {row.get('tolerance', 0):.2f} %"
    said = (
        f"{numbers.percent(row.get('value'))}{on}, expected {expected} ({row.get('source', '-')}): "
    )
    return Painted(shown(said) + word)


def _cost(run: RunDir, seen: Run) -> list[tuple[str, Any]]:
    last = end_of_schedule(read_optional(run, "model.json"))
    evaluated = evaluated_macs(seen.metrics)
    macs = evaluated or last
    lines: list[tuple[str, Any]] = []
    for kind, meaning in (
        ("dense", "of the same network without gates"),
        ("promised", "by the authors' counter"),
        (
            "executed",
            (
                f"that are really multiplied{'' if evaluated else ' after all pruning'}, gates"
                " included"
            ),
        ),
    ):
        if macs.get(kind) is not None:
            lines.append((f"MACs, {kind}", f"{numbers.count(macs[kind])}  {meaning}"))
    lines += [
        ("pruning", line) for line in unpruned(evaluated.get("executed"), last.get("executed"))
    ]
    parameters = seen.metrics.get("parameters", read_optional(run, "model.json").get("parameters"))
    return [*lines, ("parameters", numbers.count(parameters))] if parameters is not None else lines


def unpruned(executed: Any, last: Any) -> list[str]:
    """One line where a result is of a network that its schedule had not pruned to the end; else
    none.
    """
    if not all(isinstance(value, int) for value in (executed, last)) or executed <= last:
        return []
    return [
        "not finished at this step: at the end of its schedule the network executes"
        f" {numbers.count(last)} MACs"
    ]


def _code(run: RunDir) -> list[tuple[str, Any]]:
    """Commit and what stands beside it; a second line for what the record lacks."""
    git = read_optional(run, "git.json")
    if not git:
        return []
    if installed := code_record.as_installed(git):
        return [("code", installed.removeprefix("code: "))]
    copied, left = len(git.get("untracked") or {}), code_record.left_out_count(git)
    dirt = [
        *(["uncommitted changes"] if git.get("patch_sha256") else []),
        *([f"{copied:,} untracked file{'s' * (copied != 1)} copied"] if copied else []),
        *([f"{left:,} left out"] if left else []),
    ]
    code = f"commit {str(git['commit'])[:10]}" if git.get("commit") else "no git commit"
    code += f" (dirty: {', '.join(dirt)})" if dirt else ""
    problem = (
        [] if git.get("restorable") is not False else [f"cannot be restored: {git.get('problem')}"]
    )
    lacking = [*problem, *code_record.left_out(git)]
    return [("code", code), *[("code lacks", sentence) for sentence in lacking]]


def _own_code(seen: Run) -> list[tuple[str, Any]]:
    """Why the commands below would be refused: a hint repeats trust, and never gives it."""
    if seen.state == "running" or seen.dir.config.exists():
        return []
    packages = untrusted(str(seen.recipe.get(key, "")) for key in CODE_KEYS)
    return [
        ("own code", f"{name} is not trusted here: if you know it, say --trust-code {name}")
        for name in packages
    ]


def next_commands(seen: Run) -> list[str]:
    """Commands that make sense now, as they can be typed here."""
    run = settings.run_argument(seen.dir.path)
    trust = trust_words(str(seen.recipe.get(key, "")) for key in CODE_KEYS)
    if seen.state == "running":
        return [f"dgcctl runs tail {run} --follow", f"dgcctl runs stop {run}"]
    if seen.dir.config.exists():  # of a script: it alone can go on with it
        return [f"dgcctl runs tail {run}", f"dgcctl runs show {run} --json"]
    if seen.state in RESUMABLE:
        return [
            f"dgcctl resume {run}{trust}",
            f"dgcctl runs tail {run} --log",
            f"dgcctl runs show {run} --json",
        ]
    if seen.state == "done":
        # its own recipe: the one that it was made from has not the values of the command line
        recipe = shlex.quote(str(seen.dir.recipe))
        return [
            f"dgcctl eval --run {run}{trust}",
            f"dgcctl profile {recipe}{trust}",
            f"dgcctl runs tail {run}",
        ]
    return []


def images_found(data: dict[str, Any]) -> list[str]:
    """What a run's data.json says was found in a folder of images; nothing of other data sets."""
    halves = [
        half["samples"] for key in ("train", "val") if isinstance(half := data.get(key), dict)
    ]
    if data.get("name") not in FOLDER_SETS or len(halves) != 2:
        return []
    count = len(data.get("folders") or data.get("classes") or ())
    classes = "1 class" if count == 1 else f"{count} classes"
    left = (data.get("skipped") or {}).get("left by other systems")
    beside = (
        f"; {numbers.count(left)} files passed over that other systems left (._*, .DS_Store, ...)"
        if left
        else ""
    )
    train, val = map(numbers.count, halves)
    return [
        f"found {classes}, {train} images to train on and {val} to evaluate, in"
        f" {data.get('dir')}{beside}"
    ]


def check(run: RunDir) -> None:
    """Raise TargetMissedError where a verdict is `missed`, or where nothing was expected and so
    nothing can be met.
    """
    found = verdicts(run)
    if not found:
        raise TargetMissedError(
            f"run {run.id}: --check, but nothing was judged: see `dgcctl runs show"
            f" {settings.run_argument(run.path)}`"
        )
    missed = [row for row in found if not row.get("passed")]
    if missed:
        row = missed[0]
        raise TargetMissedError(
            f"run {run.id}: {row.get('metric')} is {row.get('value'):.2f} %"
            f"{few_images(read_run(run).recipe, run)}, above"
            f" {row.get('expected'):.2f} + {row.get('tolerance'):.2f} % ({row.get('source')}): see"
            f" `dgcctl runs show {settings.run_argument(run.path)}`"
        )
