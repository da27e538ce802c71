"""`dgcctl eval`: the error of a run, a checkpoint file or a released network on its validation
images.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import ResourceError, TargetMissedError, UsageError
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.network import Named, named
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.precision import Precision
from dgcctl.cli._ui.targets import check_target
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import numbers, settings
from dgcctl.core.launch.launcher import RankOptions
from dgcctl.core.launch.query import query

_MACS = ("dense", "promised", "executed")


class Engine(enum.StrEnum):
    """Which way the network is run."""

    EAGER = "eager"
    COMPILE = "compile"
    NATIVE = "native"
    AUTO = "auto"


_CLASSES = [
    TableColumn("name", "class", most=output.CLASS_NAME),
    TableColumn("samples", right=True),
    TableColumn("top1_error", show=numbers.percent, right=True),
]
_FIGURES = [
    TableColumn("name", "evaluated"),
    TableColumn("samples", right=True),
    TableColumn("top1_error", show=numbers.percent, right=True),
    TableColumn("top5_error", show=numbers.percent, right=True),
    TableColumn("images_per_s", show=numbers.decimals, right=True),
    *(TableColumn(f"macs_{kind}", show=numbers.count, right=True) for kind in _MACS),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Other images: DIR/val/<class>/..., DIR/<class>/..., or the data set's folder.",
    ),
]


@trusting
@tabular
@named
def evaluate(
    engine: Annotated[
        Engine, typer.Option("--engine", help="Which way the network is run.")
    ] = Engine.AUTO,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="int8: faster; the difference to float32 is said."),
    ] = Precision.FLOAT32,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Only N images, spread over the set."),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="The error of each class too.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a confusion picture.")
    ] = None,
    check: options.Check = False,
    data_dir: DataDir = None,
    subset: Annotated[
        bool, typer.Option("--subset", help="--data-dir has only some of the network's classes.")
    ] = False,
    runs_dir: options.RunsDir = None,
    nproc_per_node: Annotated[
        str | None, typer.Option("--nproc-per-node", metavar="N|auto", help="Processes (torchrun).")
    ] = None,
    *,
    form: output.Form,
    network: Named,
) -> None:
    """Top-1 error (and top-5 error of more than five classes), images a second, and what the
    network costs.

    Give one of --run, --pretrained and --checkpoint. Sizes, normalisation and classes are those of
    the weights; folders of images are matched with the classes by name.
    """
    if check and limit:
        raise UsageError(
            "--check judges the whole set, and --limit leaves some out: drop one of them"
        )
    if plot is not None:
        _check_plot(plot)
    source, name = network.opened(settings.runs_dir(runs_dir))
    arguments = [*source, f"--engine={engine}", f"--precision={precision}"]
    arguments += [f"--limit={limit}"] if limit else []
    arguments += [f"--data-dir={data_dir.absolute()}"] if data_dir else []
    arguments += ["--subset"] if subset else []
    arguments += ["--check"] if check else []
    arguments += ["--per-class"] if per_class else []
    arguments += [f"--plot={plot.absolute()}"] if plot else []
    ranks = RankOptions(nproc_per_node) if nproc_per_node else None
    found = query("dgc.jobs.evaluate", arguments, say=diagnostics.note, ranks=ranks)
    held = _held_all(found)
    _print(name, network.which, found, held, form)
    _say_if_others(found.get("data") or {}, network)
    if found.get("plot_error"):
        raise ResourceError(f"the picture was not written: {found['plot_error']}")
    if check:
        _check(name, held, found.get("not_judged"))


def _say_if_others(data: dict[str, Any], network: Named) -> None:
    """An error measured on other images is no news of the network."""
    if data.get("same") is not False:
        return
    whose = (
        "of the run" if network.run else "that the weights were evaluated on when they were trained"
    )
    then, now = data.get("recorded_samples"), data.get("whole")
    what = (
        "as many, with another content"
        if then == now
        else f"{numbers.count(now)} instead of {numbers.count(then)}"
    )
    # who names a folder `test` means other images, which is said and no reason to warn
    tell = diagnostics.warn if data.get("half") in (None, "val") else diagnostics.note
    tell(f"these are not the images {whose}: {what}, in {data.get('dir') or data.get('name')}")


_PICTURES = ("png", "svg", "pdf", "jpg", "jpeg", "webp", "tif", "tiff", "ps", "eps")


def _check_plot(plot: Path) -> None:
    """Refuse a picture that cannot be written before minutes of work."""
    if plot.suffix.lower().lstrip(".") not in _PICTURES:
        raise UsageError(f"--plot {plot}: should end with one of .{', .'.join(_PICTURES)}")
    check_target("--plot", plot)


def _held_all(found: dict[str, Any]) -> list[dict[str, Any]]:
    # What is expected of a figure that this network has not (top-5 of five classes) is left out.
    return [_held(row, found) for row in found["expected"] if found.get(row["metric"]) is not None]


def _held(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A verdict: what was expected, what came, and whether that is met."""
    value = found[row["metric"]]
    return {**row, "value": value, "passed": value <= row["expected"] + row["tolerance"]}


