"""`dgcctl export`: a network with its weights as one file for programs without dgcctl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgc.errors import UsageError
from dgcctl.cli._ui import completion, diagnostics, options, output
from dgcctl.cli._ui.network import Named, complete_released
from dgcctl.cli._ui.precision import Precision
from dgcctl.cli._ui.targets import check_target
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import settings
from dgcctl.core.launch.query import query

Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        metavar="NAME",
        help="A released network instead.",
        autocompletion=complete_released,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Network of a FILE that does not know its own.",
        autocompletion=completion.complete_recipe,
    ),
]


@trusting
def export(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RUN|FILE", help="A run (id, prefix, `latest`) or a weights file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="A new file, e.g. model.dgc.")
    ] = None,
    pretrained: Pretrained = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="HxW", help="Image sizes; that of the training by default."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="TEXT", help="What the file says of it.")
    ] = None,
    recipe: Recipe = None,
    step: Annotated[
        str, typer.Option("--step", metavar="N|best|last", help="Which checkpoint of a run.")
    ] = "last",
    precision: Annotated[
        Precision, typer.Option("--precision", help="What a plan computes in.")
    ] = Precision.FLOAT32,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="ONNX instead, of standard operators; slower.")
    ] = False,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="A file for torch.export.load instead.")
    ] = False,
    ema: Annotated[bool, typer.Option("--ema", help="The averaged weights of a run.")] = False,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Write a plan file: a network that runs without PyTorch, in NumPy, in C, and with `dgcctl
    predict --plan`; or ONNX, or a file for torch.export.

    Not to be confused: `dgcctl ckpt export` writes the weights of a run for training and sharing,
    `dgcctl runs export` the record of a run.
    """
    out, form = _placed(out, onnx=onnx, pt2=pt2)
    arguments, title = _named(source, pretrained, recipe, step, ema).opened(
        settings.runs_dir(runs_dir)
    )
    arguments += [f"--size={word}" for word in size or []]
    arguments += [f"--licence={licence}"] if licence else []
    arguments += [f"--precision={precision}", f"--form={form}"]
    found = query("dgc.jobs.export", [*arguments, f"--out={out.absolute()}"], say=diagnostics.note)
    if json:
        output.document(**{**found, "file": str(out)})
        return
    output.line(str(out))
    images = ", ".join(f"{h} x {w}" for _, h, w in found["images"])
    diagnostics.note(f"{title}: {found['bytes'] / 1e6:.1f} MB, images of {images}")


_FILES = (".safetensors", ".pt", ".pth", ".tar", ".dgc", ".onnx", ".pt2")  # no run is called so
_ENDINGS = {".dgc": "plan", ".onnx": "onnx", ".pt2": "pt2"}
_WRITES = {"plan": "a plan file", "onnx": "ONNX", "pt2": "a file for torch.export.load"}


def _placed(out: Path | None, *, onnx: bool, pt2: bool) -> tuple[Path, str]:
    """Where the file goes, and what it is. Raises UsageError."""
    if out is None:
        raise UsageError("-o FILE is missing: say where the plan goes, e.g. -o model.dgc")
    if onnx and pt2:
        raise UsageError("--onnx and --pt2 exclude each other: one file has one form")
    form = "onnx" if onnx else "pt2" if pt2 else "plan"
    _check_ending(out, form)
    check_target("-o", out)
    if out.exists():
        raise UsageError(f"{out} exists already: give another name, an export is never overwritten")
    return out, form


def _check_ending(out: Path, form: str) -> None:
    """Refuse the ending of another form: whoever gets the file would take it for that. Any other
    ending is the user's own.
    """
    named = _ENDINGS.get(out.suffix.lower(), form)
    if named != form:
        own = next(ending for ending, kind in _ENDINGS.items() if kind == form)
        option = "leave out --onnx and --pt2" if named == "plan" else f"say --{named}"
        raise UsageError(
            f"-o {out}: {_WRITES[form]} would be written: name it {out.with_suffix(own).name}, or"
            f" {option}"
        )


def _named(
    source: str | None, pretrained: str | None, recipe: str | None, step: str, ema: bool
) -> Named:
    """What is exported. A file that exists is a file; anything else is a run."""
    given = [what for what in (source, pretrained and "--pretrained") if what]
    if len(given) != 1:
        what = "two networks were named" if given else "no network was named"
        raise UsageError(f"{what}: give one of RUN, FILE, --pretrained NAME")
    file = Path(source) if source and Path(source).is_file() else None
    if source and not Path(source).exists() and Path(source).suffix in _FILES:
        raise UsageError(f"{source}: no such file: give a run or a weights file")
    return Named(pretrained, source if file is None else None, file, recipe, step, ema)
