"""What a shell offers on the tab key: runs, filters, recipes and their keys, sweeps and searches.

A shell that asks gets no answer instead of an error. bash cuts words at `=`: `state=d` then arrives
as `d` behind `state` and `=`. What is asked is imported then: commands that need none of it have
this file too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from dgc.errors import DgcError
from dgcctl.core import settings

_ASKED = 20  # runs whose keys and tags are offered: a folder may hold thousands
_VALUE_OF = re.compile(r"([\w.]+)=(.*)", re.DOTALL)


def complete_run(incomplete: str) -> list[str]:
    """Ids of runs."""
    return _fitting(_runs(), incomplete)


def complete_filter(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words of the filter language: keys, states and tags that runs here have."""
    return _behind_key(ctx, incomplete, _filter_words)


def complete_run_or_filter(ctx: typer.Context, incomplete: str) -> list[str]:
    return [*complete_run(incomplete), *complete_filter(ctx, incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Names of shipped recipes."""
    from dgc.recipe.load import shipped_recipes

    return _fitting(shipped_recipes(), incomplete)


def complete_recipe_or_look(incomplete: str) -> list[str]:
    """What `sweep` and `search` begin with."""
    return [*_fitting(("ls", "show"), incomplete), *complete_recipe(incomplete)]


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys of a recipe, each with its `=`; behind that its values, where they are a few words."""
    return _behind_key(ctx, incomplete, _recipe_words)


def complete_axis(ctx: typer.Context, incomplete: str) -> list[str]:
    """As `complete_key`; behind `sweep show` the names of sweeps, of searches behind `search
    show`.
    """
    if ctx.params.get("recipe") != "show":
        return complete_key(ctx, incomplete)
    kind = {"sweep": "sweeps", "search": "searches"}.get(str(ctx.info_name), "")
    return _fitting(_planned(settings.runs_dir() / kind), incomplete)


def _planned(place: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from sorted(plan.parent.name for plan in place.glob("*/plan.json"))


def _runs() -> Iterator[str]:
    yield "latest"
    from dgcctl.core.runs import listing

    with contextlib.suppress(OSError):
        yield from (run.id for run in listing.iterate(settings.runs_dir()))


def _filter_words(key: str) -> Iterator[str]:
    """Of all filters, or of those of one key."""
    from dgcctl.core.runs import filters, listing

    if key == "state":
        yield from (f"state={state}" for state in filters.STATES)
        return
    with contextlib.suppress(OSError, DgcError):
        newest = [
            listing.read_run(run)
            for run, _ in zip(listing.iterate(settings.runs_dir()), range(_ASKED), strict=False)
        ]
        if not key:
            yield from sorted({f"{name}=" for run in newest for name in run.values})
            yield from sorted({f"tag:{tag}" for run in newest for tag in run.values["tags"]})
            return
        for run in newest:
            value = run.values.get(filters.resolve_key(key, run.values))
            if isinstance(value, str | int | float):
                yield f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _recipe_words(key: str) -> Iterator[str]:
    from dgc.recipe.meanings import keys

    if not key:
        yield from (f"{one.name}=" for one in keys())
        return
    # `sgd or adamw or rmsprop`, and no `a number > 0 or null`
    words = next((one.allowed for one in keys() if one.name == key), "").split(" or ")
    if all(re.fullmatch(r"[\w-]+", word) for word in words):
        yield from (f"{key}={word}" for word in words)


def _behind_key(
    ctx: typer.Context, incomplete: str, words: Callable[[str], Iterable[str]]
) -> list[str]:
    if match := _VALUE_OF.fullmatch(incomplete):
        return _fitting(words(match[1]), incomplete)
    before = [str(word) for values in ctx.params.values() for word in _as_list(values)]
    if before[-1:] == ["="] and len(before) > 1:
        key = before[-2]
        return [word.partition("=")[2] for word in _fitting(words(key), f"{key}={incomplete}")]
    return _fitting(words(""), incomplete)


def _as_list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else []


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(incomplete)))
