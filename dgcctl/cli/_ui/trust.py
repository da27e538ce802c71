"""`--trust-code PACKAGE`: whose code a recipe may run. Nothing else can say so: not a checkpoint,
not a run.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgc import settings
from dgc.errors import UsageError

if TYPE_CHECKING:
    from dgc.recipe.load import Recipe

_KEY = "trust_code"
_KIND = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="PACKAGE",
        help="Run code of this package where the recipe names it (python:PACKAGE.MODULE:FUNCTION).",
    ),
]


def trusting(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes --trust-code; every process that it starts knows of it."""
    shape = inspect.signature(command, eval_str=True)
    extra = inspect.Parameter(_KEY, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_KIND)

    @functools.wraps(command)
    def with_trust(*words: Any, **given: Any) -> Any:
        if packages := given.pop(_KEY, None):
            for name in packages:
                _check(name)
            known = {*settings.trusted_code(), *packages}
            os.environ[settings.TRUST_CODE] = ",".join(sorted(known))
        return command(*words, **given)

    parameters = [*shape.parameters.values(), extra]
    with_trust.__signature__ = shape.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_trust.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_trust


def _check(name: str) -> None:
    if not name.isidentifier():
        raise UsageError(
            f"--trust-code {name}: should be the name of one package, as mynets of"
            " python:mynets.blocks:build; say --trust-code again for another"
        )


def require(recipe: Recipe) -> None:
    """Raise UnsafeFileError (5) before anything is made or started, where a recipe names code that
    nobody trusted.
    """
    # Here, for `predict --plan` takes --trust-code too, and is to need nothing that reads recipes.
    from dgc.recipe.load import flatten
    from dgc.run import trusted_code

    trusted_code.require_trusted(dict(flatten(recipe)))
