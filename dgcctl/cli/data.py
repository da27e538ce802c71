"""`dgcctl data`: which data sets there are, whether they are here and whole,
and how to get them.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import DataError, NetworkError, UsageError
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.lazy import App
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.targets import check_target
from dgcctl.core import numbers, settings
from dgcctl.core.launch.query import query

app = App("List, check and download data sets.")
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="fashion_mnist, cifar10, cifar100, imagenet or image_folder."
    ),
]
# name -> (what it holds, how to get it)
_KNOWN = {
    "fashion_mnist": (
        "5,000 + 1,000 images, 28x28, 10 classes (a subset)",
        "comes with the package",
    ),
    "cifar10": ("50,000 + 10,000 images, 32x32, 10 classes", "dgcctl data download cifar10"),
    "cifar100": ("50,000 + 10,000 images, 32x32, 100 classes", "dgcctl data download cifar100"),
    "imagenet": (
        "1,281,167 + 50,000 images, 1,000 classes",
        "from image-net.org by hand, as {train,val}/<class>/<image>",
    ),
    "image_folder": (
        "any images of your own",
        "as FOLDER/{train,val}/<class>/<image>, with data.dir=FOLDER",
    ),
}
_DOWNLOADABLE = ("cifar10", "cifar100")


@app.command("ls")
@tabular
def ls(*, form: output.Form) -> None:
    """The data sets, where each is looked for, and whether it is there."""
    rows = [_row(name) for name in _KNOWN]
    columns = [
        TableColumn("name", whole=True),
        TableColumn("there", style=lambda value: "green" if value == "yes" else ""),
        TableColumn("dir", "folder"),
        TableColumn("holds", prose=True),
        TableColumn("get", "how to get it", prose=True),
    ]
    output.table("data", columns, rows, form)


def _row(name: str) -> dict[str, Any]:
    holds, get = _KNOWN[name]
    folder = None if name == "fashion_mnist" else _folder(name, None)
    # Empty it is as good as absent: a download that failed leaves one.
    there = folder is None or (folder.is_dir() and any(folder.iterdir()))
    return {
        "name": name,
        "there": "yes" if there else "no",
        "dir": folder,
        "holds": holds,
        "get": get,
    }


def _folder(name: str, given: Path | None) -> Path:
    return given or (settings.data_dir() or Path("data")) / name


_BAD = [TableColumn("file", whole=True), TableColumn("reason", prose=True)]


@app.command()
@tabular
def verify(
    name: Name,
    data_dir: options.DataDir = None,
    full: Annotated[
        bool, typer.Option("--full", help="Digest of every byte, however many there are.")
    ] = False,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            "--write-quarantine",
            metavar="FILE",
            help="List the damaged ones, for data.quarantine=FILE.",
        ),
    ] = None,
    *,
    form: output.Form,
) -> None:
    """Read every image; name all that are damaged, in one pass. Ends with 3 where there are any."""
    _require_known(name)
    check_target("--write-quarantine", quarantine)
    arguments = ["verify", name, *_where(data_dir), *(["--full"] if full else [])]
    arguments += [f"--write-quarantine={quarantine.absolute()}"] if quarantine else []
    found = query("dgc.jobs.data_sets", arguments, say=diagnostics.note)
    _print(found, form)
    bad, structure = found["bad"], found.get("structure", [])
    if structure:
        raise DataError(_structure_line(found["dir"], structure, len(bad)))
    if bad:
        files = "1 file" if len(bad) == 1 else f"{len(bad)} files"
        listed = (
            f"train with data.quarantine={quarantine}"
            if quarantine
            else "leave them out (--write-quarantine FILE)"
        )
        raise DataError(f"{found['dir']}: {files} cannot be used: mend or remove them, or {listed}")


def _print(found: dict[str, Any], form: output.Form) -> None:
    if form is output.Form.JSON:
        output.document(**found)
    elif form is output.Form.TEXT:
        _describe(found)
    else:  # what cannot be used, as one table
        output.table("bad", _BAD, [*found.get("structure", []), *found["bad"]], form)


def _describe(found: dict[str, Any]) -> None:
    lines: list[tuple[str, Any]] = [
        ("data", found["name"]),
        ("folder", found["dir"]),
        ("classes", found["classes"]),
    ]
    for split in ("train", "val"):
        facts = found[split]
        lines.append(
            (
                split,
                (
                    f"{numbers.count(facts['samples'])} images, sha256 {facts['sha256']} of"
                    f" {facts['digest_of']}"
                ),
            )
        )
    lines += _beside(found)
    output.facts([*lines, ("damaged", len(found["bad"]))])
    if found.get("structure"):
        output.line()
        output.table(
            "structure", [TableColumn("file", "folder"), TableColumn("reason")], found["structure"]
        )
    if found["bad"]:
        output.line()
        output.table("bad", _BAD, found["bad"])


def _structure_line(folder: str, structure: list[dict[str, str]], bad: int) -> str:
    """Folders come first: no list of files to leave out mends them."""
    first = structure[0]
    where = folder if first["file"] == "." else f"{folder}/{first['file']}"
    reason = first["reason"].removeprefix(f"{folder}: ")
    more = [f"{len(structure) - 1} more of its folders"] if structure[1:] else []
    more += [f"{bad} file{'s' * (bad != 1)} that cannot be used"] if bad else []
    return f"{where}: {reason}" + (f" (and {', '.join(more)})" if more else "")


def _beside(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a user may expect to count, and does not."""
    lines: list[tuple[str, Any]] = []
    if found.get("turned"):
        lines.append(
            (
                "turned",
                (
                    f"{numbers.count(found['turned'])} images have an EXIF orientation, which is"
                    " not applied"
                ),
            )
        )
    if found.get("in_both"):
        (first, again), more = found["in_both"][0], found["in_both"][1:]
        others = f", and {numbers.count(len(more))} more" if more else ""
        lines.append(("in both", f"train and val hold the same image: {first} is {again}{others}"))
    if found.get("skipped"):
        kinds = ", ".join(
            f"{numbers.count(count)} {kind}" for kind, count in sorted(found["skipped"].items())
        )
        lines.append(("passed over", f"{kinds}"))
    return lines


@app.command()
@tabular
def download(
    name: Name,
    data_dir: options.DataDir = None,
    dry_run: options.DryRun = False,
    *,
    form: output.Form,
) -> None:
    """Fetch CIFAR-10 or CIFAR-100 and check it."""
    _require_known(name)
    folder = _folder(name, data_dir)
    if name not in _DOWNLOADABLE:
        raise UsageError(f"{name} cannot be downloaded: it is got {_KNOWN[name][1]}")
    if dry_run:
        diagnostics.note(f"would fetch {name} into {folder}")
        return
    if settings.offline():
        raise NetworkError(
            f"{name}: DGCCTL_OFFLINE forbids the network: unset it, or copy the data set to"
            f" {folder}"
        )
    found = query("dgc.jobs.data_sets", ["download", name, *_where(data_dir)], say=diagnostics.note)
    _print(found, form)


def _where(folder: Path | None) -> list[str]:
    return [f"--data-dir={folder.absolute()}"] if folder else []


def _require_known(name: str) -> None:
    if name in _KNOWN:
        return
    near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KNOWN)}"
    raise UsageError(f"{name}: no such data set ({hint})")
