"""Warnings of Python's libraries as one line each, without the source path that means nothing to a
user. No torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from dgc.errors import OlderNameWarning


def one_line_warnings(
    say: Callable[[str], None], say_older_name: Callable[[str], None] | None = None
) -> None:
    """Say each warning once, by its first line; those that differ in a number or a letter alone are
    one. `say_older_name`: another voice for our own names of before, which are the user's to mend.
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
            older = issubclass(category, OlderNameWarning)
            (say_older_name if older and say_older_name else say)(text)

    warnings.showwarning = show
