"""How the code is built, in numbers: `python -m benchmarks.structure` prints one table for the two packages.

Files, lines, lengths of functions and files, share of docstrings and comments, characters a line, names that occur
more than once, and modules that lie flat under a package. docs/architecture.md quotes it.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"__init__", "__main__"}


@dataclass
class Measured:
    """Sums over the files of one package."""

    files: int = 0
    lines: int = 0
    code: int = 0
    docstring: int = 0
    comment: int = 0
    characters: int = 0
    functions: list[int] = field(default_factory=list)
    file_lengths: list[int] = field(default_factory=list)
    over_100: int = 0
    names: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    flat: int = 0


def measure(package: Path) -> Measured:
    found = Measured()
    for path in sorted(package.rglob("*.py")):
        _add(found, package, path)
    return found


def _add(found: Measured, package: Path, path: Path) -> None:
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    filled = [line for line in lines if line.strip()]
    found.files += 1
    found.lines += len(lines)
    found.code += len(filled)
    found.file_lengths.append(len(lines))
    found.characters += sum(map(len, filled))
    found.over_100 += sum(len(line) > 100 for line in lines)
    found.comment += _comment_lines(text)
    if path.stem not in PROGRAMS:
        found.names[path.stem] += 1
        found.flat += path.parent == package
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            found.functions.append(node.end_lineno - node.lineno + 1)
        if isinstance(node, ast.ClassDef):
            found.classes[node.name] += 1
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            found.docstring += _docstring_lines(node)


def _comment_lines(text: str) -> int:
    """Lines that are a comment and nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(t.type == tokenize.COMMENT and t.line.lstrip().startswith("#") for t in tokens)


def _docstring_lines(node: ast.AST) -> int:
    body = getattr(node, "body", [])
    first = body[0] if body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return 0
    if not isinstance(first.value.value, str):
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def rows(found: Measured) -> list[tuple[str, str]]:
    lengths = sorted(found.functions)
    tenth = lengths[int(0.9 * (len(lengths) - 1))]
    median = statistics.median_low(lengths)
    return [
        ("files / lines", f"{found.files} / {found.lines:,}"),
        ("function: median / 90 % / longest", f"{median} / {tenth} / {lengths[-1]}"),
        ("longest file", str(max(found.file_lengths))),
        ("docstring lines, %", f"{100 * found.docstring / found.lines:.1f}"),
        ("comment lines, %", f"{100 * found.comment / found.lines:.1f}"),
        ("characters a filled line", f"{found.characters / found.code:.0f}"),
        ("lines over 100 characters", str(found.over_100)),
        ("file names that occur twice or more", str(_repeated(found.names))),
        ("class names that occur twice or more", str(_repeated(found.classes))),
        ("modules flat under the package", str(found.flat)),
    ]


def _repeated(names: Counter[str]) -> int:
    return sum(count > 1 for count in names.values())


def main() -> None:
    measured = {name: dict(rows(measure(ROOT / name))) for name in ("dgc", "dgcctl")}
    print("| | " + " | ".join(measured) + " |\n|---|" + "--:|" * len(measured))
    for name in measured["dgc"]:
        print(f"| {name} | " + " | ".join(column[name] for column in measured.values()) + " |")


if __name__ == "__main__":
    main()
