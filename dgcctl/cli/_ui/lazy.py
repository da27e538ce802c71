"""Commands that are imported when they are called: `--help` lists them from a literal table.

A table is `{heading: {command: ("module:attribute", "one line of help")}}`; the attribute is a
plain function (one command) or an `App` (a group).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

Table = Mapping[str, Mapping[str, tuple[str, str]]]
_CONTEXT = {"help_option_names": ["-h", "--help"]}
_EVERYWHERE = [
    ("-q, --quiet", "Say only warnings and errors."),
    ("-v, --verbose", "Say what is started; show where an error came from."),
    ("--no-color", "No colour (as does NO_COLOR)."),
]


class Command(TyperCommand):
    """A command whose help ends with the flags that work everywhere."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Everywhere"):
            formatter.write_dl(_EVERYWHERE)


class LazyGroup(TyperGroup):
    """A group that loads a command when it is called,
    and names the nearest one to a mistyped word.
    """

    table: ClassVar[Table] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.commands, *(name for rows in self.table.values() for name in rows)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for rows in self.table.values():
            if cmd_name in rows:
                return load_command(rows[cmd_name][0], cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            names = self.list_commands(ctx)
            # `compare` is one of `runs`: no other name is as near
            near = self._in_groups(ctx, args[0]) or difflib.get_close_matches(
                args[0], names, n=1, cutoff=0.4
            )
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            ctx.fail(f"unknown command {args[0]}{hint}")
        return super().resolve_command(ctx, args)

    def _in_groups(self, ctx: Any, word: str) -> list[str]:
        """`GROUP WORD` for each group of the table that has a command of that name."""
        rows = {name: row[0] for rows in self.table.values() for name, row in rows.items()}
        return [
            f"{name} {word}"
            for name, target in rows.items()
            if target.endswith(":app") and word in load_command(target, name).list_commands(ctx)
        ]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        super_rows = [
            (name, command.get_short_help_str(400)) for name, command in self.commands.items()
        ]
        sections = {"Commands": super_rows} if super_rows else {}
        sections |= {
            head: [(name, row[1]) for name, row in rows.items()]
            for head, rows in self.table.items()
        }
        for head, rows in sections.items():
            with formatter.section(head):
                formatter.write_dl(rows)
        with formatter.section("Everywhere"):
            formatter.write_dl(_EVERYWHERE)


class App(typer.Typer):
    """A group of commands with this program's conventions. `table` holds those that load when
    called.
    """

    def __init__(self, help: str, table: Table | None = None, *, completion: bool = False) -> None:
        super().__init__(
            cls=type("LazyGroup", (LazyGroup,), {"table": table or {}}),
            help=help,
            no_args_is_help=True,
            add_completion=completion,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings=_CONTEXT,
            callback=_nothing,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        settings = {"cls": Command, "context_settings": _CONTEXT, **settings}
        return super().command(name, **settings)


def _nothing() -> None:
    """A callback makes Typer keep a group of one command a group."""


def load_command(target: str, name: str) -> Any:
    """The command that `module:attribute` names."""
    module, _, attribute = target.partition(":")
    value = getattr(import_module(module), attribute)
    if isinstance(value, typer.Typer):
        command = typer.main.get_command(value)
    else:
        single = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        single.command(name, cls=Command, context_settings=_CONTEXT)(value)
        command = typer.main.get_command(single)
    command.name = name
    return command
