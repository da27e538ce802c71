"""A launcher ends after its ranks have failed, also where torchrun waits for a machine that is gone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dgc.errors import ExitCode
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from dgc.train import launch_watch
from dgc.train.launch_watch import LauncherWatch, failure_since, rank_log
from tests.waiting import wait_for


def watched(
    monkeypatch: pytest.MonkeyPatch, children: list[set[int]], *, failed: bool
) -> tuple[list[list[int]], threading.Event]:
    """How the watch left, over looks that find `children`, the last of them for ever; and whether
    all of these were had.
    """
    monkeypatch.setattr(launch_watch, "PAUSE", 0.001)
    seen = threading.Event()
    rest = list(children)

    def look() -> set[int]:
        if len(rest) == 1:
            looks.append(1)
            if len(looks) > 20:
                seen.set()
            return rest[0]
        return rest.pop(0)

    looks: list[int] = []
    left: list[list[int]] = []
    monkeypatch.setattr(launch_watch, "ranks_of_children", look)
    with LauncherWatch(lambda rank: failed, left.append, seconds=0.0):
        wait_for(lambda: left or seen.is_set(), "the watch to look", by=None)
    return left, seen


def test_failed_ranks_that_are_gone_end_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, [set(), {2}, {2, 3}, set()], failed=True)[0] == [[2, 3]]


@pytest.mark.parametrize(
    ("children", "failed"),
    [([set(), {1}, set()], False), ([set()], True), ([{1}, {1}], True)],
    ids=["they ended well", "none was started yet", "one still runs"],
)
def test_all_else_is_torchruns_to_end(
    children: list[set[int]], failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, seen = watched(monkeypatch, children, failed=failed)
    assert left == []
    assert seen.is_set()


def test_who_has_failed_since_the_start(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    said = {1: "lost contact", 2: ""}
    began = time.time() - 1
    failed = failure_since(run, began, lambda rank: said[rank])
    rank_log(run, 1).parent.mkdir()
    for rank in (1, 2):
        rank_log(run, rank).write_text("[W] a warning of gloo\n")
    assert [failed(1), failed(2)] == [True, False], "a warning is no failure"
    assert not failure_since(run, time.time() + 60, lambda rank: said[rank])(1), "an older log"
    write_status(run, Status(state=State.FAILED, exit_code=int(ExitCode.RANK_DIED)))
    assert failed(2), "the first rank said so"
    assert not failure_since(run, time.time() + 60, lambda rank: said[rank])(2), "an older status"
