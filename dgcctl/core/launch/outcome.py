"""Why a trainer ended: its own account (or its launcher's, of a rank), else its error line in the
log.
"""

from __future__ import annotations

import re
import signal
from dataclasses import replace

from dgc.errors import DgcError, ExitCode, error_of
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgc.run.trusted_code import trust_words_of
from dgcctl.core import settings
from dgcctl.core.launch.log_tail import log_lines

START_MARK = " start: "
_PLACE = re.compile(r"( at step \d+)?; last checkpoint: \S+$")
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)')
_ERROR_LINE = re.compile(r"^error: (.*)$")


def failure(
    run: RunDir, code: int, since: float = 0.0, *, starved: bool = False
) -> DgcError | None:
    """The error of an ended trainer, with the exit code it asked for; None where it is done.

    `since` (seconds since the epoch): an account in status.json from before belongs to an earlier
    start. `starved`: meanwhile the system killed something for want of memory.
    """
    if code == 0:
        return None
    status, lines = _status(run), _last_start(_said(run))
    # an account that is older than this start is about another one
    if status is not None and status.exit_code and status.heartbeat >= since:
        return error_of(
            status.exit_code,
            status.reason or f"run {run.id} ended with exit code {status.exit_code}",
        )
    # the last error line: later ones are said by those who stop because of it
    said = next((match for line in reversed(lines) if (match := _ERROR_LINE.match(line))), None)
    return error_of(code, said[1]) if said and code > 0 else _unexplained(run, code, lines, starved)


def _said(run: RunDir) -> list[str]:
    try:
        return log_lines(run.log, 5000)
    except DgcError:  # no file stands there, so nothing was said
        return []


def _last_start(lines: list[str]) -> list[str]:
    """What was said since the trainer was last started."""
    starts = [index for index, line in enumerate(lines) if START_MARK in line]
    return lines[starts[-1] + 1 :] if starts else lines


def without_checkpoint(said: str) -> str:
    """A trainer's error line without the place and the checkpoint that it names at its end."""
    return _PLACE.sub("", said)


def settle(run: RunDir, error: DgcError) -> None:
    """Write the end of a run whose trainer ended before it could write anything itself."""
    status = _status(run)
    # queued: the trainer never wrote a word of its own; else its own account stands
    if status is not None and status.state == State.QUEUED:
        state, code = State.FAILED, int(error.exit_code)
        write_status(run, replace(status, state=state, reason=str(error), exit_code=code))


def _status(run: RunDir) -> Status | None:
    try:
        return read_status(run)
    except (OSError, DgcError, ValueError, TypeError):
        return None


def _unexplained(run: RunDir, code: int, lines: list[str], starved: bool) -> DgcError:
    if code < 0:
        # SIGKILL is said to be want of memory only where the system counted such a kill
        hungry = starved and -code == signal.SIGKILL
        hint = ", out of memory" if hungry else ""
        text = (
            f"the trainer was killed by signal {-code}{hint}: see {run.log}, then `dgcctl resume"
            f" {settings.run_argument(run.path)}{trust_words_of(run.recipe_json)}`"
        )
        return error_of(ExitCode.RESOURCES if hungry else ExitCode.FAILED, text)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return error_of(
        code, f"the trainer ended with exit code {code} ({_place(lines)}{last}): see {run.log}"
    )


def _place(lines: list[str]) -> str:
    """File and line of the last traceback: "FILE:LINE: ", or "" where there is none."""
    found = next((match for line in reversed(lines) if (match := _FRAME.match(line))), None)
    return f"{found[1]}:{found[2]}: " if found else ""
