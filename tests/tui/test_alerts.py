"""Alerts: told once, when they happen, and not for what was long over."""

import os
from pathlib import Path

import numpy as np
import pytest

from dgc.run.events import EventKind, encode_event
from dgc.run.paths import RunDir
from dgcctl.core.runs.listing import read_run
from dgcctl.tui.state import alerts
from dgcctl.tui.state.alerts import Alert, AlertMonitor
from dgcctl.tui.state.feed import Follower
from dgcctl.tui.state.poller import Disk, Listed
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import View
from tests.tui import frames, synthetic
from tests.tui.conftest import one
from tests.tui.synthetic import Spec


class Scene:
    """One live run, looked at again and again."""

    def __init__(self, folder: Path, **spec: object) -> None:
        self.spec = Spec(
            **{
                "now_step": 100,
                "state": "running",
                "pid": os.getpid(),
                "final_error": 30,
                "target": 5,
                **spec,
            }
        )
        self.run = synthetic.make(folder, self.spec)
        self.store, self.monitor, self.follower = Store(View()), AlertMonitor(), Follower(self.run)

    def look(self) -> list[Alert]:
        self.store.take(Listed((read_run(self.run),)))
        while (batch := self.follower.poll()) is not None:
            self.store.take(batch)
        return self.monitor.look(self.store)

    def append(self, kind: str, **fields: object) -> None:
        with self.run.events.open("ab") as file:
            file.write(encode_event(kind, fields))


def test_what_a_log_said_before_is_not_told_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, nan_at=50)
    assert scene.look() == []
    assert scene.look() == []


def test_a_loss_that_is_no_number_is_told_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look()
    scene.append(EventKind.STEP, step=101, loss=float("nan"))
    assert [(alert.level, alert.text) for alert in scene.look()] == [
        ("error", "loss is nan at step 101")
    ]
    assert scene.look() == []


def test_an_alert_of_the_trainer_is_told_in_its_words(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look()
    scene.append(
        EventKind.ALERT, level="warning", text="the loader is the bottleneck: 80 % of a step"
    )
    scene.append(EventKind.ALERT, level="info", text="nothing to see")
    assert [(alert.level, alert.text) for alert in scene.look()] == [
        ("warning", "the loader is the bottleneck: 80 % of a step")
    ]


def test_a_target_is_reached_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look()
    scene.append(EventKind.EVAL, step=200, epoch=2, top1_error=5.4, top5_error=1.0)
    assert [alert.title.rpartition(": ")[2] for alert in scene.look()] == ["target reached"]
    scene.append(EventKind.EVAL, step=300, epoch=3, top1_error=5.2, top5_error=1.0)
    assert scene.look() == []


def test_a_plateau_is_told_while_the_run_still_runs(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for step in range(12):
        scene.append(EventKind.EVAL, step=200 + step, epoch=2, top1_error=20.0 - step)
    assert scene.look() == []
    for step in range(5):
        scene.append(EventKind.EVAL, step=300 + step, epoch=3, top1_error=9.5)
    assert [alert.title.rpartition(": ")[2] for alert in scene.look()] == ["plateau"]


@pytest.mark.parametrize(
    ("errors", "is_one"),
    [
        ([9.0] * 20, True),
        (np.linspace(30, 5, 20).tolist(), False),
        ([9.0] * 8, False),
        ([9] * 10 + [9, 9, 9, 9, 8.9], False),
    ],
)
def test_a_plateau_is_five_evaluations_without_gain(errors: list[float], is_one: bool) -> None:
    assert alerts.plateau(np.array(errors, dtype=float)) is is_one


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"state": "failed", "reason": "out of memory: try train.batch_size <= 32"},
            "out of memory: try train.batch_size <= 32",
        ),
        ({"pid": 0}, "process 4194305 is gone at step 100: press r to resume it"),
        ({"state": "stopped", "reason": "stopped on request"}, "stopped on request"),
        ({"state": "done"}, "all steps taken"),
    ],
)
def test_the_end_of_a_run_is_told_with_its_reason(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    scene = Scene(tmp_path)
    scene.look()
    synthetic.set_status(scene.run, Spec(now_step=100, **{"state": "running", **changes}))
    assert [alert.text for alert in scene.look()] == [told]
    assert scene.look() == []


def test_a_disk_nearly_full_is_told_once_until_there_is_room_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look()
    told = []
    for free in (40 << 30, 1 << 30, 1 << 29, 40 << 30, 1 << 30):
        scene.store.take(Disk(free))
        told.append(len(scene.look()))
    assert told == [0, 1, 0, 0, 1]


def test_old_failures_are_no_news_when_the_dashboard_opens(made_runs: Path) -> None:
    store, monitor = Store(View()), AlertMonitor()
    store.take(Listed(tuple(read_run(RunDir(path)) for path in made_runs.iterdir())))
    assert monitor.look(store) == []


async def test_a_run_that_dies_while_i_look_is_a_notification(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        run = RunDir(one(runs, "fff001"))
        synthetic.set_status(run, Spec(now_step=420, state="running", pid=0))
        await frames.until(pilot, lambda: "fff001 died" in frames.notified(dash))
        await frames.until(pilot, lambda: "† died" in frames.lines(dash)[2])
