"""What a run's log becomes: columns that grow, void rows dropped, damage counted."""

from pathlib import Path

import numpy as np

from dgc.run.events import EventKind, encode_event, live_rows, read_events
from dgc.run.paths import RunDir
from dgcctl.tui.state.feed import Feed, Follower
from dgcctl.tui.state.poller import Catalogue, Poller
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import View
from tests.tui import synthetic
from tests.tui.synthetic import Spec


def read(run: RunDir) -> tuple[Feed, Follower]:
    feed, follower = Feed(run), Follower(run)
    drain(feed, follower)
    return feed, follower


def drain(feed: Feed, follower: Follower) -> int:
    count = 0
    while (batch := follower.poll()) is not None:
        feed.apply(batch)
        count += 1
    return count


def test_a_metric_is_found_by_kind_and_name_with_its_steps_and_times(tmp_path: Path) -> None:
    spec = Spec(now_step=200)
    feed, _ = read(synthetic.make(tmp_path, spec))
    points = feed.points("step.loss")
    assert points.step.tolist() == list(range(1, 201))
    np.testing.assert_allclose(
        points.value, [synthetic.loss_at(spec, step) for step in range(1, 201)]
    )
    assert points.seconds[-1] == 200 * spec.step_seconds
    assert len(feed.points("eval.top1_error")) == 2
    assert feed.steps_per_epoch == 100


def test_an_unchanged_log_is_not_read_again(tmp_path: Path) -> None:
    feed, follower = read(synthetic.make(tmp_path, Spec(now_step=50)))
    version = feed.version
    assert follower.poll() is None
    assert feed.version == version


def test_what_is_appended_is_what_comes(tmp_path: Path) -> None:
    spec = Spec(now_step=100, state="running")
    run = synthetic.make(tmp_path, spec)
    feed, follower = read(run)
    synthetic.advance(run, spec, 150)
    assert drain(feed, follower) == 1
    assert feed.last_step == 150


def test_a_resume_voids_the_rows_that_it_replays_as_live_rows_does(tmp_path: Path) -> None:
    spec = Spec(now_step=130, state="running")
    run = synthetic.make(tmp_path, spec)
    with run.events.open("ab") as file:
        file.write(encode_event(EventKind.RESUME, {"step": 100, "exact": True}))
    synthetic.advance(run, Spec(now_step=100, state="running"), 140)
    feed, _ = read(run)
    rows = [row for row in live_rows(read_events(run)) if row["kind"] == EventKind.STEP]
    points = feed.points("step.loss")
    assert points.step.tolist() == [row["step"] for row in rows] == list(range(1, 141))
    assert points.value.tolist() == [row["loss"] for row in rows]


def test_a_metric_that_appears_late_keeps_its_own_steps(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    rows = [
        {"step": step, "loss": 1.0, **({"extra": 5.0} if step == 3 else {})} for step in range(1, 6)
    ]
    run.events.write_bytes(
        b"".join(encode_event(EventKind.STEP, row, now=float(row["step"])) for row in rows)
    )
    feed, _ = read(run)
    assert feed.points("step.extra").step.tolist() == [3]
    assert feed.names() == ["step.loss", "step.extra"]


def test_nan_and_infinity_come_back_from_null_and_flag(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.events.write_bytes(
        b"".join(
            encode_event(EventKind.STEP, {"step": step, "loss": value})
            for step, value in ((1, 1.0), (2, float("nan")), (3, float("inf")))
        )
    )
    feed, _ = read(run)
    values = feed.points("step.loss").value
    assert np.isnan(values[1])
    assert np.isposinf(values[2])


def test_an_empty_log_is_told_once_so_that_nobody_waits_for_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.events.touch()
    follower = Follower(run)
    batch = follower.poll()
    assert batch is not None
    assert batch.caught_up
    assert follower.poll() is None


def test_a_long_log_comes_in_chunks_so_that_the_screen_stays_awake(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    synthetic.fast_steps(run, 20_000)
    feed, follower = Feed(run), Follower(run)
    assert drain(feed, follower) > 3
    assert feed.caught_up
    assert len(feed.points("step.loss")) == 20_000


def test_a_clock_that_was_set_back_does_not_bend_the_time_axis(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    times = [100.0, 110.0, 50.0, 60.0, 120.0]
    run.events.write_bytes(
        b"".join(
            encode_event(EventKind.STEP, {"step": n, "loss": 1.0}, now=t)
            for n, t in enumerate(times)
        )
    )
    feed, _ = read(run)
    assert feed.points("step.loss").seconds.tolist() == [0, 10, 10, 10, 20]


def test_a_log_that_is_left_and_looked_at_again_is_read_once(made_runs: Path) -> None:
    store = Store(View())
    poller = Poller(
        Catalogue(made_runs),
        store.take,
        interval=0,
        sample=lambda pid: None,
        free_bytes=lambda path: 1 << 40,
    )
    poller.tick(0)
    run = next(run for run in store.runs.values() if run.state == "done")
    for watched in ([run.dir], [], [run.dir]):
        poller.watch(watched)
        while poller.tick(0):
            pass
    assert len(store.feed(run.id).points("step.loss")) == run.status.steps
