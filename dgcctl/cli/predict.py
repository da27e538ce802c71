"""`dgcctl predict`: the best classes of an image by name, and which channels each head chose for
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import DataError, UsageError
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.network import Named, PlanFile, named_or_plan
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.precision import Precision
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import settings

_WIDTH = 72
_CLASSES = [
    TableColumn("image"),
    TableColumn("rank", right=True),
    TableColumn("name", "class"),
    TableColumn("probability", show=lambda value: f"{value:.4f}", right=True),
]


@trusting
@tabular
@named_or_plan
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many classes.")] = 5,
    precision: Annotated[
        Precision, typer.Option("--precision", help="int8: no channels are shown.")
    ] = Precision.FLOAT32,
    channels: Annotated[
        bool | None,
        typer.Option(
            "--channels/--no-channels",
            help="Every chosen channel, no line shortened; or the classes alone.",
            show_default=False,
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
    network: Named | PlanFile,
) -> None:
    """The best classes of each image, and which channels each head chose.

    Give one of --pretrained, --run, --checkpoint and --plan (a file of `dgcctl export`: classes
    alone, without PyTorch). Heads and channels are counted from 0. Images
    that cannot be read are named, the others answered; the command then ends with 3.
    """
    if isinstance(network, PlanFile):
        if precision is not Precision.FLOAT32:
            raise UsageError(f"--precision {precision}: a plan file has one precision, its own")
        found = _by_plan(network.file, images, top)
    else:
        from dgcctl.core.launch.query import query

        arguments, _ = network.opened(settings.runs_dir(runs_dir))
        words = [*arguments, f"--top={top}", f"--precision={precision}", *map(_plain, images)]
        found = query("dgc.jobs.predict", words, say=diagnostics.note)
    if form is output.Form.JSON:
        output.document(**found)
    elif form is output.Form.TEXT:
        for image in found["images"]:
            _print_classes(image)
            if channels is not False:
                _print_channels(image, None if channels else _WIDTH)
    else:
        rows = [
            {"image": image["path"], "rank": rank, **row}
            for image in found["images"]
            for rank, row in enumerate(image["classes"], 1)
        ]
        output.table("classes", _CLASSES, rows, form)
    _refuse_unreadable(found["unreadable"], len(images))


def _by_plan(file: Path, images: list[Path], top: int) -> dict[str, Any]:
    """In this process: there is no torch to be kept out of it."""
    from dgc.runtime.classify import predict as look
    from dgc.runtime.plan import load

    found, bad = look(load(file), images, top)
    # The answer's form is the same on both roads; a plan does not tell which channels it chose.
    with_layers = [{**image, "layers": []} for image in found]
    return {"title": file.name, "images": with_layers, "unreadable": bad}


def _refuse_unreadable(bad: list[dict[str, str]], count: int) -> None:
    """Name every image that could not be read; the others were answered."""
    lines = [f"{image['path']}: {image['why']}" for image in bad]
    if len(lines) == 1:
        raise DataError(lines[0])
    for line in lines:
        diagnostics.warn(line)
    if lines:
        raise DataError(f"{len(lines)} of {count} images could not be read (named above)")


def _plain(path: Path) -> str:
    """A path that no parser takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _print_classes(image: dict[str, Any]) -> None:
    output.line(image["path"])
    rows = [{**row, "share": 100 * row["probability"]} for row in image["classes"]]
    columns = [
        TableColumn("share", "%", lambda value: f"{value:.1f}", right=True),
        TableColumn("name", "class", most=output.CLASS_NAME),
    ]
    output.table("classes", columns, rows)
    output.line()


def _print_channels(image: dict[str, Any], width: int | None) -> None:
    if not image["layers"]:  # a plan file does not tell
        return
    columns = [
        TableColumn("name", "layer"),
        TableColumn("head", right=True),
        TableColumn("share", "chosen", right=True),
        TableColumn("channels"),
    ]
    output.table("layers", columns, list(_head_rows(image["layers"], width)))
    output.line()


def _head_rows(layers: Iterable[dict[str, Any]], width: int | None) -> Iterable[dict[str, Any]]:
    for layer in layers:
        for number, chosen in enumerate(layer["heads"]):
            yield {
                "name": layer["name"] if number == 0 else "",
                "head": number,
                "share": f"{len(chosen)} of {layer['in_channels']}",
                "channels": _ranges(chosen, width),
            }


def _ranges(numbers: list[int], width: int | None) -> str:
    """0-3, 7, 9-12; shortened to `width` characters with an ellipsis at a comma."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    text = ", ".join("-".join(map(str, span)) for span in spans) or "none"
    if width is None or len(text) <= width:
        return text
    return text[: text.rindex(",", 0, width - 2) + 1] + " …"
