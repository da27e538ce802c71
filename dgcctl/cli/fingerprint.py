"""`dgcctl fingerprint`: make a determinism receipt, or compare two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import TargetMissedError, UsageError
from dgc.run.files import write_json
from dgcctl.cli._ui import diagnostics, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.targets import check_target
from dgcctl.core.repro import receipts


@tabular
def fingerprint(
    compare: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[A.json [B.json]]", help="Compare two receipts, or one with a new one."
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the receipt to a file."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1000, help="Training steps that are hashed.")
    ] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights and images.")] = 0,
    device: Annotated[
        str, typer.Option("--device", metavar="cpu|cuda", help="Where they are computed.")
    ] = "cpu",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads [torch's choice].")
    ] = None,
    *,
    form: output.Form,
) -> None:
    """A determinism receipt: the hash of some seeded training steps, with the facts of this
    machine.

    Two machines that print the same digest computed the same bits. Ends with 11 where compared
    receipts differ.
    """
    check_target("--output", target)
    given = [receipts.read(path) for path in compare or []]
    if len(given) > 2:
        raise UsageError(f"{len(given)} receipts: give two, or one to compare this machine with")
    if len(given) < 2:
        given.append(_make(given, target, steps=steps, seed=seed, device=device, threads=threads))
    if len(given) == 2:
        _compare(given, form)
    else:
        _show(given[0], form)


def _make(given: list[dict[str, Any]], target: Path | None, **how: Any) -> dict[str, Any]:
    if given:
        # Made as the given one was, or there would be nothing to compare.
        how |= {"steps": len(given[0]["steps"]), "seed": given[0]["seed"]}
    made = receipts.make(**how)
    if target is not None:
        write_json(target, {key: value for key, value in made.items() if key != "schema_version"})
        diagnostics.note(f"written to {target}")
    return made


def _show(receipt: dict[str, Any], form: output.Form) -> None:
    if form is output.Form.JSON:
        output.document(receipt=receipt)
        return
    rows: list[tuple[str, Any]] = [
        ("digest", receipt["digest"]),
        ("steps", len(receipt["steps"])),
        ("took", f"{receipt['seconds']:.1f} s"),
    ]
    rows += receipt["facts"].items()
    if form is output.Form.TEXT:
        output.facts(rows)
    else:
        columns = [TableColumn("fact"), TableColumn("value")]
        output.table("facts", columns, [{"fact": key, "value": v} for key, v in rows], form)


def _compare(given: list[dict[str, Any]], form: output.Form) -> None:
    found = receipts.compare(*given)
    rows = [{"fact": key, "a": a, "b": b} for key, a, b in found.facts]
    json = form is output.Form.JSON
    if rows or form is not output.Form.TEXT:
        extra = {"equal": found.first is None, "first_different_step": found.first} if json else {}
        output.table(
            "facts", [TableColumn("fact"), TableColumn("a"), TableColumn("b")], rows, form, **extra
        )
    if found.first is not None:
        raise TargetMissedError(
            f"the receipts differ from step {found.first} of {len(given[0]['steps'])} on"
        )
    if form is output.Form.TEXT:
        output.line(
            f"bitwise equal over {len(given[0]['steps'])} steps ({given[0]['digest'][:16]})"
        )
