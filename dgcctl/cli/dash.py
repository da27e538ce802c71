"""`dgcctl dash`: the dashboard in the terminal, one frame of it as text, or in a browser on this
machine.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dgc import settings as environment
from dgc.errors import UsageError
from dgc.talk import shown
from dgcctl.cli._ui import completion, diagnostics, options, output
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import settings
from dgcctl.core.runs import find

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp

RunArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Runs to open: the first is shown, the others are laid over.",
        autocompletion=completion.complete_run,
    ),
]
Theme = Literal["dark", "light", "plain"]


@trusting
def dash(
    run: RunArguments = None,
    runs_dir: options.RunsDir = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Hide what changes a run.")] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame as plain text and end.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="COLSxLINES", help="Size of the frame [the terminal's]."),
    ] = None,
    theme: Annotated[
        Theme | None, typer.Option("--theme", help="Colours [as last time, else dark].")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help="YAML file of keys: id: key [DGCCTL_KEYS]."),
    ] = None,
    export_dir: Annotated[
        Path | None, typer.Option("--export-dir", metavar="DIR", help="Where e writes to [.].")
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="In a browser instead: on 127.0.0.1 only, behind a token."),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port for --serve; 0 takes any.")
    ] = 8910,
) -> None:
    """Watch, compare and steer runs. Training never waits for it and goes on when it is closed."""
    folder = settings.present_runs_dir(runs_dir)
    names = [str(find.find_run(name, folder).path) for name in run or []]
    if serve:
        _serve(port, names, folder, readonly, theme, keys)
        return
    from dgcctl.tui.app import DashApp
    from dgcctl.tui.keys import load_keymap
    from dgcctl.tui.start_options import Options, default_state_dir

    keys_file = _keys_file(keys)
    load_keymap(keys_file)
    chosen = Options(
        runs_dir=folder,
        open=tuple(names),
        readonly=readonly,
        theme=f"dgc-{theme}" if theme else None,
        state_dir=default_state_dir(),
        keys_file=keys_file,
        export_dir=export_dir or Path.cwd(),
    )
    if once:
        from dgcctl.tui.once import frame

        output.write(shown(frame(chosen, _size(size)), newlines=True))
        return
    _open(DashApp(chosen))


def _open(app: DashApp) -> None:
    """Show the dashboard until it is left. Raises what ended it otherwise."""
    _require_terminal()
    # may come ignored (nohup); without its terminal this is nothing
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    app.run()
    if app.failure is not None:
        raise app.failure
    if app.return_code == 128 + signal.SIGTERM:
        raise typer.Exit(app.return_code)


def _keys_file(flag: Path | None) -> Path | None:
    """The keys file that is named (it must be there), or the one in the user's configuration."""
    named = flag or environment.keys_file()
    if named is not None and not named.is_file():
        raise UsageError(f"{named}: no such keys file: `dgcctl dash` and `?` list the ids")
    return (
        named
        or Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        / "dgcctl"
        / "keys.yaml"
    )


def _size(text: str | None) -> tuple[int, int]:
    if text is None:
        found = shutil.get_terminal_size((80, 24))
        return found.columns, found.lines
    match = re.fullmatch(r"(\d{1,4})[xX](\d{1,4})", text)
    if match is None or int(match[1]) < 20 or int(match[2]) < 6:
        raise UsageError(f"--size {text}: should be COLUMNSxLINES from 20x6, e.g. 160x48")
    return int(match[1]), int(match[2])


def _require_terminal() -> None:
    """In the browser's process there is none, and none is needed."""
    if "TEXTUAL_DRIVER" in os.environ:
        return
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        raise UsageError(
            f"dash: this terminal (TERM={os.environ.get('TERM', '')}) cannot be drawn on: "
            "`dgcctl dash --once` prints a frame"
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "dash: this is no terminal: `dgcctl dash --once` prints a frame, --serve opens it in a"
            " browser"
        )


def _serve(
    port: int, names: list[str], folder: Path, readonly: bool, theme: str | None, keys: Path | None
) -> None:
    from dgcctl.tui.serve import GuardedServer, free_port, new_token

    words = [sys.executable, "-m", "dgcctl", "dash", *names]
    # a default that is not there yet
    words += ["--runs-dir", str(folder.absolute())] if folder.is_dir() else []
    words += ["--readonly"] if readonly else []
    words += ["--theme", theme] if theme else []
    words += ["--keys", str(keys.absolute())] if keys else []
    token = environment.take_dash_token() or new_token()
    server = GuardedServer(
        shlex.join(words), port=free_port(port), token=token, say=diagnostics.note
    )
    server.serve()
