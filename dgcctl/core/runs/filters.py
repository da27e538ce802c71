"""The filter language of every command that takes a FILTER, and of the dashboard.

    lr>0.05 state=done tag:paper name~demo        all of these; `and` may stand between
    state=failed or state=died                    one of these; `or` binds less than a blank
    not tag:paper                                 those without
    seed=0,1,2   lr=0.01..0.1                     a list, a range (both ends are in)
    title~"two words"                             quotes around what has blanks
    age<2h   started=2026-11-20                   s, m, h, d, w; a date is that day in UTC

Each argument of a command is a filter by itself, and all must hold, but where `or` stands between.

`=` `!=` `>` `>=` `<` `<=` compare (numbers as numbers), `~` asks whether a text contains another
(case does not matter), `tag:x` asks for a tag, and a bare word for a part of the id. A key is a
column (`state`, `epoch`, `top1_error`, `host`, `owner`, ...) or a key of the recipe: `optim.lr`, or
`lr` where only one section has it.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from dgc.errors import UsageError
from dgc.run.status import State
from dgcctl.core.runs import filter_values as values

STATES = (*map(str, State), "unreadable")
OF_TRIALS = ("sweep", "search", "trial")  # keys that trials alone have
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
_TERM = re.compile(r"([A-Za-z_][\w.]*)(>=|<=|!=|==|=|>|<|~)(.*)", re.DOTALL)


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
    negated: bool = False

    def holds(self, run: Filterable) -> bool:
        return self._holds(run) is not self.negated

    def _holds(self, run: Filterable) -> bool:
        if not self.sign:
            # case does not matter in ids: they are typed by hand
            return self.value.lower() in run.id.lower()
        if self.sign == ":" or self.asks_tag(run):
            tags = run.values.get("tags") or []
            return any(word in tags for word in self.value.split(",")) is not (self.sign == "!=")
        value = run.values.get(resolve_key(self.key, run.values))
        return values.compare(value, self.sign, self.value, self.key)

    def asks_tag(self, run: Filterable) -> bool:
        """`tags=paper` and `tag=paper` are `tag:paper`; a list in brackets is the list itself."""
        named = self.key == "tags" or (self.key == "tag" and "tag" not in run.values)
        return named and self.sign in ("=", "!=") and not self.value.startswith(("[", "null"))


OR = ("or", "OR", "|", "||")
AND = ("and", "AND", "&", "&&")
NOT = ("not", "NOT", "!")
# what people write who know another language, and what is meant by it
_FOREIGN = {
    "in": "lr=0.1,0.2", "is": "state=done", "like": "name~demo", "contains": "name~demo",
    "between": "lr=0.01..0.1",
}  # fmt: skip
Filter = tuple[tuple[Term, ...], ...]  # alternatives, each of terms that must all hold


def parse_filter(text: str) -> Filter:
    """The alternatives of a filter; an empty text is one that everything fits. Raises UsageError
    for a term that is none, a quote that is not closed, an `or` with nothing beside it.
    """
    # counted first: the expression below would take an open quote for a letter
    if text.count('"') % 2 or text.count("'") % 2:
        raise UsageError(f"filter {text!r}: a quote is not closed")
    groups: list[list[Term]] = [[]]
    words = _spans_joined(_WORD.findall(text))
    negated = False
    for place, word in enumerate(words):
        if word in OR:
            groups.append([])
        elif word in AND:
            # it changes nothing, but where nothing stands beside it, something was forgotten
            if not groups[-1] or place + 1 == len(words) or words[place + 1] in (*AND, *OR):
                raise UsageError(
                    f"filter {text!r}: `{word}` stands between two, and one is missing"
                )
        elif word in NOT:
            negated = not negated
            if place + 1 == len(words) or words[place + 1] in (*AND, *OR):
                raise UsageError(f"filter {text!r}: `{word}` stands before a term, as in not tag:x")
        else:
            groups[-1].append(replace(_term(word), negated=negated))
            negated = False
    if len(groups) > 1 and not all(groups):
        raise UsageError(f"filter {text!r}: `or` stands between two filters, and one is missing")
    return tuple(map(tuple, groups))


def parse_filters(texts: Sequence[str]) -> Filter:
    """The arguments of a command: each is a filter by itself, and all must hold; `or` as an
    argument parts those before it from those behind. Raises UsageError as `parse_filter`.
    """
    groups: list[list[Filter]] = [[]]
    waiting = ""
    for text in texts:
        if text in OR:
            groups.append([])
        elif text in NOT:
            waiting = f"{text} "
        elif text not in AND:
            found = parse_filter(waiting + text)
            if waiting and sum(map(len, found)) > 1:
                raise UsageError(f"filter {text!r}: `{waiting.strip()}` stands before one term")
            groups[-1].append(found)
            waiting = ""
    ends = any(text in AND for text in (*texts[:1], *texts[-1:]))
    if waiting or ends or (len(groups) > 1 and not all(groups)):
        # told as of one text
        return parse_filter(" ".join(texts))
    alternatives = (itertools.product(*group) for group in groups)
    return tuple(tuple(itertools.chain(*one)) for group in alternatives for one in group)


def _spans_joined(words: list[str]) -> list[str]:
    """`age<2 hours` as `age<2hours`."""
    joined: list[str] = []
    for word in words:
        match = _TERM.fullmatch(joined[-1]) if joined else None
        is_span = match and match[1] in values.SPANS and re.fullmatch(r"\d+(\.\d+)?", match[3])
        if is_span and re.fullmatch(values.UNIT, word):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def is_filter(text: str) -> bool:
    """Whether a word of the command line is a filter
    and not the name of a run: it has an operator.
    """
    if text in (*OR, *AND, *NOT):
        return True
    return any(
        _TERM.fullmatch(_bare(word)) or word.startswith("tag:") for word in _WORD.findall(text)
    )


def _bare(word: str) -> str:
    return word.replace('"', "").replace("'", "")


def _term(word: str) -> Term:
    word = _bare(word)
    if word.startswith("tag:") and len(word) > 4:
        return Term("tags", ":", word[4:])
    match = _TERM.fullmatch(word)
    # `lr=>5` would be read as `=` with the value `>5`, and find nothing without a word.
    if match and match[3] and match[3][0] not in "<>=!~":
        return Term(match[1], "=" if match[2] == "==" else match[2], match[3])
    if word in _FOREIGN:
        raise UsageError(f"filter: {word!r} is no word of it: write e.g. {_FOREIGN[word]}")
    # a bare word is a part of an id, so it can hold only what an id holds
    if match or not re.fullmatch(r"[\w.-]+", word):
        raise UsageError(
            f"filter term {word!r}: write key=value (or != > >= < <= ~), tag:name, or a part of an"
            " id, e.g. 'lr>0.05 state=done tag:paper name~demo'"
        )
    return Term("id", "", word)


def select(runs: Iterable[RunT], wanted: Filter) -> list[RunT]:
    """The runs that fit. Raises UsageError where no run knows a key, or could ever fit: a word
    where all runs have numbers, another case.
    """
    listed = list(runs)
    # asked of the whole listing before any run is left out: a mistake is one whichever runs fit
    if listed:
        for term in (term for group in wanted for term in group):
            _require_known(term, listed)
    fits = [run for run in listed if _fits(run, wanted)]
    # asked only where nothing fits: a rare value is no mistake
    if not fits and listed:
        for term in (term for group in wanted for term in group):
            _require_possible_value(term, listed)
    return fits


def _fits(run: Filterable, wanted: Filter) -> bool:
    return any(all(term.holds(run) for term in group) for group in wanted)


def _require_possible_value(term: Term, runs: Sequence[Filterable]) -> None:
    if term.sign == ":" or term.asks_tag(runs[0]):
        _require_tag(term, runs)
        return
    # what some run has is possible
    if term.sign != "=" or any(term.holds(run) for run in runs):
        return
    every = [run.values.get(resolve_key(term.key, run.values)) for run in runs]
    told = [value for value in every if value is not None]
    for word in values.listed(term.value):
        near = next((str(v) for v in told if str(v).lower() == word.lower()), None)
        # another case is the likeliest slip
        if near is not None:
            raise UsageError(f"filter: no run has {term.key}={word} (did you mean {near}?)")
        numbers = told and all(values.is_number(value) for value in told)
        if (
            numbers
            and values.ends_of(word, term.key) is None
            and ".." not in word
            and word != "null"
        ):
            hint = f": write {term.key}={word[1:-1]}" if word.startswith("[") else ""
            raise UsageError(
                f"filter: {term.key} is a number in all runs, and {word!r} is none{hint}"
            )


def _require_tag(term: Term, runs: Sequence[Filterable]) -> None:
    """A tag in another case is a mistake; one that no run has is an empty answer."""
    tags = {str(tag).lower(): str(tag) for run in runs for tag in run.values.get("tags") or ()}
    near = tags.get(term.value.lower(), term.value)
    if near != term.value:
        raise UsageError(f"filter: no run has the tag {term.value} (did you mean tag:{near}?)")


def _require_known(term: Term, runs: Sequence[Filterable]) -> None:
    """A key that no run has is a mistake, not an empty answer."""
    if term.sign in ("", ":") or term.asks_tag(runs[0]):
        return
    # one run that has the key is enough: others may be from an older release
    if any(resolve_key(term.key, run.values) in run.values for run in runs):
        _require_possible(term)
        return
    # where no sweep was made yet, none is meant
    if term.key in OF_TRIALS:
        return
    names = sorted(
        # twenty are enough for names: a folder may hold thousands
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
    if term.key != "state" or term.sign not in ("=", "!="):
        return
    for word in values.listed(term.value):
        if word not in STATES:
            near = difflib.get_close_matches(word.lower(), STATES, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"filter: no run can be {word} ({hint}states: {', '.join(STATES)})")


# what tables call a key (docs/names.md), where a filter can name it
_SHOWN = {"took": "seconds", "run": "id"}


def resolve_key(key: str, values: Mapping[str, Any]) -> str:
    """The full name of a key that may be given by its last part.
    Raises UsageError where two sections have it.
    """
    return key if key in values else _resolved(key, tuple(values))


@lru_cache(maxsize=1024)
def _resolved(key: str, names: tuple[str, ...]) -> str:
    """Kept: thousands of runs have the same names, and each is asked for every word of a filter."""
    end = f".{key}"
    found = [name for name in names if name.endswith(end)]
    if len(found) > 1:
        # never the first that comes: `lr` may mean two things
        raise UsageError(f"filter: {key} can be {' or '.join(found)}: give the whole key")
    shown = _SHOWN.get(key, key)
    return found[0] if found else shown if shown in names else key
