"""Flags that several commands share as a set: declared once,
handed to each command as one value.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from dgcctl.cli._ui import output

Command = Callable[..., Any]


def gathered(
    name: str, flags: Mapping[str, tuple[Any, Any]], make: Callable[..., Any]
) -> Callable[[Command], Command]:
    """Put `flags` (name -> annotation, default) in the place of a command's parameter `name`, which
    gets make(**flags).

    Typer reads a command's flags from its signature, so that is what is changed.
    """

    def decorate(command: Command) -> Command:
        shape = inspect.signature(command, eval_str=True)
        own = [parameter for key, parameter in shape.parameters.items() if key != name]
        kind = inspect.Parameter.KEYWORD_ONLY
        new = [
            inspect.Parameter(key, kind, default=row[1], annotation=row[0])
            for key, row in flags.items()
        ]

        @functools.wraps(command)
        def with_flags(*words: Any, **given: Any) -> Any:
            values = {key: given.pop(key, row[1]) for key, row in flags.items()}
            return command(*words, **given, **{name: make(**values)})

        with_flags.__signature__ = shape.replace(parameters=[*own, *new])  # type: ignore[attr-defined]
        with_flags.__annotations__ = {
            parameter.name: parameter.annotation for parameter in (*own, *new)
        }
        return with_flags

    return decorate


def _printing(flag: str, what: str) -> tuple[Any, bool]:
    return Annotated[bool, typer.Option(flag, help=f"Print {what}.")], False


_FORMS = {
    "json": _printing("--json", "JSON"),
    "csv": _printing("--csv", "CSV"),
    "md": _printing("--md", "a Markdown table"),
    "latex": _printing("--latex", "a LaTeX table"),
}
# A command that prints a table: --json, --csv, --md and --latex become its parameter `form:
# output.Form`.
tabular = gathered("form", _FORMS, output.form_of)
