"""`dgcctl ckpt`: the released checkpoints: list, describe, download, verify, import, export."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import DataError, IntegrityError, UsageError
from dgc.hub import hosts, scan
from dgc.hub.cache import Cache, PinFile
from dgc.hub.fetch import Fetched, FetchOptions, absent, download, identify, import_file
from dgc.hub.registry import MIB, ReleasedCheckpoint, find_entry, load_registry
from dgc.hub.weights_export import export_own, export_released
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.lazy import App
from dgcctl.cli._ui.network import complete_released
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.transfer_line import progress_line
from dgcctl.core import numbers, settings
from dgcctl.core.launch.query import query
from dgcctl.core.runs import find

app = App("The released checkpoints: list, download, verify; import and export files.")


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A name from `dgcctl ckpt ls`.", autocompletion=complete_released
    ),
]
Repin = Annotated[
    bool, typer.Option("--repin", help="Trust a file whose digest is not the pinned one.")
]


class Container(enum.StrEnum):
    """How torch packs a file."""

    LEGACY = "legacy"
    ZIP = "zip"


@app.command("ls")
@tabular
def ls(*, form: output.Form) -> None:
    """What there is, before anything is fetched."""
    columns = [
        TableColumn("name", whole=True),
        TableColumn("size_mib", "MiB", right=True),
        TableColumn("top1_error", "top-1 error", numbers.percent, right=True),
        TableColumn("top5_error", "top-5 error", numbers.percent, right=True),
        TableColumn("macs", "MACs", numbers.count, right=True, drop=2),
        TableColumn("parameters", right=True, show=numbers.count, drop=3),
        TableColumn("state"),
    ]
    rows = [_row(entry) for entry in load_registry().values()]
    output.table("checkpoints", columns, rows, form)


def _row(entry: ReleasedCheckpoint) -> dict[str, Any]:
    cache = Cache.default()
    path = cache.file(entry.file)
    pin = PinFile(cache.pins).get(entry.name)
    return {
        "name": entry.name,
        "recipe": entry.recipe,
        "size_mib": entry.size_mib,
        "top1_error": entry.top1_error,
        "top5_error": entry.top5_error,
        "macs": entry.macs,
        "parameters": entry.parameters,
        "state": "in the cache" if path.exists() else "not fetched",
        "path": str(path),
        "sha256": entry.sha256 or (pin.sha256 if pin else None),
        "pinned": vars(pin) if pin else None,
    }


@app.command()
def info(name: Name, json: options.Json = False) -> None:
    """All that is known of one: links, licence, transforms, published error, what is pinned."""
    entry = find_entry(name)
    row, how = _row(entry), entry.preprocessing
    links = [{"host": link.host, "url": hosts.human_url(link)} for link in entry.links]
    if json:
        transforms = {
            "resize": how.resize,
            "image_size": how.image_size,
            "mean": how.mean,
            "std": how.std,
        }
        facts = {
            "links": links,
            "licence": entry.licence,
            "transforms": transforms,
            "source": entry.source,
        }
        output.document(**row, **facts, tensors=entry.tensors)
        return
    pin = PinFile(Cache.default().pins).get(name)
    resize = (
        f"shorter side to {how.resize}, centre {how.image_size}"
        if how.resize
        else f"{how.image_size}, as it is"
    )
    output.facts(
        [
            ("name", entry.name),
            ("recipe", entry.recipe),
            ("published error", f"{_errors(entry)} ({entry.source})"),
            ("MACs, promised", f"{entry.macs:,}"),
            ("parameters", f"{entry.parameters:,} in {entry.tensors:,} tensors with buffers"),
            ("size", f"{entry.size_mib} MiB"),
            (
                "sha256",
                entry.sha256 or (str(pin) if pin else "never published; trusted on first use"),
            ),
            ("licence", entry.licence),
            ("transforms", f"{resize}; mean {list(how.mean)}, std {list(how.std)}"),
            *((link["host"], link["url"]) for link in links),
            ("cache", f"{row['path']} ({row['state']})"),
        ]
    )


def _errors(entry: ReleasedCheckpoint) -> str:
    five = f", top-5 {entry.top5_error} %" if entry.top5_error is not None else ""
    return f"top-1 {entry.top1_error} %{five}"


@app.command("download")
def fetch(
    name: Name,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Fetch from every host and compare.")
    ] = False,
    repin: Repin = False,
    json: options.Json = False,
) -> None:
    """Fetch one into the cache: resumed, mirrored, checked, pinned.

    The digests were never published: the first good file is trusted and pinned, a later change is
    refused.
    """
    entry = find_entry(name)
    with progress_line(entry.name) as progress:
        chosen = FetchOptions(
            cross_check=cross_check, repin=repin, say=diagnostics.note, progress=progress
        )
        fetched = download(entry, Cache.default(), chosen)
    _print_fetched(fetched, json)


def _print_fetched(fetched: Fetched, json: bool) -> None:
    if json:
        output.document(**{**vars(fetched), "path": str(fetched.path), "pin": vars(fetched.pin)})
        return
    output.line(str(fetched.path))
    diagnostics.note(
        f"sha256 {fetched.sha256}; {fetched.pin.size / MIB:.1f} MiB from {fetched.origin}"
    )


@app.command("import")
def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file fetched by hand.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Which one it is.", autocompletion=complete_released
        ),
    ] = None,
    repin: Repin = False,
    json: options.Json = False,
) -> None:
    """Take a file that was fetched with a browser (or from Baidu) into the cache, under the same
    checks.
    """
    # By its tensors and not its name: a file fetched by hand is often called something else.
    inspected = scan.inspect(file)
    found = identify(inspected, load_registry())
    entry = find_entry(name) if name else found
    if entry is None:
        raise IntegrityError(
            f"{file}: its tensors are those of none of the released networks"
            f" ({', '.join(load_registry())})"
        )
    if found is None or found.name != entry.name:
        what = f"of {found.name}" if found else "of another network"
        raise IntegrityError(f"{file}: its tensors are those {what}, not of {entry.name}")
    fetched = import_file(inspected, entry, Cache.default(), repin=repin, say=diagnostics.note)
    _print_fetched(fetched, json)


@app.command()
@tabular
def verify(
    name: Name,
    evaluate: Annotated[
        bool, typer.Option("--eval", help="Measure the error too (needs the data).")
    ] = False,
    data_dir: options.DataDir = None,
    *,
    form: output.Form,
) -> None:
    """Digest, keys and shapes, parameters and MACs against the table; with --eval the published
    error too.
    """
    entry = find_entry(name)
    if not Cache.default().file(entry.file).exists():
        raise absent(entry, Cache.default())
    checks = query("dgc.jobs.checkpoints", ["verify", name], say=diagnostics.note)["checks"]
    # Errors of weights that are not those would mean nothing.
    if evaluate and all(check["passed"] for check in checks):
        checks += _measured(entry, data_dir)
    rows = [{**check, "outcome": "ok" if check["passed"] else "MISMATCH"} for check in checks]
    columns = [
        TableColumn("name", "what"),
        TableColumn("outcome", style=lambda value: "green" if value == "ok" else "red"),
    ]
    columns += [
        TableColumn("expected", show=_short),
        TableColumn("found", show=_short),
        TableColumn("detail", show=lambda v: v or "", prose=True),
    ]
    if form is output.Form.JSON:
        output.document(name=name, checks=rows)
    else:
        output.table("checks", columns, rows, form)
    wrong = [
        f"{row['name']}{': ' + row['detail'] if row['detail'] else ''}"
        for row in rows
        if not row["passed"]
    ]
    if wrong:
        raise IntegrityError(f"{name}: {'; '.join(wrong)}")


def _short(value: object) -> str:
    shown = str(value)
    return shown if len(shown) <= 24 else shown[:16] + "…"


def _measured(entry: ReleasedCheckpoint, data_dir: Path | None) -> list[dict[str, Any]]:
    """The published errors to their last digit."""
    arguments = [
        f"--pretrained={entry.name}",
        *([f"--data-dir={data_dir.absolute()}"] if data_dir else []),
    ]
    found = query("dgc.jobs.evaluate", arguments, say=diagnostics.note)
    if found["not_judged"]:
        raise DataError(
            f"{entry.name}: its published error cannot be checked: {found['not_judged']}"
        )
    published = {"top1_error": entry.top1_error, "top5_error": entry.top5_error}
    return [
        _figure(key, value, found[key]) for key, value in published.items() if value is not None
    ]


def _figure(name: str, published: float, measured: float) -> dict[str, Any]:
    # Rounded as the table is: published are two digits or one.
    digits = len(str(published).partition(".")[2])
    rounded = round(measured, digits)
    detail = f"published {published} %, measured {measured:.4f} %"
    return {
        "name": name,
        "expected": published,
        "found": rounded,
        "passed": rounded == published,
        "detail": detail,
    }


@app.command()
def export(
    run: options.RunArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    released_format: Annotated[
        bool, typer.Option("--released-format", help="A file that the authors' code loads.")
    ] = False,
    container: Annotated[
        Container, typer.Option("--container", help="How --released-format packs it.")
    ] = Container.LEGACY,
    step: Annotated[
        str, typer.Option("--step", metavar="N|best|last", help="Which checkpoint.")
    ] = "last",
    ema: Annotated[
        bool, typer.Option("--ema", help="The averaged weights (train.ema_decay).")
    ] = False,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Write a checkpoint of a run to a file: safetensors with a record beside it, or the authors'
    format.

    These are weights, for training and sharing. `dgcctl export` writes a network that runs without
    PyTorch, `dgcctl runs export` the record of a run.
    """
    if container is Container.ZIP and not released_format:
        raise UsageError(
            "--container belongs to --released-format: our own format is always safetensors"
        )
    found = find.find_run(run, settings.runs_dir(runs_dir))
    if released_format:
        files = [export_released(found, out, step, str(container), ema=ema)]
    else:
        files = list(export_own(found, out, step, ema=ema))
    if json:
        output.document(run=found.id, files=[str(path) for path in files])
        return
    for path in files:
        output.line(str(path))
