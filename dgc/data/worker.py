"""How a worker process behaves: requests to stop are the trainer's to answer, and it never outlives
its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def settle_worker(parent: int, _: int) -> None:
    """Called in each worker as it starts; `parent` is the process that made it.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the trainer still needs its
    workers to finish the step: a worker ignores them, unless its parent itself ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent_signal, daemon=True).start()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this worker could ask to be told
        os._exit(0)


def _await_parent_signal() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
