"""docs/recipes.md, as the code says it: `python -m tests.contract.recipe_page > docs/recipes.md`."""

from __future__ import annotations

import re
import textwrap

from dgc.recipe.meanings import keys

_INTRODUCTION = (
    "A recipe is a YAML file of sections; `dgcctl recipes show demo` prints a whole one, every default"
    " written out. Any key can be set on the command line: `dgcctl train demo optim.lr=0.05`."
    " `dgcctl recipes keys [WORD]` prints the rows of this page, which is written by"
    " `python -m tests.contract.recipe_page`; a test compares it with the code.",
    "Options that came after the paper (adamw, warm-up, mixup, RandAugment, averaged weights, ...) are"
    " off in its recipes. A batch is mixed within pairs of neighbours, so that any number of processes"
    " computes the same; a last, shorter batch of an epoch is not mixed. The average of"
    " `train.ema_decay` forgets faster in the beginning: its decay at step t is at most"
    " (1 + t) / (10 + t).",
)


def page() -> str:
    """docs/recipes.md."""
    lines = ["# The keys of a recipe"]
    for paragraph in _INTRODUCTION:
        lines += ["", textwrap.fill(paragraph, 120, break_on_hyphens=False)]
    section = None
    for key in keys():
        head = key.name.partition(".")[0] if "." in key.name else ""
        if head != section:
            title = (
                f"## {head}"
                if head
                else "## The recipe itself"
                if section is None
                else "## Expectations"
            )
            lines += ["", title]
            lines += ["", "| key | allowed | default | meaning |", "|---|---|---|---|"]
            section = head
        default = (
            "(must be given)"
            if key.default is None
            else f"`{key.default}`"
            if key.default
            else "(empty)"
        )
        # a pattern is full of what Markdown would read as its own
        allowed = re.sub(r"(?<=like )(\S+)", r"`\1`", key.allowed).replace("|", "\\|")
        lines.append(f"| `{key.name}` | {allowed} | {default} | {key.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
