"""Say what is wrong with a recipe: one line a problem, with file, line, key, value, what is
allowed. No torch.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from dgc.recipe.checks import run_checks
from dgc.recipe.schema import CLASH, with_newer_names, with_rule_defaults
from dgc.recipe.yaml12 import Document, Loc

_NOUNS: dict[type, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
}
MAX_HINTS = 50  # looking for the nearest key of thousands would take seconds
_SIGNS = ((annotated_types.Gt, "gt", ">"), (annotated_types.Ge, "ge", ">="))
_UPPER = ((annotated_types.Lt, "lt", "<"), (annotated_types.Le, "le", "<="))


def find(document: Document, overridden: dict[str, str], schema: type[BaseModel]) -> list[str]:
    """Every problem of the tree against the schema, in the order of the file's lines."""
    found = list(document.problems)
    # known to be wrong: what they should fit is not asked
    invalid: set[str] = set()
    for loc, problem in _schema_problems(document.tree, schema):
        invalid.add(_dotted(loc))
        found.append(_located(document, overridden, loc, problem))
    # Checks across fields see only fields that are right by themselves: a text where a number
    # belongs has its line already, and would break them.
    for key, problem in run_checks(_valid(document.tree, schema, invalid)):
        found.append(_located(document, overridden, tuple(key.split(".")), problem))
    found += _origin_problems(document, schema)
    return [
        _place(document.name, line) + problem
        for line, problem in sorted(found, key=lambda item: item[0])
    ]


def _located(
    document: Document, overridden: dict[str, str], loc: Loc, problem: str
) -> tuple[int, str]:
    """(line in the file, problem);
    line 0 and the override's text where an override put the value there.
    """
    key = _dotted(loc)
    for given, text in overridden.items():
        # The line in the file has another value: what is wrong was typed.
        if _inside(key, given) or _inside(given, key):
            return 0, f"override {text!r}: {problem}"
    return document.line(loc), problem


def _place(name: str, line: int) -> str:
    return f"{name}:{line}: " if line else f"{name}: "


def _schema_problems(tree: Any, schema: type[BaseModel]) -> Iterator[tuple[Loc, str]]:
    try:
        schema.model_validate(tree)
    except ValidationError as error:
        known = list(_keys(schema))
        # thousands of unknown keys are one mistake: nobody needs a hint for each
        for number, item in enumerate(error.errors(include_url=False)):
            if item["type"] == "extra_forbidden":
                hint = did_you_mean(_dotted(item["loc"]), known) if number < MAX_HINTS else ""
                yield item["loc"], f"unknown field {_dotted(item['loc'])}{hint}"
            elif item["type"] == CLASH:
                yield item["loc"], item["msg"]
            else:
                yield item["loc"], _describe(item["type"], item["loc"], item["input"], schema)


