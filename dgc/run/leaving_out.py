"""How what was left out of a record is said: each reason once, and what can be done about it. No
torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

SUBMODULE = "a submodule with changes of its own"
REPOSITORY = "a git repository of its own"
_SHOWN_NAMES, _SHOWN_GROUPS = 3, 5


def said(names: Mapping[str, str], reasons: Mapping[str, int], count: int) -> str:
    """The whole sentence; `reasons` counts files that are not named too, and so does `count`."""
    groups = _groups(names)
    if len(groups) == 1 and count > 1:
        (why, listed), *_ = groups.items()
        return (
            f"{_counted(groups, reasons, count)} left out of the record ({why}):"
            f" {_some(listed, count)}"
        )
    return f"{_counted(groups, reasons, count)} left out of the record: {grouped(names, reasons)}"


def grouped(names: Mapping[str, str], reasons: Mapping[str, int]) -> str:
    """Each reason once, with the files that it holds for."""
    groups = _groups(names)
    parts = [_group(why, listed, _number(why, listed, reasons)) for why, listed in groups.items()]
    return "; ".join([*parts[:_SHOWN_GROUPS], *(["..."] if len(parts) > _SHOWN_GROUPS else [])])


def _groups(names: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, why in names.items():
        groups.setdefault(
            f"{SUBMODULE}: commit inside {name}" if why == SUBMODULE else why, []
        ).append(name)
    return groups


def _number(why: str, listed: list[str], reasons: Mapping[str, int]) -> int:
    return max(len(listed), reasons.get(why, 0))


def _group(why: str, listed: list[str], count: int) -> str:
    if count > 1:
        return f"{_things(why, count)} ({why}): {_some(listed, count)}"
    return f"{listed[0]} ({why})" if why else listed[0]


def _some(listed: list[str], count: int) -> str:
    return f"{', '.join(listed[:_SHOWN_NAMES])}{', ...' if count > _SHOWN_NAMES else ''}"


def _counted(groups: Mapping[str, list[str]], reasons: Mapping[str, int], count: int) -> str:
    """`1 submodule and 2 files`; files that no group names are counted too."""
    kinds = Counter[str]()
    for why, listed in groups.items():
        kinds[_kind(why)] += _number(why, listed, reasons)
    rest = count - kinds.total()
    if rest > 0:
        kinds["file"] += rest
    return " and ".join(
        _many(kind, kinds[kind]) for kind in ("submodule", "repository", "file") if kinds[kind]
    )


def _things(why: str, count: int) -> str:
    return _many(_kind(why), count)


def _kind(why: str) -> str:
    return (
        "submodule" if why.startswith(SUBMODULE) else "repository" if why == REPOSITORY else "file"
    )


def _many(kind: str, count: int) -> str:
    plural = "repositories" if kind == "repository" else f"{kind}s"
    return f"{count:,} {kind if count == 1 else plural}"
