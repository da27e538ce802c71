"""What is said on stdout: data, and nothing else. Alone writes stdout.

A table is a list of columns and of rows (plain dicts). The same rows print as text, JSON, CSV,
Markdown or LaTeX. Text has the same bytes on a terminal and in a pipe but for colour, and for what
a terminal has no room for: there, long texts are shortened (table_widths.py). In a pipe nothing is
cut. (Own layout and not rich.table: that takes 0.5 s for 1,000 rows, the
whole budget of `runs ls`.)
"""

from __future__ import annotations

import csv
import enum
import io
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len

from dgc.errors import ResourceError
from dgc.talk import shown
from dgcctl.cli._ui import names, streams, table_widths
from dgcctl.cli._ui.diagnostics import clean, note, paint, plain

SCHEMA_VERSION = 1
CLASS_NAME = 40  # places that a terminal gives to the name of a class
_WHOLE = frozenset({"id", "run"})  # one copies them
_UNCUT = _WHOLE | {"started"}  # half of a date says nothing
Row = Mapping[str, Any]


class Form(enum.StrEnum):
    """How a table is printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    LATEX = "latex"


@dataclass(frozen=True)
class TableColumn:
    """One column: the key in each row, its title, how a value reads as text, its side, and the
    colour of a cell. `most`: so many places a terminal gives to it; `drop`: where a terminal is too
    narrow, those with the largest number are left out first (0: never). `whole`: what one copies or
    types, never shortened; `prose`: in several lines where there is no room for one. `in_files`:
    the key that CSV takes instead.
    """

    key: str
    title: str = ""
    show: Callable[[Any], str] = lambda value: "-" if value is None else str(value)
    right: bool = False
    style: Callable[[Any], str] = lambda value: ""
    most: int | None = None
    drop: int = 0
    whole: bool = False
    prose: bool = False
    in_files: str = ""

    @property
    def head(self) -> str:
        return self.title or names.HEADS.get(self.key) or self.key.replace("_", " ")


def form_of(
    *, json: bool = False, csv: bool = False, md: bool = False, latex: bool = False
) -> Form:
    """The form that a command's flags name. Raises typer.BadParameter where they name two."""
    chosen = [
        form
        for form, on in ((Form.JSON, json), (Form.CSV, csv), (Form.MD, md), (Form.LATEX, latex))
        if on
    ] or [Form.TEXT]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return chosen[0]


def table(
    name: str,
    columns: Sequence[TableColumn],
    rows: Sequence[Row],
    form: Form = Form.TEXT,
    **facts: Any,
) -> None:
    """Print rows in a form. JSON is `{"schema_version", name: [rows], **facts}` with every key of
    each row.
    """
    if form is Form.JSON:
        document(**{name: [dict(row) for row in rows]}, **facts)
        return
    writer = {Form.TEXT: _text, Form.CSV: _csv, Form.MD: _markdown, Form.LATEX: _latex}[form]
    write(writer(columns, rows))


def document(**value: Any) -> None:
    """Print one JSON object with the schema version."""
    write(json_text({"schema_version": SCHEMA_VERSION, **value}, indent=True) + "\n")


def json_text(value: Any, *, indent: bool = False) -> str:
    """JSON that loses nothing and holds no raw control character: what a terminal would obey is
    escaped.

    A name that is not UTF-8 stands as Python keeps it (`\\udcff` for the byte FF).
    """
    try:
        import orjson

        options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
        text = orjson.dumps(value, default=_plain, option=options).decode()
    except (TypeError, ModuleNotFoundError):
        # Half a surrogate is no UTF-8; and the commands of plan files do without orjson.
        text = json.dumps(_finite(value), default=_plain, indent=2 if indent else None)
    narrow = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") not in (
        "utf8",
        "utf8sig",
    )
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(letter if _harmless(letter, narrow) else _escaped(letter) for letter in text)


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for, as orjson writes it."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _harmless(letter: str, narrow: bool) -> bool:
    return letter == "\n" or (shown(letter) == letter and (letter.isascii() or not narrow))


def _escaped(letter: str) -> str:
    """JSON's escape of a letter: one or two halves of four digits."""
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def facts(rows: Sequence[tuple[str, Any]]) -> None:
    """Print `name  value` lines, the values in one column."""
    rows = [(shown(name), value) for name, value in rows]
    width = max((cell_len(name) for name, _ in rows), default=0)
    lines = []
    for name, value in rows:
        pad = " " * (width - cell_len(name))
        text = "-" if value is None else clean(value if isinstance(value, str) else str(value))
        lines.append(f"{paint(name, 'bold', sys.stdout)}{pad}  {text}".rstrip())
    write("\n".join(lines) + "\n" if lines else "")


def line(text: str = "") -> None:
    """Print one line; what comes from a file in it is made harmless."""
    write(clean(text) + "\n")


