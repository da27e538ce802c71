"""Write a tree of dict, list and scalars as YAML that every reader, 1.1 or 1.2, takes for the same.
No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dgc.recipe.yaml12 import scalar

# Plain only where no reader could take it for anything else; all other strings are quoted.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_WORDS_OF_1_1 = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def dump_tree(tree: dict[str, Any]) -> str:
    """Block mappings, flow lists; keys in their order."""
    return "\n".join(_mapping(tree, "")) + "\n"


def _mapping(tree: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        name = f"{indent}{_string(key)}:"
        if isinstance(value, dict) and value:
            yield name
            yield from _mapping(value, indent + "  ")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            # a list of mappings (expect) is read best as a block, any other on one line
            yield name
            for item in value:
                first, *rest = _mapping(item, indent + "    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{name} {_flow(value)}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value)


def _number(value: int | float) -> str:
    # repr gives the shortest text that reads back to the same number
    text = repr(value)
    if text in ("inf", "-inf"):
        return text.replace("inf", ".inf")
    # 1e-05 -> 1.0e-05: YAML 1.1 readers want the point
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _string(text: str) -> str:
    # plain only where YAML 1.1 and 1.2 agree that it is a text
    if (
        _PLAIN.fullmatch(text)
        and text.lower() not in _WORDS_OF_1_1
        and isinstance(scalar(text), str)
    ):
        return text
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable() and char != "\ufeff":
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
