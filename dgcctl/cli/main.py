"""The entry of `dgcctl`: the table of its commands, the flags that work everywhere, and errors into
exit codes.

Add a command by adding a row: heading -> name -> ("module:attribute", "one line of help"). The
module is imported only when the command is called.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

import dgc
from dgc import settings
from dgc.errors import ExitCode
from dgcctl.cli._ui import diagnostics, streams
from dgcctl.cli._ui.lazy import App, Table
from dgcctl.core.settings import apply_project_file

COMMANDS: Table = {
    "Train and evaluate": {
        "train": ("dgcctl.cli.train:train", "Train a recipe; writes a run directory."),
        "resume": ("dgcctl.cli.train:resume", "Go on with a run that stopped or died."),
        "sweep": (
            "dgcctl.cli.sweep:sweep",
            "Train a recipe once for each combination of values; resumable.",
        ),
        "search": (
            "dgcctl.cli.search:search",
            "Train a recipe with values that Optuna chooses; resumable.",
        ),
        "launch": ("dgcctl.cli.launch:app", "Give a training to a cluster (Slurm)."),
        "eval": ("dgcctl.cli.eval:evaluate", "Error of a run, a checkpoint or a released network."),
    },
    "Look": {
        "recipes": ("dgcctl.cli.recipes:app", "List, show, check, compare and copy recipes."),
        "runs": ("dgcctl.cli.runs:app", "List, show and follow runs."),
        "dash": (
            "dgcctl.cli.dash:dash",
            "Watch, compare and steer runs in the terminal or a browser.",
        ),
        "predict": (
            "dgcctl.cli.predict:predict",
            "The best classes of an image, and the channels chosen for it.",
        ),
        "profile": (
            "dgcctl.cli.profile:profile",
            "MACs and parameters of each layer of a recipe's network.",
        ),
        "sensitivity": (
            "dgcctl.cli.sensitivity:sensitivity",
            "Error of a run when one layer keeps more or fewer channels.",
        ),
        "export": (
            "dgcctl.cli.export:export",
            "A network as one file that runs without PyTorch.",
        ),
        "bench": (
            "dgcctl.cli.bench:bench",
            "Time the project against dense networks in other engines, side by side.",
        ),
    },
    "Trust": {
        "rerun": (
            "dgcctl.cli.rerun:rerun",
            "Run a recorded run again; with --check, say whether it is the same.",
        ),
        "fingerprint": (
            "dgcctl.cli.fingerprint:fingerprint",
            "A determinism receipt of this machine; compare two.",
        ),
        "report": (
            "dgcctl.cli.report:report",
            "One self-contained page about one or several runs.",
        ),
        "stage": (
            "dgcctl.cli.stage:app",
            "The stages of dvc.yaml: prepare, train, evaluate, report.",
        ),
    },
    "Checkpoints, data, machine": {
        "ckpt": (
            "dgcctl.cli.ckpt:app",
            "The released checkpoints: list, download, verify; import and export files.",
        ),
        "data": ("dgcctl.cli.data:app", "List, check and download data sets."),
        "doctor": (
            "dgcctl.cli.doctor:doctor",
            "What this machine offers, and what is wrong with it.",
        ),
    },
}
_COMPLETION = "_DGCCTL_COMPLETE"  # set by the shell that asks what could follow
_HELP = "Train, watch and trust Dynamic Group Convolution networks."
_COMMON = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--no-color": "no-color",
}


def build() -> App:
    """The program: groups by table, completion, `--version`."""
    app = App(_HELP, COMMANDS, completion=True)
    app.callback()(_root)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from dgcctl.cli._ui import output

        output.line(f"dgcctl {dgc.__version__}")
        raise typer.Exit(0)


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Train, watch and trust Dynamic Group Convolution networks."""


def take_common_flags(arguments: list[str]) -> list[str]:
    """The arguments without -q, -v and --no-color, which are put into the environment instead."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    # Into the environment: processes that a command starts
    # hear it as well. Behind `--` words are the user's own.
    found = {_COMMON[word] for word in arguments[:end] if word in _COMMON}
    if "no-color" in found:
        os.environ["NO_COLOR"] = "1"
    if found & {"quiet", "verbose"}:
        os.environ[settings.VERBOSITY] = "1" if "verbose" in found else "-1"
    return [word for word in arguments[:end] if word not in _COMMON] + arguments[end:]


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    words = take_common_flags(sys.argv[1:] if arguments is None else arguments)
    try:
        # Before any variable is read, for the file gives those that are not set.
        apply_project_file(os.environ)
        settings.check()
        return _code(_call(words))
    except typer.TyperException as error:
        return _usage(error)
    except BrokenPipeError:  # help, read by a `head` that has gone
        streams.silence(sys.stdout)
        return int(ExitCode.DONE)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last place that can turn it into one line
        return diagnostics.report(error)


def _call(words: list[str]) -> Any:
    """Carry out a command line. Typer's own way ends Ctrl-C and a closed pipe without a word, with
    130 and 1.
    """
    command = typer.main.get_command(build())
    if _COMPLETION in os.environ:
        return command.main(words, prog_name="dgcctl", standalone_mode=False)
    try:
        with command.make_context("dgcctl", list(words)) as context:
            return command.invoke(context)
    except typer.Exit as end:
        return end.exit_code


def _code(result: Any) -> int:
    return int(result) if isinstance(result, int) else int(ExitCode.DONE)


def _usage(error: typer.TyperException) -> int:
    """A bare group shows its help; any other mistake is one line."""
    if type(error).__name__ == "NoArgsIsHelpError":
        diagnostics.help_text(error.format_message())
        return int(ExitCode.USAGE)
    return diagnostics.report(error)
