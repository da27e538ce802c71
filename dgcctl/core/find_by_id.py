"""What a user names by its id, a unique beginning of it, or `latest`: sweeps and searches alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from dgc.errors import UsageError

T = TypeVar("T")


def find_by_id(
    name: str, known: Sequence[T], id_of: Callable[[T], str], kind: str, kinds: str
) -> T:
    """The one that `name` means; `known` is in the order in which they were made, and an id of
    which another one begins still means itself.

    Raises UsageError naming the candidates.
    """
    if name == "latest" and known:
        return known[-1]
    hits = [one for one in known if id_of(one) == name] or [
        one for one in known if id_of(one).startswith(name)
    ]
    if len(hits) == 1:
        return hits[0]
    why = f"several {kinds} begin so" if hits else f"no such {kind}"
    raise UsageError(f"{name}: {why} ({', '.join(map(id_of, hits or known)) or 'none'})")