def _print(
    name: str, which: str, found: dict[str, Any], held: list[dict[str, Any]], form: output.Form
) -> None:
    if form is output.Form.JSON:
        output.document(name=name, **found, verdicts=held)
        return
    classes = found.get("per_class")
    if form is output.Form.TEXT:
        output.facts(_lines(f"{name}, {which}" if which else name, found, held))
        if classes:
            output.line()
            output.table("classes", _CLASSES, classes)
    elif classes:
        output.table("classes", _CLASSES, classes, form)
    else:
        macs = {f"macs_{kind}": value for kind, value in (found.get("macs") or {}).items()}
        output.table("figures", _FIGURES, [{"name": name, **macs, **found}], form)


def _lines(name: str, found: dict[str, Any], held: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    from dgcctl.cli._ui.summary import unpruned, verdict_text

    words = {row["metric"]: verdict_text(row) for row in held}
    lines: list[tuple[str, Any]] = [
        ("evaluated", f"{name}, {numbers.count(found.get('samples'))} images")
    ]
    if data := found.get("data"):
        lines.append(
            ("images", ", ".join(str(data[key]) for key in ("name", "dir") if data.get(key)))
        )
    for key, title in (("top1_error", "top-1 error"), ("top5_error", "top-5 error")):
        if found.get(key) is not None:
            lines.append((title, words.get(key) or numbers.percent(found[key])))
    if beside := found.get("against_float32"):
        lines += _against_float32(str(found["precision"]), beside, found)
    if found.get("not_judged"):
        lines.append(("expected", f"not judged: {found['not_judged']}"))
    if found.get("images_per_s") is not None:
        where = ", ".join(str(found[key]) for key in ("engine", "device") if found.get(key))
        lines.append(
            ("images/s", f"{found['images_per_s']:,.0f}" + (f"  ({where})" if where else ""))
        )
    ends = found.get("macs_at_end_of_schedule") or {}
    unfinished = unpruned((found.get("macs") or {}).get("executed"), ends.get("executed"))
    return [*lines, *_macs(found), *(("pruning", line) for line in unfinished)]


def _against_float32(
    precision: str, beside: dict[str, Any], found: dict[str, Any]
) -> list[tuple[str, Any]]:
    difference = found["top1_error"] - beside["top1_error"]
    changed = (
        f"{numbers.count(beside['changed'])} of {numbers.count(found['samples'])} answered"
        " otherwise,"
        f" {numbers.count(beside['became_right'])} of them now right,"
        f" {numbers.count(beside['became_wrong'])} now wrong"
    )
    return [
        (
            "in float32",
            f"{numbers.percent(beside['top1_error'])} ({difference:+.2f} in {precision})",
        ),
        ("images", changed),
        ("logits", f"off by {numbers.percent(100 * beside['logits_error'])}"),
    ]


def _macs(found: dict[str, Any]) -> list[tuple[str, Any]]:
    macs = found.get("macs") or {}
    values = {kind: macs.get(kind, found.get(f"macs_{kind}")) for kind in _MACS}
    return [
        (f"MACs, {kind}", numbers.count(value))
        for kind, value in values.items()
        if value is not None
    ]


def _check(name: str, held: list[dict[str, Any]], not_judged: str | None) -> None:
    if not held:
        why = (
            f"its expectation is not judged here: {not_judged}"
            if not_judged
            else "nothing is expected of it"
        )
        raise UsageError(f"{name}: --check, but {why}: leave --check out")
    missed = next((row for row in held if not row["passed"]), None)
    if missed:
        raise TargetMissedError(
            f"{name}: {missed['metric']} is {missed['value']:.2f} %, above {missed['expected']:.2f}"
            f" + {missed['tolerance']:.2f} % ({missed.get('source', 'expected')})"
        )
