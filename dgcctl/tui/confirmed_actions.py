"""What changes a run: asked first, then carried out, and told how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import App

from dgc.errors import DgcError, UsageError
from dgcctl.core.runs.listing import Run
from dgcctl.tui import actions
from dgcctl.tui.screens.confirm_screen import Confirm
from dgcctl.tui.state.alerts import AlertMonitor
from dgcctl.tui.state.store import Store


class ConfirmedActions:
    """Stop, checkpoint and resume of the run that `subject` names. The app shows the question."""

    def __init__(
        self,
        app: App[Any],
        store: Store,
        trainers: actions.Trainers,
        alerts: AlertMonitor,
        subject: Callable[[], str | None],
    ) -> None:
        self._app, self._store, self._subject = app, store, subject
        self._trainers, self._alerts = trainers, alerts

    def stop(self) -> None:
        run = self._store.runs.get(self._subject() or "")
        by_script = run is not None and run.by_script
        what = (
            "Its script hears it where it looks for it."
            if by_script
            else "It finishes its step, saves and stops."
        )
        self._ask("stop", what, "asked to stop")

    def checkpoint(self) -> None:
        self._ask("checkpoint", "It saves after its step and goes on.", "asked to checkpoint")

    def resume(self) -> None:
        self._ask("resume", "It goes on from its newest checkpoint.", "resuming", self._resume)

    def _resume(self, run: Run) -> None:
        # its next end is another one, which has to be told even though an end was told before
        self._alerts.begins(run.id)
        self._trainers.resume(run.dir)

    def _ask(self, act: str, what: str, done: str, do: Callable[[Run], None] | None = None) -> None:
        """Ask before an act on the run that is chosen; say at once where it cannot be."""
        run = self._store.runs.get(self._subject() or "")
        why = actions.refusal(run, act)
        if run is None or why:
            self._app.notify(why, severity="warning")
            return

        def answer(agreed: bool | None) -> None:
            if agreed:
                self._carry_out(run, act, done, do)

        # the run may end while the question stands: then nobody needs to answer it any more
        def pointless() -> str:
            return actions.refusal(self._store.runs.get(run.id), act)

        self._app.push_screen(Confirm(f"{act.capitalize()} {run.id}?", what, pointless), answer)

    def _carry_out(self, run: Run, act: str, done: str, do: Callable[[Run], None] | None) -> None:
        """The run may have ended while the question stood. Without `do` the trainer is left a
        request of that name.
        """
        try:
            why = actions.refusal(self._store.runs.get(run.id), act)
            if why:
                raise UsageError(why)
            do(run) if do else actions.request(run, act)
        except DgcError as error:
            self._app.notify(str(error), severity="error")
        else:
            self._app.notify(done)
