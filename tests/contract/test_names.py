"""One thing has one name in all tables, and docs/names.md says which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgcctl.cli._ui import names
from dgcctl.cli._ui.output import TableColumn
from dgcctl.tui.state import comparison, curves, run_rows

ROOT = Path(__file__).parents[2]
# the same word for another thing, each in a table of its own that says what it is about
OTHER_WORDS = {
    ("best", "best trial"),  # of a search, by its number
    ("dense", "MACs dense"), ("promised", "MACs promised"), ("executed", "MACs executed"),  # of a layer
    ("macs", "MACs"), ("params", "parameters"), ("size_mib", "MiB"), ("median", "ms/image"), ("low", "quartiles"),
    ("high", ""), ("swept", "values"), ("dir", "folder"), ("get", "how to get it"), ("expected", "expected top-1 error"),
    ("output", "output CxHxW"), ("epochs_done", "epoch"), ("first", "first"), ("second", "second"),
}  # fmt: skip


def columns() -> Iterator[tuple[str, str, str]]:
    """File, key and title of every column that the command line makes of literals."""
    for file in sorted((ROOT / "dgcctl" / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TableColumn"):
                continue
            words = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
            if words and isinstance(words[0], str):
                title = str(words[1]) if len(words) > 1 else ""
                yield file.name, words[0], title or TableColumn(words[0]).head


def test_columns_are_found() -> None:
    assert len(list(columns())) > 80


def test_a_key_has_the_head_that_the_table_of_names_gives_it() -> None:
    wrong = [
        (file, key, head)
        for file, key, head in columns()
        if head != names.HEADS.get(key, key.replace("_", " "))
        and key not in names.OF_THE_TABLE
        and (key, head) not in OTHER_WORDS
    ]
    assert wrong == []


def test_a_head_means_one_key() -> None:
    keys: dict[str, set[str]] = {}
    for _, key, head in columns():
        if key not in names.OF_THE_TABLE and (key, head) not in OTHER_WORDS:
            keys.setdefault(head, set()).add(key)
    assert {head: found for head, found in keys.items() if len(found) > 1} == {}


def test_the_dashboard_uses_the_same_words() -> None:
    heads = set(names.HEADS.values())
    shown = {column.title for column in run_rows.COLUMNS if column.title}
    # `progress` is drawn; best and last are errors, of which the line below says which
    assert shown - heads == {"progress", "best", "last", "target"}
    assert curves.title_of("eval.top1_error") == names.HEADS["top1_error"]
    assert curves.title_of("eval.top5_error") == names.HEADS["top5_error"]
    assert curves.title_of("perf.images_per_s") == names.HEADS["images_per_s"]
    compared = {column.title for column in comparison.metric_columns()}
    assert compared - heads == {"dense", "promised", "executed"}, (
        "of MACs, for which there is no room"
    )


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "names.md").read_text().endswith(names.as_markdown())


@pytest.mark.parametrize("attribute", ["key", "head"])
def test_no_name_is_there_twice(attribute: str) -> None:
    found = [getattr(name, attribute) for name in names.NAMES]
    assert len(found) == len(set(found))
