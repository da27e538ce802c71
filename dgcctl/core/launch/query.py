"""Ask a process of dgc a question: run `python -m module ... --json FILE` and read the answer from
the file.

Its talk on stderr comes through to ours as it is said; its error line is taken out and raised.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dgc.errors import ExitCode, error_of
from dgc.run import oom
from dgc.run.files import read_json
from dgcctl.core.launch import launcher
from dgcctl.core.launch.launcher import Process, RankOptions

Say = Callable[[str], None]


def silently(_: str) -> None:
    """What a process says besides its answer is not for anybody."""


def query(
    module: str,
    arguments: Sequence[str],
    *,
    say: Say = silently,
    ranks: RankOptions | None = None,
    **env: str | None,
) -> dict[str, Any]:
    """The answer of a process. Raises the DgcError that it ended with."""
    # in a file: stdout may be written to by any library, and would be no answer then
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
        answer = Path(folder) / "answer.json"
        command = [*launcher.module_command(module, ranks), *arguments, "--json", str(answer)]
        starved = oom.kills()
        code, said = _run(command, say, launcher.child_environment(**env))
        if code:
            hungry = code == -signal.SIGKILL and oom.kills() > starved
            wrong = code if code > 0 else ExitCode.RESOURCES if hungry else ExitCode.FAILED
            raise error_of(
                wrong, _reason(said, code, module) + (", out of memory" if hungry else "")
            )
        # read while the folder is there
        value = read_json(answer)
    value.pop("schema_version", None)
    return value


def _run(command: Sequence[str], say: Say, env: dict[str, str]) -> tuple[int, list[str]]:
    """Run to the end, passing lines through; what looks like an error is kept back.

    A question has nothing to save: Ctrl-C ends us, and so the process, at once.
    """
    kept: list[str] = []
    # tied: a question that nobody waits for any more ends with us
    with Process(command, output=subprocess.PIPE, env=env, tied=True) as process:
        for line in process.lines():
            (kept.append if _is_error(line, kept) else say)(line)
        return process.wait(), kept


def _is_error(line: str, kept: list[str]) -> bool:
    """An error line, and whatever follows it."""
    # what follows an error line belongs to it
    return bool(kept) or line.startswith(("error: ", "Traceback "))


def _reason(kept: list[str], code: int, module: str) -> str:
    last = next(
        (line.removeprefix("error: ") for line in reversed(kept) if line.startswith("error: ")),
        None,
    )
    # the launcher of several ranks speaks last, and knows which of them was lost
    if last is not None:
        return last
    if code < 0:
        return f"python -m {module} was killed by signal {-code}"
    return f"python -m {module} failed ({kept[-1] if kept else f'exit code {code}'})"
