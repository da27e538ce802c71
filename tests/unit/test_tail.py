"""Following a run that is being written."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from dgc.run.events import EventKind, EventWriter, encode_event
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from dgcctl.cli import main
from dgcctl.cli._ui import progress_line
from dgcctl.core.launch.log_tail import log_lines
from dgcctl.core.runs.tail import Progress, Tail, follow


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20260101T000000Z-demo-aaa111")
    run.path.mkdir()
    run.recipe.write_text("name: demo\n")
    write_status(run, Status(state=State.RUNNING))
    return run


def test_each_poll_returns_what_is_new(run: RunDir) -> None:
    tail = Tail(run)
    assert tail.poll().events == []
    log = EventWriter(run)
    log.append(EventKind.STEP, step=1)
    assert [event["step"] for event in tail.poll().events] == [1]
    log.append(EventKind.STEP, step=2)
    batch = tail.poll()
    assert [event["step"] for event in batch.events] == [2]
    assert not batch.over
    log.close()


def test_follow_ends_with_the_run_and_loses_nothing(run: RunDir) -> None:
    def write() -> None:
        log = EventWriter(run)
        for step in range(200):
            log.append(EventKind.STEP, step=step)
            time.sleep(0.001)
        write_status(run, Status(state=State.DONE))
        log.close()

    writer = threading.Thread(target=write)
    writer.start()
    steps = [event["step"] for batch in follow(Tail(run), interval=0.01) for event in batch.events]
    writer.join()
    assert steps == list(range(200))


def test_a_damaged_line_is_skipped_and_said_once(run: RunDir) -> None:
    good = encode_event(EventKind.STEP, {"step": 1})
    run.events.write_bytes(good + b"garbage\n" + good)
    tail = Tail(run)
    batch = tail.poll()
    assert len(batch.events) == 2
    assert batch.skipped == [len(good)]
    assert tail.poll().skipped == []


def test_a_log_that_was_replaced_is_read_anew(run: RunDir) -> None:
    run.events.write_bytes(
        encode_event(EventKind.STEP, {"step": 1}) + encode_event(EventKind.STEP, {"step": 2})
    )
    tail = Tail(run)
    tail.poll()
    run.events.write_bytes(encode_event(EventKind.STEP, {"step": 9}))
    batch = tail.poll()
    assert batch.restarted
    assert [event["step"] for event in batch.events] == [9]


def test_progress_keeps_the_last_of_everything() -> None:
    progress = Progress()
    assert not progress.seen
    progress.take(
        [
            {"kind": "start", "steps": 100, "epochs": 4, "world_size": 2},
            {
                "kind": "step",
                "step": 50,
                "epoch": 1,
                "progress": 0.5,
                "lr": 0.05,
                "loss": 1.5,
                "error": 40.0,
            },
            {
                "kind": "step",
                "step": 51,
                "epoch": 1,
                "progress": 0.51,
                "lr": 0.05,
                "loss": None,
                "error": 39.0,
            },
            {"kind": "perf", "images_per_s": 812.0, "eta_s": 61.0},
            {"kind": "eval", "top1_error": 33.0},
            {"kind": "something new"},
        ]
    )
    assert (progress.step, progress.loss, progress.error, progress.top1_error) == (
        51,
        1.5,
        39.0,
        33.0,
    )
    assert (
        progress_line.progress_line(progress, 0.25)
        == "epoch 2/4  step 51/100  loss 1.5000  error 39.0 %  lr 0.05  pruned 48 %  812 images/s "
        " ETA 1m01s"
    )


@pytest.mark.parametrize(
    ("at", "share"), [(0.0, 0.0), (1 / 12, 0.0), (5 / 12, 0.375), (0.75, 0.75), (1.0, 0.75)]
)
def test_the_share_that_is_pruned_follows_the_schedule(at: float, share: float) -> None:
    assert Progress(progress=at).pruned(0.25) == pytest.approx(share)


def test_the_line_of_a_dense_network_says_nothing_of_pruning() -> None:
    assert progress_line.progress_line(Progress(), None) == "starting: loading data and network ..."
    assert (
        progress_line.progress_line(Progress(epochs=1, steps=3, seen=True), None)
        == "epoch 1/1  step 0/3"
    )


def test_what_nobody_said_the_number_of_has_none() -> None:
    """A script need not say how many steps and epochs there will be."""
    progress = Progress(seen=True, step=1200)
    assert progress_line.progress_line(progress, None) == "step 1,200"
    assert progress_line.eval_line({"kind": "eval", "epoch": 3, "loss": 0.5}, progress) == (
        "epoch 3  top-1 error -  loss 0.5000"
    )


def test_the_last_lines_of_a_text_log(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert log_lines(path, 3) == []
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(200_000)) + b"\xff end\n")
    assert log_lines(path, 2) == ["line 199999", "\ufffd end"]
    assert log_lines(path, 0) == []


def test_runs_tail_prints_events_as_lines_and_as_json(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = [
        encode_event(EventKind.STEP, {"step": 1, "loss": float("nan"), "lr": 0.1}, now=3661.0),
        encode_event(EventKind.ALERT, {"level": "warning", "text": "slow"}, now=3662.0),
    ]
    run.events.write_bytes(b"".join(lines) + b"garbage\n")
    write_status(run, Status(state=State.DONE))
    assert main.main(["runs", "tail", str(run.path), "--follow"]) == 0
    said = capsys.readouterr()
    assert (
        said.out
        == "01:01:01  step        step 1  loss nan  lr 0.1\n01:01:02  alert       level warning "
        " text slow\n"
    )
    assert said.err == f"warning: 1 line skipped (offset {len(lines[0] + lines[1])})\n"
    assert main.main(["runs", "tail", str(run.path), "--json", "-n", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "slow"
    assert main.main(["runs", "tail", str(run.path), "-n", "0"]) == 0
    assert capsys.readouterr().out == ""
    run.log.write_text("one\ntwo\n")
    assert main.main(["runs", "tail", str(run.path), "--log", "-n", "1"]) == 0
    assert capsys.readouterr().out == "two\n"
