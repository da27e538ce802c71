"""The keys, one table: id -> (key, action, label). A keys file maps ids to other keys; everything
else stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import yaml
from textual.binding import Binding

from dgc.errors import UsageError


class Needs(IntEnum):
    """What has to be known before a key means what it says; each holds all those before it."""

    NOTHING = 0
    PLACE = 1  # which screen it is for (runs that are to be opened at once are open)
    RUNS = 2  # which runs there are
    ROWS = 3  # what stands in the lists and charts of the screen
    ALL = 4  # every figure on the screen


@dataclass(frozen=True)
class Key:
    id: str
    key: str
    action: str
    label: str
    help: str
    shown: bool = True
    needs: Needs = Needs.ROWS

    @property
    def name(self) -> str:
        """Of the action, without its owner and its arguments."""
        return self.action.removeprefix("app.").partition("(")[0]

    def binding(self) -> Binding:
        return Binding(
            self.key, self.action, self.label, id=self.id, show=self.shown, tooltip=self.help
        )


QUIT = Key("quit", "q", "quit", "Quit", "leave; training goes on", needs=Needs.NOTHING)
EVERYWHERE = (
    Key("help", "question_mark", "help", "Help", "what every key does", needs=Needs.PLACE),
    QUIT,
    Key("theme", "t", "theme", "Theme", "dark, light, no colour", needs=Needs.NOTHING),
    Key(
        "export",
        "e",
        "export",
        "Export",
        "numbers as CSV, the frame as SVG and PNG",
        needs=Needs.ALL,
    ),
    Key("recipes", "n", "recipes", "New run", "browse recipes, start a run", needs=Needs.PLACE),
    Key(
        "suspend",
        "ctrl+z",
        "suspend_process",
        "Suspend",
        "back to the shell; fg brings it back",
        False,
        Needs.NOTHING,
    ),
)
PALETTE = Key(
    "palette",
    "ctrl+p",
    "command_palette",
    "Palette",
    "everything that has a key, by name",
    needs=Needs.PLACE,
)
ALWAYS = (*EVERYWHERE[:2], PALETTE)  # at the right end of the last line
NEW_RUN, LAST = EVERYWHERE[4], (EVERYWHERE[3], EVERYWHERE[2])
# on the screens that are about a run (elsewhere they say that none is chosen)
ACTING = (
    Key("stop", "s", "app.stop", "Stop", "finish the step, save and stop", needs=Needs.RUNS),
    Key(
        "checkpoint",
        "c",
        "app.checkpoint",
        "Checkpoint",
        "save after the step and go on",
        needs=Needs.RUNS,
    ),
    Key(
        "resume",
        "r",
        "app.resume",
        "Resume",
        "go on after a stop, a failure, a death",
        needs=Needs.RUNS,
    ),
)
# what a person says about a run, in a file of its own
LABELS = (
    Key("tag", "T", "tag", "Tag", "give tags, -word takes one away", False),
    Key("note", "N", "note", "Note", "a note on the run", False),
)
RUNS = (
    Key("open", "enter", "open", "Open", "the run's curves and records"),
    Key(
        "filter",
        "slash",
        "filter",
        "Filter",
        "e.g. state=done lr>0.05 name~demo",
        needs=Needs.PLACE,
    ),
    Key("mark", "space", "mark", "Mark", "lay it over all charts; compare it"),
    Key("diff", "d", "diff", "Diff", "compare the marked runs"),
    Key("sort", "o", "sort", "Sort", "by the next column", False),
    Key("hide", "h", "hide", "Hide", "out of list and charts; again: back", False),
    Key("gates", "g", "gates", "Gates", "which channels each head chooses", False),
    Key("log", "l", "log", "Log", "open the run at its log", False),
    Key("group", "v", "group", "Group", "by recipe over seeds: mean and spread", False),
    *LABELS,
    Key("pin", "p", "pin", "Pin", "keep this run at the top", False),
    Key("hidden", "H", "show_hidden", "Hidden", "show hidden runs too, or not", False),
    Key("reverse", "O", "reverse", "Reverse", "sort the other way round", False),
    Key("back", "escape", "back", "Back", "drop the filter", False, needs=Needs.PLACE),
)
RUN = (
    Key("logy", "y", "log_y", "Log y", "logarithmic vertical axis", needs=Needs.PLACE),
    Key("axis", "x", "axis", "Axis", "steps, epochs or time", needs=Needs.PLACE),
    Key("smoother", "plus,equals_sign", "smooth(1)", "Smooth", "smooth more", needs=Needs.PLACE),
    Key("rougher", "minus", "smooth(-1)", "Rougher", "smooth less", False, needs=Needs.PLACE),
    Key("raw", "0", "smooth(0)", "Raw", "no smoothing", False, needs=Needs.PLACE),
    Key("log", "l", "drawer('log')", "Log", "the log; / searches it", needs=Needs.PLACE),
    Key("gates", "g", "gates", "Gates", "which channels each head chooses", needs=Needs.PLACE),
    Key(
        "checkpoints",
        "w",
        "drawer('checkpoints')",
        "Checkpoints",
        "the saved states (weights)",
        False,
        Needs.PLACE,
    ),
    Key(
        "facts",
        "i",
        "drawer('facts')",
        "Facts",
        "recipe, target, machine, alerts",
        False,
        Needs.PLACE,
    ),
    Key(
        "metrics",
        "m",
        "drawer('metrics')",
        "Metrics",
        "/ filters, enter shows one, p pins it",
        needs=Needs.PLACE,
    ),
    Key(
        "filter",
        "slash",
        "search",
        "Filter",
        "charts by name; in a list: search it",
        needs=Needs.PLACE,
    ),
    Key(
        "earlier",
        "left_square_bracket",
        "page(-1)",
        "Page back",
        "the charts before",
        False,
        Needs.ALL,
    ),
    Key("later", "right_square_bracket", "page(1)", "Page on", "the next charts", False, Needs.ALL),
    Key("panels", "b", "panels", "Panels", "charts a page: what fits, 1 to 12", False),
    Key("outliers", "o", "clip", "Outliers", "clip what lies far outside", False, Needs.PLACE),
    Key("usage", "u", "usage", "Usage", "charts of CPU, GPU and memory", False, Needs.PLACE),
    Key("alone", "h", "alone", "Hide others", "hide or show the marked runs", False, Needs.PLACE),
    Key("follow", "F", "follow", "Follow", "the log at its end, as it grows", False, Needs.PLACE),
    *LABELS,
    Key("mark", "space", "mark", "Mark", "lay it over other runs' charts", False),
    Key("pin", "p", "pin", "Pin", "keep the metric (or the run) in front", False),
    Key("diff", "d", "diff", "Diff", "compare with the marked runs", False),
    Key("left", "left", "cursor(-1)", "Cursor left", "read values in all charts", False),
    Key("right", "right", "cursor(1)", "Cursor right", "read values in all charts", False),
    Key("far-left", "shift+left", "cursor(-10)", "Far left", "move the cursor ten columns", False),
    Key(
        "far-right", "shift+right", "cursor(10)", "Far right", "move the cursor ten columns", False
    ),
    Key("zoom-in", "z", "zoom(1)", "Zoom", "look closer around the cursor", False),
    Key("zoom-out", "Z", "zoom(-1)", "Wider", "look from further away", False),
    Key("one", "f", "one", "One chart", "the focused chart alone, all again", False, Needs.ALL),
    Key(
        "back", "escape", "back", "Back", "drop search, cursor, zoom; then leave", needs=Needs.PLACE
    ),
)
BACK = Key("back", "escape", "back", "Back", "to the screen before", needs=Needs.PLACE)
GATES = (
    Key(
        "figure",
        "x",
        "figure",
        "Figure",
        "active share, entropy, most used share",
        needs=Needs.PLACE,
    ),
    Key("earlier", "left_square_bracket", "epoch(-1)", "Earlier", "the evaluation before"),
    Key("later", "right_square_bracket", "epoch(1)", "Later", "the evaluation after"),
    Key("left", "left", "head(-1)", "Head left", "the head before", False),
    Key("right", "right", "head(1)", "Head right", "the head after", False),
    BACK,
)
COMPARE = (
    Key("section", "x", "section", "Section", "figures, what differs, scatter", needs=Needs.PLACE),
    BACK,
)
RECIPES = (Key("start", "enter", "start", "Start", "start a run of this recipe"), BACK)
TABLES: Mapping[str, tuple[Key, ...]] = {
    "Everywhere": EVERYWHERE, "Acts": ACTING, "Runs": RUNS, "Run": RUN, "Gates": GATES,
    "Compare": COMPARE,
    "Recipes": RECIPES,
}  # fmt: skip
ACTS = frozenset({"stop", "checkpoint", "resume", "start", "tag", "note"})


def bindings(table: tuple[Key, ...]) -> list[Binding]:
    return [key.binding() for key in table]


def needed(
    pressed: str, character: str | None, table: Iterable[Key], own: Mapping[str, str]
) -> Needs:
    """What a pressed key needs; `own` are the places that the user gave to keys."""
    for key in table:
        if {pressed, character} & set(own.get(key.id, key.key).split(",")):
            return key.needs
    return Needs.ROWS


def known_ids() -> set[str]:
    return {key.id for table in TABLES.values() for key in table}


def load_keymap(path: Path | None) -> dict[str, str]:
    """The user's keys: a YAML mapping of id to key. Raises UsageError for anything else; an absent
    file is empty.
    """
    if path is None or not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: no readable keys file ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f'{path}: should map ids to keys in quotes, e.g. `stop: "ctrl+s"`')
    unknown = sorted(str(key) for key in found if key not in known_ids())
    if unknown:
        raise UsageError(
            f"{path}: unknown key id {unknown[0]} (known: {', '.join(sorted(known_ids()))})"
        )
    return {str(key): value for key, value in found.items()}


def shown_key(key: str) -> str:
    """A key as people write it."""
    names = {
        "question_mark": "?", "slash": "/", "plus": "+", "equals_sign": "=", "minus": "-",
        "escape": "esc",
        "left_square_bracket": "[", "right_square_bracket": "]", "ctrl+p": "^p", "enter": "⏎",
    }  # fmt: skip
    return " ".join(names.get(part, part) for part in key.split(","))
