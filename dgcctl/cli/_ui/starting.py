"""The flags of the commands that start a training: how many processes, watched or detached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgcctl.cli._ui import options
from dgcctl.cli._ui.flags import gathered
from dgcctl.core.launch.launcher import RankOptions


@dataclass(frozen=True)
class How:
    """What a training is started with, besides its recipe."""

    ranks: RankOptions
    arguments: tuple[str, ...] = ()
    detach: bool = False
    dash: bool = False
    json: bool = False
    check: bool = False
    fresh: bool = False
    on_end: str | None = None


def _how(
    *,
    check: bool,
    detach: bool,
    dash: bool,
    rescue_dir: Path | None,
    json: bool,
    on_end: str | None,
    **ranks: Any,
) -> How:
    where = ("--rescue-dir", str(rescue_dir.absolute())) if rescue_dir else ()
    return How(RankOptions(**ranks), where, detach, dash, json, check, on_end=on_end)


def _option(kind: Any, *names: str, **rest: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, **rest)], False if kind is bool else None


_FLAGS = {
    "check": (options.Check, False),
    "detach": _option(bool, "--detach", help="Return at once; the training goes on by itself."),
    "dash": _option(
        bool, "--dash", help="Open the dashboard on the run; closing it leaves training running."
    ),
    "nproc_per_node": _option(
        str | None,
        "--nproc-per-node",
        metavar="N|auto",
        help="Processes on this machine (torchrun).",
    ),
    "nnodes": _option(str | None, "--nnodes", metavar="N", help="Machines (torchrun)."),
    "node_rank": _option(
        int | None,
        "--node-rank",
        metavar="N",
        min=0,
        help="Which machine this is, from 0 (torchrun).",
    ),
    "rdzv_endpoint": _option(
        str | None,
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="Where the machines meet (torchrun).",
    ),
    "rdzv_backend": _option(
        str | None, "--rdzv-backend", metavar="NAME", help="How they meet (torchrun) [c10d]."
    ),
    "rescue_dir": _option(
        Path | None,
        "--rescue-dir",
        metavar="DIR",
        help="Where to save if the run directory cannot be written.",
    ),
    "on_end": (options.OnEnd, None),
    "json": (options.Json, False),
}
starting = gathered("how", _FLAGS, _how)
