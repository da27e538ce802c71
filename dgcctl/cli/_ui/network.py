"""Which network `eval` and `predict` are about: a released one, that of a run,
or a weights file.

Imports of what reads runs and recipes stand where they are needed: a plan file is answered without
what they stand on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import UsageError
from dgcctl.cli._ui import completion
from dgcctl.cli._ui.flags import gathered


def complete_released(incomplete: str) -> list[str]:
    """Names of the released networks, for shell completion."""
    from dgc.hub.registry import load_registry

    return [name for name in load_registry() if name.startswith(incomplete)]


@dataclass(frozen=True)
class Named:
    """What the command line names. Raises UsageError unless it is exactly one thing."""

    pretrained: str | None
    run: str | None
    checkpoint: Path | None
    recipe: str | None
    step: str
    ema: bool

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("run", "pretrained", "checkpoint") if getattr(self, name)]
        if len(given) != 1:
            what = f"{' and '.join(given)} exclude each other" if given else "no network was named"
            raise UsageError(f"{what}: give one of --run RUN, --pretrained NAME, --checkpoint FILE")
        if self.step not in ("best", "last") and not self.step.isdigit():
            raise UsageError(f"--step {self.step}: should be a step number, best or last")
        if self.ema and not self.run:
            raise UsageError("--ema belongs to --run: a file holds one set of weights")
        if self.checkpoint is not None and not self.checkpoint.exists():
            raise UsageError(
                f"{self.checkpoint}: no such file: `dgcctl ckpt ls` lists the released networks, "
                "`dgcctl runs ls` your runs"
            )

    @property
    def which(self) -> str:
        """Which checkpoint of a run, where it is not the last."""
        if not self.run or (self.step == "last" and not self.ema):
            return ""
        step = f"step {self.step}" if self.step.isdigit() else f"its {self.step} checkpoint"
        return f"the averaged weights of {step}" if self.ema else step

    def opened(self, folder: Path) -> tuple[list[str], str]:
        """Arguments for a process of dgc, and a name to show."""
        from dgc.recipe.load import find_recipe
        from dgcctl.core.runs import find

        if self.run is not None:
            found = find.find_run(self.run, folder)
            arguments = [f"--run-dir={found.path.absolute()}", f"--step={self.step}"]
            return arguments + ["--ema"] * self.ema, found.id
        if self.checkpoint is not None:
            arguments = [f"--weights={self.checkpoint.absolute()}"]
            arguments += [f"--recipe={find_recipe(self.recipe)}"] if self.recipe else []
            return arguments, self.checkpoint.name
        return [f"--pretrained={self.pretrained}"], str(self.pretrained)


_FLAGS = {
    "pretrained": (
        Annotated[
            str | None,
            typer.Option(
                "--pretrained",
                metavar="NAME",
                help="A released network.",
                autocompletion=complete_released,
            ),
        ],
        None,
    ),
    "run": (
        Annotated[
            str | None,
            typer.Option(
                "--run",
                metavar="RUN",
                help="A run: id, prefix, path, `latest`.",
                autocompletion=completion.complete_run,
            ),
        ],
        None,
    ),
    "checkpoint": (
        Annotated[
            Path | None, typer.Option("--checkpoint", metavar="FILE", help="A weights file.")
        ],
        None,
    ),
    "recipe": (
        Annotated[
            str | None,
            typer.Option(
                "--recipe",
                metavar="RECIPE",
                help="Network and data of --checkpoint.",
                autocompletion=completion.complete_recipe,
            ),
        ],
        None,
    ),
    "step": (
        Annotated[
            str, typer.Option("--step", metavar="N|best|last", help="Which checkpoint of --run.")
        ],
        "last",
    ),
    "ema": (
        Annotated[
            bool, typer.Option("--ema", help="The averaged weights of --run (train.ema_decay).")
        ],
        False,
    ),
}
named = gathered("network", _FLAGS, Named)


@dataclass(frozen=True)
class PlanFile:
    """A plan file in the place of a network: it runs here, without PyTorch."""

    file: Path


def _named_or_plan(plan: Path | None, **flags: Any) -> Named | PlanFile:
    if plan is None:
        return Named(**flags)
    given = [f"--{name}" for name in ("run", "pretrained", "checkpoint", "recipe") if flags[name]]
    if given:
        raise UsageError(f"--plan and {given[0]} exclude each other: a plan file knows its network")
    which = "--ema" if flags["ema"] else "--step" if flags["step"] != "last" else None
    if which:
        raise UsageError(f"{which} belongs to --run: a plan file holds one set of weights")
    return PlanFile(plan)


_PLAN = (
    Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="A plan file; runs without PyTorch."),
    ],
    None,
)
named_or_plan = gathered("network", {**_FLAGS, "plan": _PLAN}, _named_or_plan)
