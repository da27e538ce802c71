"""The dashboard as a user starts it: a process of its own in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

from tests import waiting
from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]


class Terminal:
    """A pseudo-terminal with a process in it; what it writes is collected."""

    def __init__(
        self,
        arguments: list[str],
        *,
        size: tuple[int, int] = (100, 30),
        env: dict[str, str] | None = None,
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(size, tell=False)
        self.output = bytearray()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(env or {})},
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self.output += data

    def resize(self, size: tuple[int, int], *, tell: bool = True) -> None:
        columns, lines = size
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def shows(self, text: str) -> bool:
        return text.encode() in self.output

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        waiting.wait_for(holds, what, by=self, pause=0.02)

    def poll(self) -> int | None:
        """Its exit code, once it has ended and all that it wrote has been read."""
        return None if self._reader.is_alive() else self.process.poll()

    def last_words(self) -> str:
        return f"{bytes(self.output[-waiting.WORDS :])!r}"

    def close(self) -> None:
        """Close the window: the process gets SIGHUP."""
        with contextlib.suppress(OSError):
            os.close(self.master)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(GUARD)
        self.close()
