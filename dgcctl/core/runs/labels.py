"""Tags and a note that a person gives to a run afterwards: labels.json, a file of its own, so that
what the training recorded stays as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dgc.errors import IntegrityError, UsageError
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir

FILE = "labels.json"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")
NOTE_LETTERS = 2000


@dataclass(frozen=True)
class Labels:
    tags: tuple[str, ...] = ()
    note: str = ""


def read(run: RunDir) -> Labels:
    """None where nobody gave any, or the file cannot be read."""
    if not os.path.lexists(f"{run.path}/{FILE}"):  # as most have none, in a third of the time
        return Labels()
    try:
        found = read_json(run.file(FILE))
    except (OSError, IntegrityError):
        # labels are a convenience: a damaged file hides no run
        return Labels()
    tags = found.get("tags")
    listed = tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()
    return Labels(listed, str(found.get("note") or ""))


def tag(run: RunDir, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Labels:
    """Give tags, and take away those that were given. Raises UsageError for what can be no tag."""
    before = read(run)
    for word in add:
        if not _TAG.fullmatch(word):
            raise UsageError(
                f"tag {word!r}: should be at most 64 letters, digits and `_.:/-`, beginning with a"
                " letter or digit"
            )
    gone = set(remove)
    tags = dict.fromkeys((*before.tags, *add))
    return _write(run, Labels(tuple(word for word in tags if word not in gone), before.note))


def note(run: RunDir, text: str) -> Labels:
    """Give a note; an empty one takes it away. Raises UsageError for one that is too long."""
    if len(text) > NOTE_LETTERS:
        raise UsageError(f"a note has at most {NOTE_LETTERS:,} letters, this one {len(text):,}")
    return _write(run, Labels(read(run).tags, text))


def _write(run: RunDir, labels: Labels) -> Labels:
    document: dict[str, Any] = {"tags": list(labels.tags), "note": labels.note}
    # no file where nobody said anything, so that a listing has none to open
    if labels == Labels():
        run.file(FILE).unlink(missing_ok=True)
    else:
        write_json(run.file(FILE), document)
    return labels
