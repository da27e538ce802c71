"""Warnings of Python's libraries as one line each, without the source path that means nothing to a
user. No torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, TextIO


def one_line_warnings(say: Callable[[str], None]) -> None:
    """Say each warning once, by its first line; those that differ in a number or a letter alone are
    one.
    """
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        text = (str(message).strip().splitlines() or [category.__name__])[0]
        kind = re.sub(r"\d+|\([^)]*\)", "", text)
        if kind not in seen:
            seen.add(kind)
            say(text)

    warnings.showwarning = show
