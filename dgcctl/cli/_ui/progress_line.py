"""The live line of a training, on stderr: rewritten in place on a terminal, now and then a plain
line elsewhere.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from dgc.run.events import Event, EventKind
from dgcctl.cli._ui import diagnostics
from dgcctl.core import numbers
from dgcctl.core.runs.tail import Progress

PLAIN_SECONDS = 30.0
REDRAW_SECONDS = 0.2


class LiveLine:
    """Shows Progress. On a terminal one line is rewritten; elsewhere each evaluation and every 30 s
    print one.
    """

    def __init__(self, gate_factor: float | None, *, top5: bool = True) -> None:
        self._gate_factor, self._top5 = gate_factor, top5
        self._in_place = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = self._said = ""
        self._last = time.monotonic()

    def show(self, progress: Progress, events: Iterable[Event]) -> None:
        """Print what the new events call for, then the line itself."""
        if diagnostics.verbosity() < 0:
            return
        for event in events:
            self._announce(event, progress)
        now = time.monotonic()
        if self._in_place and now - self._last >= REDRAW_SECONDS:
            self._redraw(fitting_line(progress, self._gate_factor, diagnostics.columns() - 1))
            self._last = now
        elif not self._in_place and now - self._last >= PLAIN_SECONDS and progress.seen:
            self._say_if_new(progress_line(progress, self._gate_factor))
            self._last = now

    def _announce(self, event: Event, progress: Progress) -> None:
        if event["kind"] == EventKind.EVAL and event.get("split", "val") in ("val", "test"):
            self.clear()
            diagnostics.note(eval_line(event, progress, top5=self._top5))
            self._last = time.monotonic() if not self._in_place else 0.0
        elif event["kind"] == EventKind.ALERT and event.get("level") != "info":
            self.clear()
            diagnostics.warn(str(event.get("text", "")))

    def _say_if_new(self, line: str) -> None:
        """A slow training would fill a log with the same line."""
        if line != self._said:
            diagnostics.note(line)
            self._said = line

    def _redraw(self, line: str) -> None:
        if line == self._drawn:
            return
        diagnostics.draw(line)
        self._drawn = line

    def clear(self) -> None:
        """Take the line away, so that ordinary lines can follow."""
        if self._drawn:
            diagnostics.draw("")
            self._drawn = ""


def progress_line(progress: Progress, gate_factor: float | None) -> str:
    """`epoch 3/6  step 210/474  loss 0.8123  error 27.1 %  lr 0.0674  pruned 31 %  1,840 images/s
    ETA 42s`.
    """
    if not progress.seen:
        return "starting: loading data and network ..."
    return "  ".join(told for _, told in _fields(progress, gate_factor))


def fitting_line(progress: Progress, gate_factor: float | None, width: int) -> str:
    """The same in so many columns: whole fields are left out, the least important first."""
    if not progress.seen:
        return progress_line(progress, gate_factor)[:width]
    fields = _fields(progress, gate_factor)
    while len(fields) > 1 and len("  ".join(told for _, told in fields)) > width:
        fields.remove(max(fields, key=lambda field: _LEAST_LAST.index(field[0])))
    return "  ".join(told for _, told in fields)[:width]


_LEAST_LAST = ("step", "ETA", "loss", "epoch", "error", "images/s", "pruned", "lr")


def _fields(progress: Progress, gate_factor: float | None) -> list[tuple[str, str]]:
    """Name and text of each, in the order in which they are shown."""
    parts = []
    if progress.epochs:
        now = min(progress.epoch + 1, progress.epochs)
        parts.append(("epoch", f"epoch {now}/{progress.epochs}"))
    parts.append(("step", f"step {numbers.part(progress.step, progress.steps)}"))
    for name, value, form in (
        ("loss", progress.loss, ".4f"),
        ("error", progress.error, ".1f"),
        ("lr", progress.lr, ".3g"),
    ):
        if value is not None:
            parts.append((name, f"{name} {value:{form}}{' %' if name == 'error' else ''}"))
    if gate_factor is not None and gate_factor < 1:
        parts.append(("pruned", f"pruned {100 * progress.pruned(gate_factor):.0f} %"))
    if progress.images_per_s is not None:
        parts.append(("images/s", f"{progress.images_per_s:,.0f} images/s"))
    if progress.eta_s is not None:
        parts.append(("ETA", f"ETA {numbers.duration(progress.eta_s)}"))
    return parts


def eval_line(event: Event, progress: Progress, *, top5: bool = True) -> str:
    """`epoch 3/6  top-1 error 21.40 %  top-5 error 1.20 %  loss 0.5930`."""
    epoch = event.get("epoch", progress.epoch + 1)
    parts = [f"epoch {numbers.part(epoch, progress.epochs)}"]
    parts.append(f"top-1 error {numbers.percent(event.get('top1_error'))}")
    if (averaged := event.get("ema_top1_error")) is not None:
        parts.append(f"({numbers.percent(averaged)} with averaged weights)")
    if top5 and event.get("top5_error") is not None:
        parts.append(f"top-5 error {numbers.percent(event['top5_error'])}")
    parts.append(f"loss {numbers.decimals(event.get('loss'))}")
    return "  ".join(parts)
