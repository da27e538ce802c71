"""What a recipe still says of a run whose data or network was changed,
and what of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from dgc.recipe import own_values
from dgc.recipe.load import Recipe
from dgcctl.cli._ui import diagnostics


def say_what_no_longer_holds(recipes: Iterable[Recipe]) -> None:
    """Each line once, however many recipes (the trials of a sweep) it is true of."""
    for line in dict.fromkeys(
        line for recipe in recipes for line in own_values.notes(recipe.origin)
    ):
        diagnostics.note(line)


def why_nothing_is_expected(recipe: Recipe) -> str:
    """For a recipe without an expectation: whether it has none, or had one that was left out."""
    left_out = recipe.origin.get("expect", "")
    if left_out:
        return f"there is nothing to hold the result against: the expectation was {left_out}"
    return "there is nothing to hold the result against: the recipe has no expect: section"
