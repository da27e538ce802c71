"""The run directory's format: what is written can be read, what is not understood is refused in
words.
"""

import json
import math
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dgc.errors import IntegrityError
from dgc.run.events import (
    METRIC_KINDS,
    EventKind,
    EventWriter,
    decode_event,
    encode_event,
    live_rows,
    metric_digest,
    read_events,
)
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir, create_run
from dgc.run.status import State, Status, inferred_state, read_status, write_status


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


def write(run: RunDir, *events: tuple[str, dict[str, object]]) -> None:
    writer = EventWriter(run)
    for kind, fields in events:
        writer.append(kind, **fields)
    writer.close()


def test_create_run_names_it(tmp_path):
    first, second = (create_run(tmp_path / "runs", "demo") for _ in range(2))
    assert first.path != second.path
    assert "-demo-" in first.id
    assert first.path.is_dir()


def test_nan_is_null_plus_a_flag(run):
    write(run, ("step", {"step": 1, "loss": math.nan, "error": math.inf}))
    line = run.events.read_bytes().decode()
    assert "NaN" not in line
    assert json.loads(line)["loss"] is None
    assert json.loads(line)["nonfinite"] == {"loss": "nan", "error": "inf"}


def test_a_changed_byte_is_noticed():
    line = encode_event("step", {"step": 12}, now=1.0).rstrip(b"\n")
    assert decode_event(line) == {
        "kind": "step",
        "step": 12,
        "t": 1.0,
        "crc": json.loads(line)["crc"],
    }
    for place in range(len(line)):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        assert decode_event(changed) is None


def test_torn_tail_is_cut_off_when_opened_again(run):
    write(run, ("alert", {"text": "whole"}))
    with run.events.open("ab") as file:
        file.write(b'{"kind":"ste')
    write(run, ("alert", {"text": "after"}))
    assert [event["text"] for event in read_events(run)] == ["whole", "after"]


ROWS = [("step", {"step": step}) for step in range(1, 5)]


def steps_and_kinds(run: RunDir) -> list[tuple[int, str]]:
    return [(row["step"], row["kind"]) for row in live_rows(read_events(run))]


def test_rows_that_a_resume_replays_count_once(run):
    write(run, *ROWS, ("resume", {"step": 2, "closed": True}), *ROWS[2:], ("eval", {"step": 4}))
    assert steps_and_kinds(run) == [(1, "step"), (2, "step"), (3, "step"), (4, "step"), (4, "eval")]


@pytest.mark.parametrize("closed", [True, False])
def test_resume_at_the_end_of_an_epoch(closed, run):
    """At an open end the epoch's rows come again; at a closed one they stand."""
    end = [("epoch", {"step": 4}), ("eval", {"step": 4})]
    write(run, *ROWS, *end, ("resume", {"step": 4, "closed": closed}), *([] if closed else end))
    assert steps_and_kinds(run)[4:] == [(4, "epoch"), (4, "eval")]


def test_metric_digest_knows_no_clock_and_no_replay(run, tmp_path):
    write(run, *ROWS)
    other = RunDir(tmp_path / "other")
    other.path.mkdir()
    write(other, *ROWS[:3], ("perf", {"step": 3}), ("resume", {"step": 1}), *ROWS[1:])
    digest = metric_digest(read_events(run))
    assert digest == metric_digest(read_events(other))
    write(other, ("step", {"step": 5}))
    assert digest != metric_digest(read_events(other))


def test_status_round_trip_and_inferred_state(run):
    status = Status(state=State.RUNNING, step=3, steps=9, note="not exact")
    write_status(run, status)
    assert read_status(run) == status
    assert inferred_state(status) is State.RUNNING
    assert inferred_state(replace(status, pid=4194304)) is State.DIED
    assert inferred_state(replace(status, boot="an earlier one")) is State.DIED
    assert inferred_state(replace(status, start_token=status.start_token - 100)) is State.DIED
    elsewhere = replace(status, host="another", pid=4194304)
    assert inferred_state(elsewhere) is State.RUNNING
    assert inferred_state(replace(elsewhere, heartbeat=time.time() - 61)) is State.DIED
    assert status.host == socket.gethostname()
    assert status.pid == os.getpid()


def test_newer_schema_is_refused(run):
    run.status.write_text('{"schema_version": 99}')
    with pytest.raises(
        IntegrityError,
        match="schema version 99 is newer than 1, the newest this release reads: upgrade",
    ):
        read_status(run)


@pytest.mark.parametrize(
    ("text", "told"), [("[1]", "holds a list where an object is expected"), ("{", "not valid JSON")]
)
def test_json_that_is_none(text, told, run):
    run.status.write_text(text)
    with pytest.raises(IntegrityError, match=told):
        read_json(run.status)


def test_unknown_keys_of_a_status_are_left_out(run):
    write_json(run.status, {"state": "done", "mood": "good"})
    assert read_status(run).state == State.DONE


def test_metric_kinds_are_the_reproducible_ones():
    assert {EventKind.STEP, EventKind.EPOCH, EventKind.EVAL} == METRIC_KINDS


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(),
    reason="elsewhere only the wall clock tells when a process began",
)
def test_a_wall_clock_that_is_set_kills_no_writer(monkeypatch):
    """Who is alive is asked of the clock that runs since the machine came up."""
    status = Status(state=State.RUNNING)
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) - 3600)
    assert inferred_state(status) is State.RUNNING
