"""Row 35: whatever happens to a log while it is shown, the dashboard lives, says what it skipped,
and stays quick.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from dgc.run.events import EventKind, EventReader, encode_event
from dgc.run.paths import RunDir
from dgcctl.tui.screens.run_screen import RunScreen
from dgcctl.tui.state.feed import Feed, Follower
from tests.tui import frames, synthetic
from tests.tui.frames import press, settled, text
from tests.tui.synthetic import Spec

CHUNK = 8 << 20  # what one look reads of a log at most


@pytest.fixture
def shown(tmp_path: Path) -> tuple[RunDir, Spec]:
    spec = Spec(now_step=120, state="running", pid=os.getpid())
    return synthetic.make(tmp_path / "runs", spec), spec


async def watched(run: RunDir, hurt: Callable[[], None], told: Callable[[str], bool]) -> None:
    """Open the run, hurt its log, see what is told, and use the dashboard as if nothing had been."""
    async with frames.opened(run.path.parent, frames.LARGE, open=(run.id,)) as (dash, pilot):
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
        await press(pilot, ["i", "0"])  # "0": values as they were logged, not smoothed
        hurt()
        await frames.until(pilot, lambda: told(text(dash)))
        assert run.events.name not in frames.opened_by_a_key(dash)
        await press(pilot, ["x", "plus", "l", "escape", "escape"])
        assert "runs  1/1" in text(dash)


def last(frame: str, loss: float) -> bool:
    """Whether a chart's title says this loss of a run (by its letter) as the last."""
    return re.search(rf"\b[A-Z] {loss}\b", frame) is not None


def append(run: RunDir, data: bytes) -> None:
    with run.events.open("ab") as file:
        file.write(data)


def test_a_log_cut_at_every_byte_shows_its_complete_lines(tmp_path: Path, fault_table) -> None:
    whole = b"".join(synthetic.event_lines(Spec(steps_per_epoch=4, epochs=1, now_step=4)))
    run = RunDir(tmp_path)
    with fault_table.case(35, "dashboard: log cut at every byte") as case:
        for cut in range(len(whole) + 1):
            with case.run():
                run.events.write_bytes(whole[:cut])
                feed, follower = Feed(run), Follower(run)
                while (batch := follower.poll()) is not None:
                    feed.apply(batch)
                complete = whole[:cut].count(b"\n")
                read = sum(table.step.size for table in feed.tables.values())
                others = bool(feed.start) + len(feed.gates) + len(feed.checkpoints) + bool(feed.end)
                assert read + others == complete
                assert feed.skipped == ()


async def test_a_garbage_line_in_the_middle_is_skipped_with_its_offset(shown, fault_table) -> None:
    run, spec = shown
    offset = run.events.stat().st_size

    def hurt() -> None:
        append(run, b'{"kind":"step","loss":1}garbage\n')
        synthetic.advance(run, spec, 140)

    with fault_table.case(35, "dashboard: garbage line in the middle") as case, case.run():
        await watched(
            run,
            hurt,
            lambda frame: f"1 line skipped (offset {offset})" in frame and "140/600" in frame,
        )


async def test_a_nan_literal_is_no_json_and_is_skipped_while_our_own_nan_is_shown(
    shown, fault_table
) -> None:
    run, _spec = shown

    def hurt() -> None:
        append(run, b'{"kind":"step","step":121,"loss":NaN}\n')
        append(run, encode_event(EventKind.STEP, {"step": 121, "loss": float("nan")}))
        append(run, encode_event(EventKind.STEP, {"step": 122, "loss": 0.7}))

    with fault_table.case(35, "dashboard: NaN literal, NaN as null and flag") as case, case.run():
        await watched(
            run, hurt, lambda frame: "1 line skipped" in frame and "✗" in frame and last(frame, 0.7)
        )


def test_json_and_orjson_disagree_on_nan_so_the_log_writes_neither() -> None:
    line = encode_event(EventKind.STEP, {"step": 1, "loss": float("nan")})
    assert b'"loss":null' in line
    assert b'"nonfinite":{"loss":"nan"}' in line
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(b'{"loss":NaN}')


async def test_a_last_line_without_its_newline_waits_for_it(shown, fault_table) -> None:
    run, _ = shown
    line = encode_event(EventKind.STEP, {"step": 121, "loss": 0.777})

    async with frames.opened(run.path.parent, frames.LARGE, open=(run.id,)) as (dash, pilot):
        with fault_table.case(35, "dashboard: missing newline") as case, case.run():
            await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
            await press(pilot, ["0"])
            append(run, line[:-1])
            await settled(pilot)
            assert "0.777" not in text(dash)
            append(run, b"\n")
            await frames.until(pilot, lambda: last(text(dash), 0.777))


async def test_a_log_that_is_cut_short_is_read_anew(shown, fault_table) -> None:
    run, _ = shown
    lines = run.events.read_bytes().splitlines(keepends=True)

    def hurt() -> None:
        os.truncate(run.events, sum(map(len, lines[:30])))

    with fault_table.case(35, "dashboard: log truncated while shown") as case, case.run():
        last = max(row["step"] for row in map(orjson.loads, lines[:30]) if row["kind"] == "step")
        await watched(run, hurt, lambda frame: f"step {last}" in frame)


