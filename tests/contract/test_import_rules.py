"""No import circle, also not one that is hidden in a function or behind TYPE_CHECKING."""

from __future__ import annotations

from collections.abc import Iterator

import grimp

# Circles that are known, each with its reason; the list only ever gets shorter.
KNOWN: dict[frozenset[str], str] = {}


def circles(imports: dict[str, list[str]]) -> Iterator[frozenset[str]]:
    """Sets of modules that reach each other (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    for root in sorted(imports):
        if root in index:
            continue
        work = [(root, iter(imports[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            module, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    cut = stack.index(module)
                    found, stack[cut:] = frozenset(stack[cut:]), []
                    if len(found) > 1:
                        yield found
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(imports.get(following, []))))
            elif following in stack:
                low[module] = min(low[module], index[following])


def test_circles_are_found() -> None:
    assert list(circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})) == [frozenset("abc")]
    assert list(circles({"a": ["b", "c"], "b": ["c"], "c": []})) == []


def test_no_import_circle_but_the_known_ones() -> None:
    graph = grimp.build_graph("dgc", "dgcctl")
    imports = {
        name: sorted(graph.find_modules_directly_imported_by(name)) for name in graph.modules
    }
    assert {found: KNOWN.get(found, "unknown") for found in circles(imports)} == KNOWN
