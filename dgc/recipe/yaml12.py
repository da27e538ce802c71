"""Read a small YAML 1.2 file strictly, and remember the line of each key. No torch.

PyYAML reads YAML 1.1 (`no` is false, `1e-3` a string, `010` eight, `1:30` ninety), keeps the last
of two equal keys, and builds objects from tags. Here only its parser (text -> events) is used; the
tree is built from the events with the scalars of the YAML 1.2 core schema. Anchors, aliases, tags
and merges are refused: no file can grow when it is read.

Own code, because no library does all of it: ruamel.yaml reads YAML 1.2 and keeps lines, but takes
anchors, tags and merges; strictyaml refuses those, but types nothing without a schema of its own.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dgc.errors import RecipeError

MAX_BYTES = 16 * 1024  # six times the longest shipped recipe; more takes PyYAML noticeable time
MAX_DEPTH = 16

Loc = tuple[str | int, ...]

# YAML 1.2, section 10.3.2 (core schema)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


@dataclass
class Document:
    """A tree of dict, tuple and scalars;
    the line (from 1) of each place in it; what was wrong on the way.
    """

    name: str
    tree: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """The line of `loc`, or of the nearest place around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


def scalar(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar in the YAML 1.2 core schema:
    `010` is 10, `no` and `1:30` are strings.
    """
    if text in _WORDS:
        # as YAML 1.2: 010 is ten, and a word is no truth value unless it is true or false
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        return _whole(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    return float("nan") if _NAN.fullmatch(text) else text


def _whole(text: str) -> int | float:
    # Python refuses to read thousands of digits; no field takes such a number, so infinity serves
    # as well
    return int(text) if len(text) < 1000 else float("inf")


def load(text: str, name: str) -> Document:
    """Read one YAML document. All problems are collected in `.problems`;
    only a syntax error ends the reading.
    """
    document = Document(name)
    builder = _Builder(document)
    try:
        builder.run(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append((mark.line + 1 if mark else 1, _syntax(error)))
    # characters that YAML does not allow (NUL, an escape out of range)
    except (yaml.YAMLError, ValueError) as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        document.problems.append((line, f"not a YAML text: {' '.join(str(error).split())}"))
    return document


def plain_tree(text: str) -> Any:
    """The tree alone of a text that a program wrote, with libyaml's parser where PyYAML has it:
    many times faster, but with other words for what is wrong. None where anything is.
    """
    document = Document("")
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _Builder(document).run(yaml.parse(text, Loader=loader))
    except (yaml.YAMLError, ValueError):
        return None
    return None if document.problems else document.tree


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    hint = "; indent with spaces, YAML allows no tabs" if "\\t" in problem else ""
    return f"YAML syntax: {problem}{hint}"


class _TooDeepError(Exception):
    """The rest of the file cannot be read (nested too deep)."""


class _Builder:
    """Turns the parser's events into a Document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.events: Iterator[Any] = iter(())

    def run(self, events: Iterator[Any]) -> None:
        self.events = events
        documents = 0
        for event in events:
            # the events between documents say nothing of a recipe
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            documents += 1
            if documents > 1:
                self.problem(event, "a second document (`---`) begins: a recipe is one document")
                return
            try:
                self.document.tree = self.node(next(events), ())
            except _TooDeepError:
                return

    def problem(self, event: Any, text: str) -> None:
        self.document.problems.append((event.start_mark.line + 1, text))

    def node(self, event: Any, loc: Loc) -> Any:
        # a key's own line stays: the value may begin on the next one
        self.document.lines.setdefault(loc, event.start_mark.line + 1)
        self.refuse_references(event)
        if isinstance(event, yaml.ScalarEvent):
            # quoted is a text whatever stands in it
            return scalar(event.value) if event.implicit[0] and event.tag is None else event.value
        if isinstance(event, yaml.AliasEvent):
            return None
        if len(loc) >= MAX_DEPTH:
            self.problem(event, f"nested deeper than {MAX_DEPTH} levels: a recipe needs three")
            raise _TooDeepError
        return (
            self.sequence(loc) if isinstance(event, yaml.SequenceStartEvent) else self.mapping(loc)
        )

    def refuse_references(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self.problem(
                event, f"alias *{event.anchor}: aliases are not allowed, write the value out"
            )
            return
        if event.anchor is not None:
            self.problem(
                event,
                f"anchor &{event.anchor}: anchors are not allowed, write the value where it is"
                " used",
            )
        if event.tag is not None and event.tag != "!":
            self.problem(
                event,
                f"tag {_short_tag(event.tag)}: tags are not allowed, a recipe holds plain values"
                " only",
            )

    def sequence(self, loc: Loc) -> tuple[Any, ...]:
        items: list[Any] = []
        # tuples: a recipe is frozen, and what it was read from is too
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*loc, len(items))))
        return tuple(items)

    def mapping(self, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        seen: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, loc)
            line = event.start_mark.line + 1
            place = (*loc, key)
            # the first one counts, so that everything else can be checked as well
            if key in seen:
                where = ".".join(str(part) for part in place)
                self.problem(
                    event, f"duplicate key {where} (first on line {seen[key]}): keep one of the two"
                )
            seen.setdefault(key, line)
            self.document.lines.setdefault(place, line)
            value = self.node(next(self.events), place)
            result.setdefault(key, value)
        return result

    def key(self, event: Any, loc: Loc) -> str:
        if isinstance(event, yaml.ScalarEvent):
            self.refuse_references(event)
            return str(event.value)
        self.problem(event, "a key must be a plain word")
        # what is under it is read all the same, so that its problems are told too
        self.node(event, (*loc, "?"))
        return "?"


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!", 1)


def read_text(path: Path) -> str:
    """The text of a recipe file.
    Raises RecipeError for what cannot be one, before more than MAX_BYTES are read.
    """
    try:
        # before it is opened: a pipe would be waited for
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecipeError(f"{path}: not a file (a recipe is a YAML file)")
        with path.open("rb") as stream:
            # one byte more than is allowed tells the rest
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_BYTES:,} bytes: a recipe is a few thousand")
    if b"\0" in data:
        raise RecipeError(
            f"{path}:{_line_at(data, data.index(0))}: a NUL byte: this is not a text file"
        )
    try:
        # a byte-order mark is what some editors write in front
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(data, error.start)
        raise RecipeError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}): save the recipe as UTF-8"
        ) from error


def _line_at(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1
