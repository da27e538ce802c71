"""How a short process of dgc answers the one that started it: a JSON file, or one error line and
its exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, ExitCode, system_error
from dgc.run.files import write_json
from dgc.run.library_warnings import one_line_warnings
from dgc.talk import say, say_error


def reply(file: Path, make: Callable[[], Mapping[str, Any]]) -> int:
    """Write what `make` returns; returns the exit code of the process."""
    one_line_warnings(lambda text: say(f"warning: {text}"))
    try:
        write_json(file, make())
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    except OSError as error:  # a folder that may not be looked into, a full disk
        refused = system_error(error)
        say_error(refused)
        return int(refused.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)
