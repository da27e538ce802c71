"""How a worker process behaves: requests to stop are the trainer's to answer, and it never outlives
its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from dgc.run.process import when_parent_ends

_REQUESTS = frozenset({signal.SIGINT, signal.SIGUSR1, signal.SIGTERM})


@contextlib.contextmanager
def held_requests() -> Iterator[None]:
    """While workers are started: a request to stop waits until each of them can ignore it.

    A process is born with the mask of the thread that made it. Without this, a signal to the whole
    group ends a worker that has not come to `settle_worker` yet, and the training with it. Nothing
    is lost: what came meanwhile is delivered at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle_worker(parent: int, _: int) -> None:
    """Called in each worker as it starts; `parent` is the process that made it.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the trainer still needs its
    workers to finish the step: a worker ignores them, unless its parent itself ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # born with all of them blocked (`held_requests`); SIGTERM is waited for instead
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _REQUESTS - {signal.SIGTERM})
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent_signal, daemon=True).start()
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # a trainer that is killed cannot end its workers: the kernel does
    with contextlib.suppress(OSError, AttributeError):
        when_parent_ends(signal.SIGKILL)()
    if os.getppid() != parent:  # it died before this worker could ask to be told
        os._exit(0)


def _await_parent_signal() -> None:
    while True:
        # from our parent alone: a SIGTERM to the whole group is the trainer's to answer
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
