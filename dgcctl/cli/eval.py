"""`dgcctl eval`: the error of a run, a checkpoint file or a released network on its validation images."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import TargetMissedError, UsageError
from dgc.recipe import Recipe, find_recipe, load_recipe
from dgcctl.cli import diagnostics, options, output, text
from dgcctl.cli.output import Column
from dgcctl.core import runs, settings
from dgcctl.core.ask import ask
from dgcctl.core.launch import Ranks


class Engine(enum.StrEnum):
    """Which way the network is run."""

    EAGER = "eager"
    COMPILE = "compile"
    NATIVE = "native"
    AUTO = "auto"


@dataclass(frozen=True)
class Target:
    """What is evaluated: the arguments for the process, a name, and what is expected of it."""

    arguments: list[str]
    name: str
    expected: list[dict[str, Any]]


def evaluate(
    pretrained: Annotated[str | None, typer.Option("--pretrained", metavar="NAME", help="A released network.")] = None,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", metavar="FILE", help="A weights file.")] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="RUN", help="A run: id, prefix, path, `latest`.", autocompletion=options.complete_run
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="Network and data of --checkpoint.")
    ] = None,
    step: Annotated[
        str, typer.Option("--step", metavar="N|best|last", help="Which checkpoint of --run.", show_default=True)
    ] = "last",
    engine: Annotated[Engine, typer.Option("--engine", help="Which way the network is run.")] = Engine.AUTO,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only N images, spread over the set.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="The error of each class too.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a confusion picture.")] = None,
    check: options.Check = False,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    nproc_per_node: Annotated[
        str | None, typer.Option("--nproc-per-node", metavar="N|auto", help="Processes (torchrun).")
    ] = None,
    json: options.Json = False,
) -> None:
    """Top-1 and top-5 error, images a second, and what the network costs.

    Give one of --run, --pretrained and --checkpoint.
    """
    if check and limit:
        raise UsageError("--check judges the whole set, and --limit leaves some out: drop one of them")
    target = _target(pretrained, checkpoint, run, recipe, step, settings.runs_dir(runs_dir))
    arguments = [*target.arguments, f"--engine={engine}"]
    arguments += [f"--limit={limit}"] if limit else []
    arguments += [f"--data-dir={data_dir.absolute()}"] if data_dir else []
    arguments += ["--per-class"] if per_class else []
    arguments += [f"--plot={plot.absolute()}"] if plot else []
    ranks = Ranks(nproc_per_node) if nproc_per_node else None
    found = ask("dgc.evaluate", arguments, say=diagnostics.note, ranks=ranks)
    expected = [] if limit else found.get("expected") or target.expected
    held = [_held(row, found) for row in expected if found.get(row["metric"]) is not None]
    _print(target.name, found, held, json=json)
    if check:
        _check(target.name, held)


def _target(
    pretrained: str | None, checkpoint: Path | None, run: str | None, recipe: str | None, step: str, folder: Path
) -> Target:
    """What the options name. Raises UsageError unless it is exactly one thing."""
    given = [
        name for name, value in (("--run", run), ("--pretrained", pretrained), ("--checkpoint", checkpoint)) if value
    ]
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "nothing to evaluate was named"
        raise UsageError(f"{what}: give one of --run RUN, --pretrained NAME, --checkpoint FILE")
    if run is not None:
        return _run_target(run, step, folder)
    if checkpoint is not None:
        return _file_target(checkpoint, recipe)
    return Target([f"--pretrained={pretrained}"], str(pretrained), [])


def _run_target(name: str, step: str, folder: Path) -> Target:
    if step not in ("best", "last") and not step.isdigit():
        raise UsageError(f"--step {step}: should be a step number, best or last")
    found = runs.find_run(name, folder)
    arguments = [f"--run-dir={found.path.absolute()}", f"--step={step}"]
    return Target(arguments, found.id, _expected(load_recipe(found.recipe)))


def _file_target(file: Path, recipe: str | None) -> Target:
    if not file.exists():
        raise UsageError(
            f"{file}: no such file: `dgcctl ckpt ls` lists the released networks, `dgcctl runs ls` your runs"
        )
    arguments = [f"--weights={file.absolute()}"]
    if recipe is None:
        return Target(arguments, file.name, [])
    path = find_recipe(recipe)
    return Target([*arguments, f"--recipe={path}"], file.name, _expected(load_recipe(path)))


def _expected(recipe: Recipe) -> list[dict[str, Any]]:
    return [row.model_dump() for row in recipe.expect]


def _held(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A verdict: what was expected, what came, and whether that is met."""
    value = found[row["metric"]]
    expected = row.get("expected", row.get("value"))
    passed = value <= expected + row["tolerance"]
    return {**row, "expected": expected, "value": value, "passed": passed}


def _print(name: str, found: dict[str, Any], held: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.document(name=name, **found, verdicts=held)
        return
    output.facts(_lines(name, found, held))
    classes = found.get("per_class")
    if classes:
        columns = [Column("name", "class"), Column("samples", right=True)]
        columns.append(Column("top1_error", "top-1 error", text.percent, right=True))
        output.line()
        output.table("classes", columns, classes)


def _lines(name: str, found: dict[str, Any], held: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    from dgcctl.cli.summary import verdict_text

    words = {row["metric"]: verdict_text(row) for row in held}
    lines: list[tuple[str, Any]] = [("evaluated", f"{name}, {text.count(found.get('samples'))} images")]
    for key, title in (("top1_error", "top-1 error"), ("top5_error", "top-5 error")):
        if found.get(key) is not None:
            lines.append((title, words.get(key) or text.percent(found[key])))
    if found.get("images_per_s") is not None:
        where = ", ".join(str(found[key]) for key in ("engine", "device") if found.get(key))
        lines.append(("images/s", f"{found['images_per_s']:,.0f}" + (f"  ({where})" if where else "")))
    return [*lines, *_macs(found)]


def _macs(found: dict[str, Any]) -> list[tuple[str, Any]]:
    macs = found.get("macs") or {}
    values = {kind: macs.get(kind, found.get(f"macs_{kind}")) for kind in ("dense", "promised", "executed")}
    return [(f"MACs, {kind}", text.count(value)) for kind, value in values.items() if value is not None]


def _check(name: str, held: list[dict[str, Any]]) -> None:
    if not held:
        raise TargetMissedError(f"{name}: --check, but nothing is expected of it, so no target can be met")
    missed = next((row for row in held if not row["passed"]), None)
    if missed:
        raise TargetMissedError(
            f"{name}: {missed['metric']} is {missed['value']:.2f} %, above {missed['expected']:.2f} + "
            f"{missed['tolerance']:.2f} % ({missed.get('source', 'expected')})"
        )
