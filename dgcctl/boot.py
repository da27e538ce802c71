"""The first thing that `dgcctl` runs: what must hold before anything else is imported.

Ctrl-C ends the program with 130 and one line from here on, also where SIGINT was inherited as
ignored (a command that a script started in the background): who sends it means it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def run() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGINT, _leave)  # an exception within an import could be swallowed
    from dgc.run.library_warnings import one_line_warnings
    from dgcctl.cli._ui import streams

    streams.prepare()
    one_line_warnings(_say_warning, _say_older_name)
    from dgcctl.cli.main import main

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that it could end
    except KeyboardInterrupt:
        _leave()
    streams.finish()
    sys.exit(code)


def _say_warning(text: str) -> None:
    """What libraries tell their callers is nothing to a user: only -v shows it."""
    from dgcctl.cli._ui import diagnostics

    diagnostics.detail(f"warning: {text}")


def _say_older_name(text: str) -> None:
    """What a user wrote, and can mend: said always."""
    from dgcctl.cli._ui import diagnostics

    diagnostics.warn(text)


def _leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"error: interrupted\n")
    os._exit(_INTERRUPTED)