async def test_a_log_that_is_replaced_is_read_anew(shown, fault_table) -> None:
    run, _spec = shown

    def hurt() -> None:
        other = run.path / "other"
        other.write_bytes(
            b"".join(synthetic.event_lines(Spec(now_step=300, state="running", final_error=20)))
        )
        os.replace(other, run.events)

    with fault_table.case(35, "dashboard: log replaced while shown") as case, case.run():
        await watched(run, hurt, lambda frame: "step 300" in frame)


async def test_a_log_that_is_deleted_leaves_what_was_read_on_screen(shown, fault_table) -> None:
    run, _spec = shown
    with fault_table.case(35, "dashboard: log deleted while shown") as case, case.run():
        await watched(run, run.events.unlink, lambda frame: "step 120" in frame)


async def test_a_folder_that_is_deleted_is_said_to_be_gone(shown, fault_table) -> None:
    run, _ = shown
    with fault_table.case(35, "dashboard: run folder deleted while shown") as case, case.run():
        async with frames.opened(run.path.parent, open=(run.id,)) as (dash, pilot):
            await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
            shutil.rmtree(run.path)
            await frames.until(pilot, lambda: "its folder is gone" in text(dash))
            await press(pilot, ["escape"])
            assert "runs  0/0" in text(dash)


async def test_a_log_that_becomes_two_gigabytes_while_shown_keeps_the_keys_quick(
    shown, fault_table, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = shown
    read: list[int] = []
    decode = EventReader._decode
    monkeypatch.setattr(
        EventReader, "_decode", lambda self, data: (read.append(len(data)), decode(self, data))[1]
    )
    with fault_table.case(35, "dashboard: log grows to 2 GB while shown") as case, case.run():
        async with frames.opened(run.path.parent, frames.LARGE, open=(run.id,)) as (dash, pilot):
            await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
            os.truncate(run.events, 2 << 30)  # sparse: no disk is used, every byte is read
            for _ in range(10):
                assert run.events.name not in frames.opened_by_a_key(dash)
                await pilot.pause(0.05)
            assert max(read) <= CHUNK
            assert "step 120/600" in text(dash)


NEWER = b'{"schema_version": 99}'


@pytest.mark.parametrize("damage", [NEWER, b"\x00\xff{", b""], ids=["newer", "garbage", "empty"])
async def test_records_of_a_newer_release_or_damaged_ones_break_no_screen(
    shown, damage: bytes, fault_table
) -> None:
    run, _ = shown
    with (
        fault_table.case(35, "dashboard: newer schema version, damaged records") as case,
        case.run(),
    ):
        async with frames.opened(run.path.parent, frames.LARGE) as (dash, pilot):
            for name in (
                "metrics.json",
                "recipe.yaml",
                "gates/epoch-0001.json",
                "model.json",
                "env.json",
                "last.json",
            ):
                run.file(name).write_bytes(damage)
            await press(pilot, ["enter", "i", "g"])
            assert "epoch-0001.json: " in text(dash)
            await press(pilot, ["escape", "escape"])
            assert "runs  1/1" in text(dash)


async def test_a_status_of_a_newer_release_is_said_to_be_newer(shown, fault_table) -> None:
    run, _ = shown
    with (
        fault_table.case(35, "dashboard: newer schema version, damaged records") as case,
        case.run(),
    ):
        async with frames.opened(run.path.parent, frames.LARGE) as (dash, pilot):
            run.status.write_bytes(NEWER)
            await frames.until(pilot, lambda: "? unreadable" in text(dash))
            assert "status.json: schema version 99 is newer than 1" in text(dash)
            await press(pilot, ["enter", "escape"])
            assert "runs  1/1" in text(dash)


def test_unknown_kinds_are_skipped_without_a_word(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.events.write_bytes(
        encode_event("hologram", {"step": 1})
        + encode_event(EventKind.STEP, {"step": 1, "loss": 1.0})
    )
    feed, follower = Feed(run), Follower(run)
    batch = follower.poll()
    assert batch is not None
    feed.apply(batch)
    assert feed.names() == ["step.loss"]
    assert feed.skipped == ()
    assert len(EventReader(run.events).poll()) == 2


async def test_the_line_of_an_error_is_the_notification(shown, fault_table) -> None:
    """I6: the dashboard shows the same line, and stays usable."""
    run, _spec = shown
    reason = "rank 1 killed by signal 9 at step 41 (log rank1.err)"

    def hurt() -> None:
        synthetic.set_status(run, Spec(now_step=120, state="failed", reason=reason))

    with (
        fault_table.case(35, "dashboard: the error line of a failed run is notified (I6)") as case,
        case.run(),
    ):
        await watched(run, hurt, lambda frame: frame.count(reason) >= 2)
