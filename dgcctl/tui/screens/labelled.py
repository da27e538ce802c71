"""Tags and a note of a run, given where one sees it: a field over the keys, on the screens that are
about runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from dgc.errors import DgcError
from dgc.run.paths import RunDir
from dgcctl.core.runs import labels
from dgcctl.tui.screens.base import DashScreen
from dgcctl.tui.state import run_facts
from dgcctl.tui.widgets.bar import Lines

TAGS, NOTE = "tags", "note"
_HINTS = {
    TAGS: "words to add, -word takes one away",
    NOTE: "a text; empty takes it away",
}


class LabelField(Horizontal):
    """One line for tags or a note of one run."""

    DEFAULT_CSS = """
    LabelField { display: none; height: 1; }
    LabelField.on { display: block; }
    LabelField Lines { height: 1; }
    LabelField Input { width: 1fr; }
    """

    @dataclass
    class Given(Message):
        run_id: str
        kind: str
        text: str

    def __init__(self) -> None:
        super().__init__(id="labels")
        self.run_id = self.kind = ""

    def compose(self) -> ComposeResult:
        yield Lines(height=1)
        field = Input(id="label")
        field.cursor_blink = False
        yield field

    def ask(self, run_id: str, kind: str, text: str) -> None:
        self.run_id, self.kind = run_id, kind
        field, title = self.query_one(Input), self.query_one(Lines)
        asked = f" {kind} of {run_facts.short_id(run_id)} "
        title.styles.width = cell_len(asked)
        title.show([(asked, "head")])
        field.value, field.cursor_position = text, len(text)
        field.placeholder = _HINTS[kind]
        self.add_class("on")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()  # the screen's other field is a filter

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Given(self.run_id, self.kind, event.value))


class LabelledScreen(DashScreen):
    """A screen with such a field (`yield LabelField()`)."""

    def action_tag(self) -> None:
        self._ask(TAGS)

    def action_note(self) -> None:
        self._ask(NOTE)

    def _ask(self, kind: str) -> None:
        run = self.host.store.runs.get(self.subject() or "")
        if run is None or self.host.options.readonly:
            return
        self.query_one(LabelField).ask(run.id, kind, run.given.note if kind == NOTE else "")

    def leave_label(self) -> bool:
        """Close the field; whether it was open."""
        field = self.query_one(LabelField)
        was_open = field.has_class("on")
        field.remove_class("on")
        if was_open:
            self.focus_rows()
        return was_open

    def focus_rows(self) -> None:
        """Where the keys go after the field."""

    def on_label_field_given(self, event: LabelField.Given) -> None:
        self.leave_label()
        run = self.host.store.runs.get(event.run_id)
        if run is None:
            self.notify(f"{event.run_id}: its folder is gone", severity="warning")
            return
        try:
            told = give(run.dir, event.kind, event.text)
        except (DgcError, OSError) as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(told, timeout=3)


def give(run: RunDir, kind: str, text: str) -> str:
    """Write tags or a note, and say what the run has now. Raises DgcError or OSError."""
    if kind == NOTE:
        labels.note(run, text.strip())
        return "note kept" if text.strip() else "no note"
    words = text.replace(",", " ").split()
    gone = [word[1:] for word in words if word.startswith("-")]
    found = labels.tag(run, [word for word in words if not word.startswith("-")], gone)
    return f"tags: {' '.join(found.tags)}" if found.tags else "no tags"
