"""What is known about the runs, in the UI thread. It takes the poller's news and answers the
screens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dgc.errors import UsageError
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.core.runs import filters
from dgcctl.core.runs.listing import UNREADABLE, Run
from dgcctl.tui.state.feed import Feed, FeedBatch, Points
from dgcctl.tui.state.machine import KIND, Machine
from dgcctl.tui.state.poller import Disk, Listed, News, Sampled
from dgcctl.tui.state.processes import Sample
from dgcctl.tui.state.run_facts import best_error, last_error
from dgcctl.tui.state.sign import Sign, number_new, sign_of
from dgcctl.tui.state.view import View

GLYPHS = {
    State.QUEUED: "…", State.RUNNING: "▶", State.DONE: "✓", State.FAILED: "✗", State.STOPPED: "■",
    State.DIED: "†",
    UNREADABLE: "?",
}  # fmt: skip
ROLES = {
    State.QUEUED: "dim", State.RUNNING: "accent", State.DONE: "good", State.FAILED: "bad",
    State.STOPPED: "warn",
    State.DIED: "bad", UNREADABLE: "bad",
}  # fmt: skip
_ORDER = (
    State.RUNNING,
    State.QUEUED,
    State.DIED,
    State.FAILED,
    UNREADABLE,
    State.STOPPED,
    State.DONE,
)


def state_text(state: str) -> str:
    """Glyph and word: a state is never told by colour alone."""
    return f"{GLYPHS.get(state, '?')} {state}"


# the most that a run shows which is not done: with its last step it has not been judged
UNFINISHED = 0.99


def share_done(run: Run) -> float:
    """How much of its steps a run has done, in [0, 1]; 1 is kept for those that are done."""
    status = run.status
    if run.state == State.DONE and not status.steps:
        return 1.0  # of a script that never said how many there would be
    share = min(1.0, status.step / status.steps) if status.steps else 0.0
    return share if run.state == State.DONE else min(share, UNFINISHED)


def bar_role(run: Run) -> str:
    """The role of a progress bar: what runs stands out, what is done does not, and what ended
    otherwise has the role of its state.
    """
    if run.state == State.DONE:
        return "dim"
    return "bar" if run.state == State.RUNNING else ROLES.get(run.state, "bar")


def reason(run: Run) -> str:
    """Why a run ended or cannot be read, in one line that begins with what matters (the folder is
    known).
    """
    text = run.problem or run.status.reason
    return text.replace(f"{run.dir.path}/", "").splitlines()[0] if text else ""


@dataclass(frozen=True)
class ShownRuns:
    """The runs that pass the filter, and what is wrong with the filter (then all pass)."""

    runs: list[Run]
    problem: str = ""
    hidden: int = 0  # of those that pass the filter, how many are hidden and not shown


class Store:
    """Runs, their feeds, samples of their processes, and the user's view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.runs: dict[str, Run] = {}
        self.feeds: dict[str, Feed] = {}
        self.samples: dict[str, Sample] = {}
        self.machines: dict[str, Machine] = {}
        self.curve_best: dict[str, float] = {}
        self.last_speed: dict[str, float] = {}
        self.free: int | None = None
        self.listed = False
        self.folder_gone = False
        self.version = 0

    def take(self, news: News) -> None:
        self.version += 1
        if isinstance(news, Listed):
            self.runs = {run.id: run for run in news.runs}
            number_new(self.view.signs, news.runs)
            self.curve_best, self.last_speed = news.best, news.speed
            self.listed = True
            self.folder_gone = news.gone
        elif isinstance(news, FeedBatch):
            if news.run_id in self.feeds or news.run_id in self.runs:
                self.feed(news.run_id).apply(news)
        elif isinstance(news, Sampled):
            self._take_sample(news)
        elif isinstance(news, Disk):
            self.free = news.free

    def _take_sample(self, news: Sampled) -> None:
        if news.sample is None:
            self.samples.pop(news.run_id, None)
        else:
            self.samples[news.run_id] = news.sample
            if news.run_id in self.runs:
                self.machine(news.run_id).add(news.sample, self.runs[news.run_id])

    def machine(self, run_id: str) -> Machine:
        """What was seen of a run's process since the dashboard was opened."""
        return self.machines.setdefault(run_id, Machine())

    def sign(self, run_id: str) -> Sign:
        """The letter and the colour of a run."""
        return sign_of(self.view.signs.get(run_id, len(self.view.signs)))

    def feed(self, run_id: str) -> Feed:
        """The feed of a known run (made empty when first asked for)."""
        if run_id not in self.feeds:
            self.feeds[run_id] = Feed(self.runs[run_id].dir)
        return self.feeds[run_id]

    def points(self, run_id: str, metric: str) -> Points:
        """The points of a metric of a run, be it from its log or seen from here."""
        if metric.startswith(KIND):
            return self.machine(run_id).points(metric)
        return self.feed(run_id).points(metric)

    def metric_names(self, run_id: str) -> list[str]:
        """All metrics of a run, in the order in which they appeared."""
        return [*self.feed(run_id).names(), *self.machine(run_id).names()]

    # --- lists ------------------------------------------------------------------------------------

    def shown(self) -> ShownRuns:
        """Filtered and sorted; pinned ones first. Hidden ones are left out, unless they are to be
        seen.
        """
        try:
            found = filters.select(self.runs.values(), filters.parse_filter(self.view.filter))
            problem = ""
        except UsageError as error:
            found, problem = list(self.runs.values()), str(error)
        away = set() if self.view.show_hidden else set(self.view.hidden)
        hidden = sum(run.id in away for run in found)
        found = [run for run in found if run.id not in away]
        found.sort(key=self._sort_key, reverse=self.view.reverse)
        # those without a value stand last, whichever way the others are sorted
        found.sort(key=lambda run: self._sort_key(run)[0] == math.inf)
        pins = set(self.view.pins)
        return ShownRuns(
            [r for r in found if r.id in pins] + [r for r in found if r.id not in pins],
            problem,
            hidden,
        )

    def _sort_key(self, run: Run) -> tuple[float | str, ...]:
        """Those that come first by the present sort have the smallest."""
        match self.view.sort:
            case "state":
                return (_ORDER.index(run.state) if run.state in _ORDER else 9, -run.status.started)
            case "recipe":
                return (run.name, -run.status.started)
            case "error":
                return (_or_last(self.best(run)), -run.status.started)
            case "progress":
                return (-share_done(run), -run.status.started)
            case "speed":
                return (_or_last(_minus(self.speed(run))), -run.status.started)
            case "lr" | "seed" as name:
                value = run.recipe.get({"lr": "optim.lr"}.get(name, name))
                number = float(value) if isinstance(value, int | float) else math.inf
                return (number, -run.status.started)
        return (-run.status.started, run.id)

    def marked(self) -> list[Run]:
        """Marked runs in the order of marking (those that are gone are passed over)."""
        return [self.runs[key] for key in self.view.marks if key in self.runs]

    def overlay(self, run_id: str) -> list[Run]:
        """The run itself, then the marked ones: those whose curves lie in one chart."""
        own = [self.runs[run_id]] if run_id in self.runs else []
        others = [] if self.view.alone else self.marked()
        hidden = set(self.view.hidden)
        return own + [run for run in others if run.id != run_id and run.id not in hidden]

    def dirs(self, run_ids: Iterable[str]) -> list[RunDir]:
        return [self.runs[key].dir for key in run_ids if key in self.runs]

    # --- figures ----------------------------------------------------------------------------------

    def best(self, run: Run) -> float | None:
        """Lowest top-1 error so far: from its log where it is open, else from its curve, else the
        last one.
        """
        found = best_error(self.feeds.get(run.id))
        return self.curve_best.get(run.id, self.last(run)) if found is None else found

    def speed(self, run: Run) -> float | None:
        """Images a second, as it was last measured."""
        feed = self.feeds.get(run.id)
        found = feed.last("perf.images_per_s") if feed else None
        return self.last_speed.get(run.id) if found is None else found

    def last(self, run: Run) -> float | None:
        return last_error(run, self.feeds.get(run.id))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _or_last(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value