def write(text: str) -> None:
    """Write to stdout as it is; a reader who has gone (`| head`) ends the command quietly.

    Raises ResourceError where the data cannot be kept (a full disk).
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        streams.silence(sys.stdout)
        raise typer.Exit(0) from None
    except OSError as error:
        streams.silence(sys.stdout)
        reason = (error.strerror or str(error)).lower()
        raise ResourceError(
            f"standard output: cannot be written ({reason}): what was to be printed is lost"
        ) from error


def _text(columns: Sequence[TableColumn], rows: Sequence[Row]) -> str:
    cells: list[list[str]] = [
        [clean(column.show(row.get(column.key))) for column in columns] for row in rows
    ]
    heads = [[shown(column.head)] for column in columns]
    may = [not (c.right or c.whole or c.key in _UNCUT) for c in columns]
    drops = [column.drop for column in columns]
    prose = [column.prose for column in columns]
    grid = table_widths.Grid(heads, cells, may, drops, prose, list(range(len(columns))))
    room, empty = table_widths.room(), grid.empty()
    if room is not None:
        for texts in cells:
            texts[:] = [
                table_widths.fitted(text, column.most) if column.most else text
                for text, column in zip(texts, columns, strict=True)
            ]
        table_widths.squeeze(grid, room, [n for n, c in enumerate(columns) if c.key in _WHOLE])
    else:
        grid.measure()
    left_out = [
        column.head
        for place, column in enumerate(columns)
        if place not in grid.kept and place not in empty
    ]
    if left_out:
        note(f"no room here for {', '.join(left_out)}: a wider terminal or a pipe shows all")
    columns = [columns[place] for place in grid.kept]
    lines: list[str] = _head_lines(columns, grid)
    for row, texts in zip(rows, grid.cells, strict=True):
        for each in table_widths.in_lines(texts, grid.widths) if any(grid.prose) else [texts]:
            lines.append(_text_row(columns, row, each, grid.widths))
    return "\n".join(lines) + "\n"


def _head_lines(columns: Sequence[TableColumn], grid: table_widths.Grid) -> list[str]:
    """The titles, those of one line beside the second line of the others."""
    high = max(map(len, grid.heads), default=1)
    lines: list[str] = []
    for number in range(high):
        parts = []
        for column, head, width in zip(columns, grid.heads, grid.widths, strict=True):
            texts = [""] * (high - len(head)) + head
            parts.append(_pad(texts[number], width, column.right))
        lines.append(paint("  ".join(parts).rstrip(), "bold", sys.stdout))
    return lines


def _text_row(columns: Sequence[TableColumn], row: Row, texts: list[str], widths: list[int]) -> str:
    """One line without blanks at its end."""
    last = max((index for index, text in enumerate(texts) if text), default=0)
    parts = []
    for index, (column, text, width) in enumerate(
        zip(columns[: last + 1], texts, widths, strict=False)
    ):
        painted = paint(text, column.style(row.get(column.key)), sys.stdout)
        space = " " * (width - cell_len(text))
        parts.append(
            space + painted if column.right else painted + ("" if index == last else space)
        )
    return "  ".join(parts)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _csv(columns: Sequence[TableColumn], rows: Sequence[Row]) -> str:
    """Raw values, not the rounded text: a file for other programs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    keys = [column.in_files or column.key for column in columns]
    writer.writerow([_csv_cell(key) for key in keys])
    for row in rows:
        writer.writerow([_csv_cell(row.get(key)) for key in keys])
    return buffer.getvalue()


_JOINERS = "\u200c\u200d"  # letters of Persian and of emoji need them, and no terminal obeys them
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _csv_cell(value: Any) -> Any:
    """A number as it is, a list as JSON. Text that a spreadsheet would run as a formula gets an
    apostrophe in front.
    """
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    if isinstance(value, list | tuple | dict):
        return json_text(value)
    text = value if isinstance(value, str) else str(value)
    safe = "".join(
        piece if piece and piece in _JOINERS else shown(piece, newlines=True)
        for piece in re.split(f"([{_JOINERS}])", text)
    )
    return ("'" if text.startswith(_FORMULA) else "") + safe


def _markdown(columns: Sequence[TableColumn], rows: Sequence[Row]) -> str:
    rule = ["--:" if column.right else "---" for column in columns]
    lines = [[_md(column.head) for column in columns], rule]
    lines += [[_md(column.show(row.get(column.key))) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\|`*[]"} | {"<": "&lt;", ">": "&gt;"})


def _md(text: str) -> str:
    """One cell: no mark in it ends the cell, makes a link or is read as HTML."""
    return re.sub(r"&(?=#?\w+;)", "&amp;", shown(plain(text))).translate(_MARKDOWN)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
    | {"±": r"$\pm$", "…": r"\dots{}", "[": "{[}", "]": "{]}"}
)


def _latex(columns: Sequence[TableColumn], rows: Sequence[Row]) -> str:
    """A booktabs table."""
    sides = "".join("r" if column.right else "l" for column in columns)
    lines = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule"]
    lines.append(" & ".join(_tex(column.head) for column in columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(_tex(c.show(row.get(c.key))) for c in columns) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    """One cell: no letter in it is a command."""
    return shown(plain(text)).translate(_LATEX)
