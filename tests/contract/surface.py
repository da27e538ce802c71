"""The command line as text: every command with its arguments and options. `python -m
tests.contract.surface` prints it.

tests/golden/cli_surface.txt is the frozen copy; a change of it is a change for users and belongs
into CHANGELOG.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from dgcctl.cli.main import build

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cli_surface.txt"


def commands(node: Any = None, path: str = "dgcctl") -> Iterator[tuple[str, Any]]:
    """(path, command) of every command, groups first."""
    node = node or typer.main.get_command(build())
    yield path, node
    for name in node.list_commands(None) if hasattr(node, "list_commands") else ():
        yield from commands(node.get_command(None, name), f"{path} {name}")


def surface() -> str:
    return (
        "\n".join(f"{path} {' '.join(_parameters(node))}".rstrip() for path, node in commands())
        + "\n"
    )


def _parameters(node: Any) -> Iterator[str]:
    """Arguments in order (those that may be left out in brackets), then options by name."""
    arguments = [item for item in node.params if item.param_type_name == "argument"]
    options = [item for item in node.params if item.param_type_name == "option"]
    for item in arguments:
        name = (item.metavar or item.name).upper()
        yield name if item.required else f"[{name}]"
    yield from sorted("/".join([*item.opts, *item.secondary_opts]) for item in options)


if __name__ == "__main__":
    sys.stdout.write(surface())
