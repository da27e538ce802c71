"""What a search can draw: which choices no recipe takes, and which combinations are left where they
can be counted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgc.errors import RecipeError
from dgc.recipe.load import Recipe
from dgcctl.core.search.space import Choice
from dgcctl.core.sweep.grid import MAX_TRIALS

_ASKED = 100  # recipes that are tried before a search begins: a second's work
_WHERE = re.compile(r"^.*?: override (['\"]).*?\1: ")
Load = Callable[[Sequence[str]], Recipe]


@dataclass(frozen=True)
class Unusable:
    """A value of a choice that no recipe takes, whatever is chosen beside it."""

    key: str
    value: str
    why: str


def combinations(choices: Sequence[Choice]) -> list[dict[str, Any]] | None:
    """All that may be drawn; None where it is endless, or more than a sweep could try."""
    lists: list[list[Any]] = []
    count = 1
    for choice in choices:
        values = choice.all()
        count *= len(values or ())
        if values is None or count > MAX_TRIALS:
            return None
        lists.append(values)
    keys = [choice.key for choice in choices]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*lists)]


def overrides_of(choices: Sequence[Choice], drawn: Mapping[str, Any]) -> list[str]:
    """A draw as overrides of the recipe."""
    return [choice.override(drawn[choice.key]) for choice in choices]


def told_problem(error: str) -> str:
    """A refused recipe's first problem, without the file and the override that it stands in: the
    values are named in the sentence.
    """
    return _WHERE.sub("", error.partition("\n")[0])


def try_choices(choices: Sequence[Choice], load: Load) -> tuple[Recipe, list[Unusable]]:
    """A recipe that can be drawn, and the listed choices that never can. A range without an end of
    values is tried at both its ends. Raises RecipeError where nothing can be drawn.
    """
    budget = _Budget(load)
    lists = {choice.key: choice.all() or choice.ends() for choice in choices}
    found = budget.first_good(choices, lists)
    if found is None:
        raise budget.first_problem or RecipeError("the search has no values")
    drawn, recipe = found
    unusable: list[Unusable] = []
    for choice in choices:
        for value in choice.all() or ():
            if value == drawn[choice.key]:
                continue
            one = {**lists, choice.key: [value]}
            budget.first_problem = None
            # with what is known to be good first: that settles nearly all
            near = {key: [good] for key, good in drawn.items()} | {choice.key: [value]}
            if budget.first_good(choices, near) or budget.first_good(choices, one):
                continue
            if budget.left <= 0:  # not all was tried: nothing is said of it
                return recipe, unusable
            why = told_problem(str(budget.first_problem))
            unusable.append(Unusable(choice.key, choice.override(value).partition("=")[2], why))
    return recipe, unusable


class _Budget:
    """Tries recipes until so many were tried."""

    def __init__(self, load: Load) -> None:
        self.load, self.left = load, _ASKED
        self.first_problem: RecipeError | None = None

    def first_good(
        self, choices: Sequence[Choice], lists: Mapping[str, Sequence[Any]]
    ) -> tuple[dict[str, Any], Recipe] | None:
        for drawn in _product(lists):
            if self.left <= 0:
                return None
            self.left -= 1
            try:
                return drawn, self.load(overrides_of(choices, drawn))
            except RecipeError as error:
                self.first_problem = self.first_problem or error
        return None


def _product(lists: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))
