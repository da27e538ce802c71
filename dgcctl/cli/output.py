"""What is said on stdout: data, and nothing else. Alone writes stdout.

A table is a list of columns and of rows (plain dicts). The same rows print as text, JSON, CSV, Markdown or LaTeX.
Text has the same bytes on a terminal and in a pipe but for colour: no width is asked, nothing is cut.
(Own layout and not rich.table: that takes 0.5 s for 1,000 rows, the whole budget of `runs ls`.)
"""

from __future__ import annotations

import csv
import enum
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.cells import cell_len

from dgcctl.cli.diagnostics import paint

SCHEMA_VERSION = 1
Row = Mapping[str, Any]


class Form(enum.StrEnum):
    """How a table is printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    LATEX = "latex"


@dataclass(frozen=True)
class Column:
    """One column: the key in each row, its title, how a value reads as text, its side, and the colour of a cell."""

    key: str
    title: str = ""
    show: Callable[[Any], str] = lambda value: "-" if value is None else str(value)
    right: bool = False
    style: Callable[[Any], str] = lambda value: ""

    @property
    def head(self) -> str:
        return self.title or self.key.replace("_", " ")


def form_of(*, json: bool = False, csv: bool = False, md: bool = False, latex: bool = False) -> Form:
    """The form that a command's flags name. Raises typer.BadParameter where they name two."""
    chosen = [form for form, on in ((Form.JSON, json), (Form.CSV, csv), (Form.MD, md), (Form.LATEX, latex)) if on] or [
        Form.TEXT
    ]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return chosen[0]


def table(name: str, columns: Sequence[Column], rows: Sequence[Row], form: Form = Form.TEXT, **facts: Any) -> None:
    """Print rows in a form. JSON is `{"schema_version", name: [rows], **facts}` with every key of each row."""
    if form is Form.JSON:
        document(**{name: [dict(row) for row in rows]}, **facts)
        return
    writer = {Form.TEXT: _text, Form.CSV: _csv, Form.MD: _markdown, Form.LATEX: _latex}[form]
    write(writer(columns, rows))


def document(**value: Any) -> None:
    """Print one JSON object with the schema version."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    write(orjson.dumps({"schema_version": SCHEMA_VERSION, **value}, default=_plain, option=options).decode())


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def facts(rows: Sequence[tuple[str, Any]]) -> None:
    """Print `name  value` lines, the values in one column."""
    width = max((cell_len(name) for name, _ in rows), default=0)
    lines = []
    for name, value in rows:
        pad = " " * (width - cell_len(name))
        lines.append(f"{paint(name, 'bold', sys.stdout)}{pad}  {'-' if value is None else value}".rstrip())
    write("\n".join(lines) + "\n" if lines else "")


def line(text: str = "") -> None:
    """Print one line."""
    write(text + "\n")


def write(text: str) -> None:
    """Write to stdout; a reader who has gone (`| head`) ends the command quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _text(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    cells = [[column.show(row.get(column.key)) for column in columns] for row in rows]
    widths = [max(map(cell_len, texts)) for texts in zip(*[[c.head for c in columns], *cells], strict=True)]
    head = "  ".join(_pad(c.head, w, c.right) for c, w in zip(columns, widths, strict=True)).rstrip()
    lines = [paint(head, "bold", sys.stdout)]
    for row, texts in zip(rows, cells, strict=True):
        lines.append(_text_row(columns, row, texts, widths))
    return "\n".join(lines) + "\n"


def _text_row(columns: Sequence[Column], row: Row, texts: list[str], widths: list[int]) -> str:
    """One line without blanks at its end."""
    last = max((index for index, text in enumerate(texts) if text), default=0)
    parts = []
    for index, (column, text, width) in enumerate(zip(columns[: last + 1], texts, widths, strict=False)):
        painted = paint(text, column.style(row.get(column.key)), sys.stdout)
        space = " " * (width - cell_len(text))
        parts.append(space + painted if column.right else painted + ("" if index == last else space))
    return "  ".join(parts)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Raw values, not the rounded text: a file for other programs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow(["" if row.get(column.key) is None else row[column.key] for column in columns])
    return buffer.getvalue()


def _markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    rule = ["--:" if column.right else "---" for column in columns]
    lines = [[column.head for column in columns], rule]
    lines += [[column.show(row.get(column.key)).replace("|", "\\|") for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"})


def _latex(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A booktabs table."""
    sides = "".join("r" if column.right else "l" for column in columns)
    lines = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule"]
    lines.append(" & ".join(column.head.translate(_LATEX) for column in columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(c.show(row.get(c.key)).translate(_LATEX) for c in columns) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
