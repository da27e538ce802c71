"""A table as lines of Markdown, for the page beside a report."""

from __future__ import annotations


def markdown_table(rows: list[list[str]]) -> list[str]:
    """The first row is the head; an empty line ends the table."""
    head, *body = rows
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *body)] + [""]