def in_words(name: str, error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """What the schema's own check found, a line each, in the same words as `find`."""
    said = []
    for item in error.errors(include_url=False):
        # checks of our own say it in their own words; pydantic's are translated
        cause = item.get("ctx", {}).get("error")
        plain = str(cause) if cause is not None else ""
        said.append(plain or _describe(item["type"], item["loc"], item["input"], schema))
    return [f"{name}: {problem}" for problem in said]


def _describe(kind: str, loc: Loc, value: Any, schema: type[BaseModel]) -> str:
    key = _dotted(loc)
    field = _field(loc, schema)
    allowed = f"; allowed: {allowed_values(field)}" if field else ""
    if kind == "missing":
        return f"{key} is missing{allowed}"
    return f"{key} is {_show(value)}{allowed}"


def _show(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return f'"{value[:60]}" (a text)'
    if isinstance(value, int | float):
        return (
            f"{value!r} (a {'whole number' if isinstance(value, int) else 'number with a point'})"
        )
    return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"


def _dotted(loc: Sequence[str | int]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or nothing:
    the nearest dotted key, or the same last word in another section.
    """
    # The right word in the wrong section comes first: no spelling is nearer than that.
    same_leaf = [key for key in known if key.rpartition(".")[2] == word.rpartition(".")[2]]
    near = same_leaf or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        inner = _section(field.annotation)
        yield prefix + name
        if inner:
            yield from _keys(inner, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def _field(loc: Loc, schema: type[BaseModel]) -> FieldInfo | None:
    """The field that a location is in (for a place in a list: the field that holds the list)."""
    field: FieldInfo | None = None
    current: type[BaseModel] | None = schema
    # a place in a list belongs to the field that holds the list
    for part in loc:
        if isinstance(part, int):
            arguments = get_args(field.annotation) if field else ()
            current = _section(arguments[0]) if arguments else None
        elif current is not None and part in current.model_fields:
            field = current.model_fields[part]
            current = _section(field.annotation)
    return field


def allowed_values(field: FieldInfo) -> str:
    """What a field takes, in words: `a number > 0`,
    `cosine or multistep`, `a list of whole numbers > 0`.
    """
    if field.description:
        return field.description
    return _allowed(field.annotation, field.metadata)


def _allowed(annotation: Any, metadata: Sequence[Any] = (), plural: bool = False) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(arguments[0], arguments[1:], plural)
    if origin is Literal:
        words = {True: "true", False: "false"}
        return " or ".join(words.get(item, item) for item in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if item is type(None) else _allowed(item) for item in arguments)
    if origin is tuple:
        count = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"a list of {count}{_allowed(arguments[0], plural=True)}"
    if origin is dict and get_origin(arguments[1]) is Annotated:
        return f"a mapping of names to {_allowed(arguments[1], plural=True)}"
    if _section(annotation):
        return f"a mapping with {', '.join(annotation.model_fields)}"
    if annotation not in _NOUNS:
        return "a mapping of texts"
    return _NOUNS[annotation][plural] + _range(metadata)


def _range(metadata: Sequence[Any]) -> str:
    bounds: list[str] = []
    for item in metadata:
        parts = item.metadata if isinstance(item, FieldInfo) else [item]
        for part in parts:
            bounds += [
                f"{sign} {getattr(part, name)}"
                for kind, name, sign in (*_SIGNS, *_UPPER)
                if type(part) is kind
            ]
            if getattr(part, "pattern", None):
                bounds.append(f"like {part.pattern}")
    return " " + " and ".join(bounds) if bounds else ""


def _valid(tree: dict[str, Any], schema: type[BaseModel], invalid: set[str]) -> dict[str, Any]:
    """The valid fields by dotted key, defaults filled in."""
    values: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        inner = _section(field.annotation)
        given = tree.get(name)
        if inner is None:
            values |= _value(name, field, tree)
        # a section that is no mapping has its line already; its defaults would answer for it
        elif isinstance(given, dict) or name not in tree:
            if name == "train" and given:
                given = _newer_names(given)
            if name == "optim" and given:
                given = with_rule_defaults(given)
            for leaf, leaf_field in inner.model_fields.items():
                values |= _value(f"{name}.{leaf}", leaf_field, given or {})
    return {
        key: value for key, value in values.items() if not any(_inside(bad, key) for bad in invalid)
    }


def _newer_names(train: dict[str, Any]) -> dict[str, Any]:
    try:
        return with_newer_names(train)
    except PydanticCustomError:  # said already
        return train


def _value(key: str, field: FieldInfo, tree: dict[str, Any]) -> dict[str, Any]:
    leaf = key.rpartition(".")[2]
    if leaf in tree:
        return {key: tree[leaf]}
    return {} if field.is_required() else {key: field.get_default(call_default_factory=True)}


def _inside(place: str, key: str) -> bool:
    return place == key or place.startswith((f"{key}[", f"{key}."))


def _origin_problems(document: Document, schema: type[BaseModel]) -> list[tuple[int, str]]:
    origin = document.tree.get("origin")
    known = list(_keys(schema))
    if not isinstance(origin, dict):
        return []
    return [
        (
            document.line(("origin", key)),
            f"origin names {key}, which is no field{did_you_mean(key, known)}",
        )
        for key in origin
        if key not in known
    ]
