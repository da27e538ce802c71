"""The filter language of `runs ls` and the dashboard: `lr>0.05 state=done tag:paper name~demo`.

Terms are separated by blanks and all must hold. `=` `!=` `>` `>=` `<` `<=` compare (numbers as
numbers), `~` asks whether a text contains another (case does not matter), `tag:x` asks for a tag,
and a bare word for a part of the id. A key is a column (`state`, `epoch`, `top1_error`, `age` in
seconds, ...) or a key of the recipe: `optim.lr`, or `lr` where only one section has it.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dgc.errors import UsageError
from dgc.run.status import State

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
STATES = (*map(str, State), "unreadable")
_TERM = re.compile(r"([A-Za-z_][\w.]*)(>=|<=|!=|==|=|>|<|~)(.*)")


class Filterable(Protocol):
    """Anything with an id and named values: dgcctl.core.runs.listing.Run."""

    @property
    def id(self) -> str: ...
    @property
    def values(self) -> dict[str, Any]: ...


RunT = TypeVar("RunT", bound=Filterable)


@dataclass(frozen=True)
class Term:
    """One condition. An empty `sign` asks for a part of the id, `:` for a tag."""

    key: str
    sign: str
    value: str

    def holds(self, run: Filterable) -> bool:
        if not self.sign:
            return self.value.lower() in run.id.lower()
        if self.sign == ":":
            return self.value in (run.values.get("tags") or [])
        return compare(run.values.get(resolve_key(self.key, run.values)), self.sign, self.value)


def parse_filter(text: str) -> list[Term]:
    """The terms of a filter. Raises UsageError for a term that is none."""
    return [_term(word) for word in text.split()]


def _term(word: str) -> Term:
    if word.startswith("tag:") and len(word) > 4:
        return Term("tags", ":", word[4:])
    match = _TERM.fullmatch(word)
    # `lr=>5` would be read as `=` with the value `>5`, and find nothing without a word.
    if match and match[3] and match[3][0] not in "<>=!~":
        return Term(match[1], "=" if match[2] == "==" else match[2], match[3])
    if match or not re.fullmatch(r"[\w.-]+", word):
        raise UsageError(
            f"filter term {word!r}: write key=value (or != > >= < <= ~), tag:name, or a part of an"
            " id, e.g. 'lr>0.05 state=done tag:paper name~demo'"
        )
    return Term("id", "", word)


def select(runs: Iterable[RunT], terms: Sequence[Term]) -> list[RunT]:
    """The runs for which all terms hold. Raises UsageError where no run knows a key."""
    listed = list(runs)
    if listed:
        for term in terms:
            _require_known(term, listed)
    return [run for run in listed if all(term.holds(run) for term in terms)]


def _require_known(term: Term, runs: Sequence[Filterable]) -> None:
    """A key that no run has is a mistake, not an empty answer."""
    if term.sign in ("", ":"):
        return
    if any(resolve_key(term.key, run.values) in run.values for run in runs):
        _require_possible(term)
        return
    names = sorted(
        {name for run in runs[:20] for key in run.values for name in (key, key.rpartition(".")[2])}
    )
    near = difflib.get_close_matches(term.key, names, n=1, cutoff=0.5)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "keys are columns and recipe keys, e.g. state, epoch, optim.lr"
    )
    raise UsageError(f"filter: no run has a key {term.key} ({hint})")


def _require_possible(term: Term) -> None:
    """A state that no run can be in is a mistake too."""
    if term.key != "state" or term.sign not in ("=", "!=") or term.value in STATES:
        return
    near = difflib.get_close_matches(term.value, STATES, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"filter: no run can be {term.value} ({hint}states: {', '.join(STATES)})")


def resolve_key(key: str, values: Mapping[str, Any]) -> str:
    """The full name of a key that may be given by its last part. Raises UsageError where two
    sections have it.
    """
    if key in values:
        return key
    found = [name for name in values if name.rpartition(".")[2] == key]
    if len(found) > 1:
        raise UsageError(f"filter: {key} can be {' or '.join(found)}: give the whole key")
    return found[0] if found else key


def compare(value: Any, sign: str, wanted: str) -> bool:
    """Whether a value stands in a relation to a word; nothing compares with an absent value but
    `!=`.
    """
    if sign == "~":
        return value is not None and wanted.lower() in str(value).lower()
    # An absent value is not small and not large: `top1_error<20` must not find runs that were
    # never evaluated.
    if value is None:
        return (wanted in ("null", "none", "-")) == (sign == "=") if sign in ("=", "!=") else False
    number = _number(wanted)
    if isinstance(value, int | float) and not isinstance(value, bool) and number is not None:
        return _OPERATORS[sign](value, number)
    if isinstance(value, int | float) and sign not in ("=", "!="):
        raise UsageError(f"filter: {wanted!r} is no number, so nothing is {sign} it")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _OPERATORS[sign](text, wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
