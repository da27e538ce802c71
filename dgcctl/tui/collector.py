"""No key waits for Python's garbage collector."""

from __future__ import annotations

import gc

SETTLED = 1.5  # seconds until the modules of the first screens are loaded


def settle() -> None:
    """What is loaded by now stays: to look through it again and again would hold up one key in a
    dozen by 45 ms.
    """
    gc.collect()
    gc.freeze()
