"""A message that names a key of a recipe names one that there is: it is what the reader types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from dgc.recipe.load import Recipe

ROOT = Path(__file__).resolve().parents[2]
_DOTTED = re.compile(r"(?<![\w.])([a-z_]\w*)\.([a-z]\w*_\w+)\b")
METRICS = {"step.gate_l1"}  # of the log, which has a column of the same name


def sections() -> dict[str, set[str]]:
    """Key of a recipe's section -> the sections that have it."""
    found: dict[str, set[str]] = {}
    for section, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for key in field.annotation.model_fields:
                found.setdefault(key, set()).add(section)
    return found


def wrongly_named(source: str) -> Iterator[str]:
    """Keys in the strings of a module that stand behind another section's name."""
    known = sections()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for section, key in _DOTTED.findall(node.value):
                if section not in known.get(key, {section}) and f"{section}.{key}" not in METRICS:
                    yield f"line {node.lineno}: {section}.{key}"


@pytest.mark.parametrize("package", ["dgc", "dgcctl"])
def test_messages_name_keys_that_there_are(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {wrong}"
        for path in (ROOT / package).rglob("*.py")
        for wrong in wrongly_named(path.read_text(encoding="utf-8"))
    }
    assert sorted(found) == []


def test_a_key_behind_another_name_is_found() -> None:
    source = 'f"{x}: lower state.keep_last, or checkpoint.keep_last, or train.batch_size"'
    assert list(wrongly_named(source)) == ["line 1: state.keep_last"]
