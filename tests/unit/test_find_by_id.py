"""Sweeps and searches by id, unique beginning or `latest`."""

from __future__ import annotations

import pytest

from dgc.errors import UsageError
from dgcctl.core.find_by_id import find_by_id

KNOWN = ["a-1", "a-12", "b-2"]


def find(name: str, known: list[str]) -> str:
    return find_by_id(name, known, lambda one: one, "search", "searches")


@pytest.mark.parametrize(
    ("name", "found"), [("latest", "b-2"), ("b", "b-2"), ("a-1", "a-1"), ("a-12", "a-12")]
)
def test_an_id_means_itself_also_where_another_one_begins_with_it(name: str, found: str) -> None:
    assert find(name, KNOWN) == found


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("a", KNOWN, "a: several searches begin so (a-1, a-12)"),
        ("c", KNOWN, "c: no such search (a-1, a-12, b-2)"),
        ("latest", [], "latest: no such search (none)"),
    ],
)
def test_what_means_none_or_several_is_one_line_with_the_candidates(
    name: str, known: list[str], line: str
) -> None:
    with pytest.raises(UsageError) as caught:
        find(name, known)
    assert str(caught.value) == line
