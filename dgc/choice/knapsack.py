"""One option for each item, so that the costs fit a budget and the sum of damages is small."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Option(NamedTuple):
    cost: float
    damage: float


def choose(items: Sequence[Sequence[Option]], budget: float) -> list[int] | None:
    """The number of the option taken for each item; None where not even the cheapest ones fit.

    Steps from each item's cheapest option along its lower convex hull, the step that takes away
    most damage for its cost first; steps that no longer fit are passed over. That is the best there
    is, but for what is left of the budget in the end: it goes to whatever option still fits and
    takes away most.
    """
    # only options on the hull can be the best ones for some budget, but for what is left over
    hulls = [_hull(options) for options in items]
    taken = [0] * len(items)
    left = budget - sum(options[hull[0]].cost for options, hull in zip(items, hulls, strict=True))
    if left < 0:
        return None
    steps = sorted(
        (-_gain(options[a], options[b]), item, position)
        for item, (options, hull) in enumerate(zip(items, hulls, strict=True))
        for position, (a, b) in enumerate(itertools.pairwise(hull))
    )
    # a step of a hull is only possible from the option before it
    for _, item, position in steps:  # of one item they come in the order of its hull
        options, hull = items[item], hulls[item]
        price = options[hull[position + 1]].cost - options[hull[position]].cost
        if taken[item] == position and price <= left:
            taken[item], left = position + 1, left - price
    chosen = [hull[position] for hull, position in zip(hulls, taken, strict=True)]
    return _filled(items, chosen, left)


def _filled(items: Sequence[Sequence[Option]], chosen: list[int], left: float) -> list[int]:
    while True:
        better = [
            (options[number].damage - options[now].damage, item, number)
            for item, (options, now) in enumerate(zip(items, chosen, strict=True))
            for number in range(len(options))
            if options[number].cost - options[now].cost <= left
            and options[number].damage < options[now].damage
        ]
        if not better:
            return chosen
        # the one that takes away most; of equal ones the
        # first, so that the choice is always the same
        _, item, number = min(better)
        left -= items[item][number].cost - items[item][chosen[item]].cost
        chosen[item] = number


def _gain(a: Option, b: Option) -> float:
    return (a.damage - b.damage) / (b.cost - a.cost)


def _hull(options: Sequence[Option]) -> list[int]:
    """Numbers of the options on the lower convex hull, from the cheapest to the least damage."""
    hull: list[int] = []
    order = sorted(range(len(options)), key=lambda number: options[number])
    for number in order:
        if hull and options[number].damage >= options[hull[-1]].damage:
            continue  # costs as much or more, and is no better
        # from above: a line from the option before to the next one passes below it
        while len(hull) > 1 and _gain(options[hull[-2]], options[hull[-1]]) <= _gain(
            options[hull[-1]], options[number]
        ):
            hull.pop()
        hull.append(number)
    return hull
