"""Row 35: an event log that is cut anywhere, damaged, replaced or torn between two writers."""

import io
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgc.run import events as log
from dgc.run.events import (
    EventKind,
    EventReader,
    EventWriter,
    decode_event,
    encode_event,
    live_rows,
    read_events,
)
from dgc.run.paths import RunDir
from tests.waiting import wait_for_all


def step(number, **fields):
    return {"step": number, "loss": 2.0 / number, "epoch": 0, **fields}


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def sample_log():
    """A small log with every hard value: a newline inside a text, unicode, NaN, infinity."""
    events = [
        (EventKind.START, {"recipe": "a" * 64, "steps": 9, "epochs": 1}),
        (
            EventKind.ALERT,
            {"level": "warning", "text": 'line one\nline two\u2028 {"crc":"00000000"}'},
        ),
        (EventKind.STEP, step(1)),
        (EventKind.STEP, step(2, loss=math.nan, gate_l1=-math.inf)),
        (EventKind.EVAL, {"step": 2, "epoch": 0, "split": "val", "top1_error": 61.25}),
        (EventKind.END, {"state": "done", "reason": "", "step": 2}),
    ]
    return [
        encode_event(kind, fields, now=float(index)) for index, (kind, fields) in enumerate(events)
    ]


def test_cut_at_every_byte_the_reader_returns_exactly_the_complete_prefix(run, fault_table):
    lines = sample_log()
    whole = b"".join(lines)
    expected = [decode_event(line[:-1]) for line in lines]
    assert None not in expected
    ends = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    with fault_table.case(
        35, "log cut at every byte: the complete prefix, nothing skipped"
    ) as case:
        for size in range(len(whole) + 1):
            with case.run():
                run.events.write_bytes(whole[:size])
                reader = EventReader(run.events)
                complete = sum(end <= size for end in ends) - 1
                assert reader.poll() == expected[:complete], size
                assert reader.skipped == [], size
                assert reader.offset == ends[complete], size


def test_cut_at_every_byte_and_written_on_no_event_is_lost_or_doubled(run, fault_table):
    """The same reader follows: first up to the cut, then the rest."""
    lines = sample_log()
    whole = b"".join(lines)
    expected = [decode_event(line[:-1]) for line in lines]
    with fault_table.case(35, "log followed over a cut at every byte") as case:
        for size in range(len(whole) + 1):
            with case.run():
                run.events.write_bytes(whole[:size])
                reader = EventReader(run.events)
                events = reader.poll()
                with run.events.open("ab") as file:
                    file.write(whole[size:])
                assert events + reader.poll() == expected
                assert not reader.restarted


def test_writer_cuts_a_torn_tail_at_every_byte_and_goes_on(run, fault_table):
    lines = sample_log()
    whole = b"".join(lines)
    last = len(whole) - len(lines[-1])
    with fault_table.case(35, "torn last line at every byte, then the next writer appends") as case:
        for size in range(last, len(whole)):
            with case.run():
                run.events.write_bytes(whole[:size])
                writer = EventWriter(run)
                writer.append(EventKind.ALERT, level="info", text="after")
                writer.close()
                events = read_events(run)
                assert [event["kind"] for event in events] == [
                    "start",
                    "alert",
                    "step",
                    "step",
                    "eval",
                    "alert",
                ]
                assert events[-1]["text"] == "after"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_one_changed_byte_costs_at_most_the_lines_it_stands_in(tmp_path_factory, data):
    lines = sample_log()
    whole = bytearray(b"".join(lines))
    position = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[position]))
    whole[position] = value
    run = RunDir(tmp_path_factory.mktemp("log"))
    run.events.write_bytes(bytes(whole))
    reader = EventReader(run.events)
    events = reader.poll()
    expected = [decode_event(line[:-1]) for line in lines]
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    hit = sum(end <= position for end in ends)
    joined = 2 if position == ends[hit] - 1 else 1  # the newline itself: two lines become one
    survivors = expected[:hit] + expected[hit + joined :]
    assert events == survivors
    assert reader.skipped or joined == 2


GARBAGE = {
    "text": b"Traceback (most recent call last):\n",
    "NaN literal": b'{"kind":"step","step":3,"loss":NaN,"t":1.0}\n',
    "valid JSON without checksum": b'{"kind":"step","step":3,"t":1.0}\n',
    "binary": bytes(range(256)).replace(b"\n", b"") + b"\n",
    "empty line": b"\n",
    "a list": b"[1, 2]\n",
    "carriage returns": b"progress 10%\rprogress 20%\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_in_the_middle_is_skipped_and_its_offset_kept(run, name, fault_table):
    first, second = encode_event(EventKind.STEP, step(1)), encode_event(EventKind.STEP, step(2))
    with (
        fault_table.case(35, "garbage line in the middle: skipped, offset named") as case,
        case.run(),
    ):
        run.events.write_bytes(first + GARBAGE[name] + second)
        reader = EventReader(run.events)
        assert [event["step"] for event in reader.poll()] == [1, 2]
        assert reader.skipped[0] == len(first)
        assert all(
            len(first) <= offset < len(first) + len(GARBAGE[name]) for offset in reader.skipped
        )


def test_a_copied_line_with_an_edited_number_is_refused(run):
    line = encode_event(EventKind.STEP, step(1))
    run.events.write_bytes(line.replace(b'"loss":2.0', b'"loss":1.0'))
    reader = EventReader(run.events)
    assert reader.poll() == []
    assert reader.skipped == [0]


def test_nan_is_null_and_named(run):
    run.events.write_bytes(encode_event(EventKind.STEP, step(1, loss=math.nan)))
    assert b"NaN" not in run.events.read_bytes()
    (event,) = read_events(run)
    assert event["loss"] is None
    assert event["nonfinite"] == {"loss": "nan"}


def test_log_truncated_replaced_or_deleted_while_it_is_read(run, fault_table):
    lines = [encode_event(EventKind.STEP, step(number)) for number in (1, 2, 3)]
    with (
        fault_table.case(35, "log truncated, replaced, deleted while it is read") as case,
        case.run(),
    ):
        run.events.write_bytes(b"".join(lines))
        reader = EventReader(run.events)
        assert len(reader.poll()) == 3
        os.truncate(run.events, len(lines[0]))
        assert [event["step"] for event in reader.poll()] == [1]
        assert reader.restarted
        other = run.file("other")
        other.write_bytes(lines[2] + lines[1])
        other.replace(run.events)
        assert [event["step"] for event in reader.poll()] == [3, 2]
        assert reader.restarted
        run.events.unlink()
        assert reader.poll() == []


def test_unknown_kinds_pass_and_replayed_rows_are_dropped(run):
    events = [
        encode_event("from_the_future", {"step": 1, "what": "ever"}),
        *(encode_event(EventKind.STEP, step(number)) for number in (1, 2, 3)),
        encode_event(EventKind.RESUME, {"step": 1, "exact": True}),
        *(encode_event(EventKind.STEP, step(number)) for number in (2, 3)),
    ]
    run.events.write_bytes(b"".join(events))
    assert [row["step"] for row in live_rows(read_events(run))] == [1, 2, 3]


WRITER = """
import sys
from pathlib import Path
from dgc.run.events import EventWriter
from dgc.run.paths import RunDir
writer = EventWriter(RunDir(Path(sys.argv[1])))
for number in range(int(sys.argv[3])):
    writer.append("alert", level="info", who=sys.argv[2], number=number, text="x" * (number % 500))
"""


def test_two_writers_tear_no_line(run, fault_table):
    count = 20_000
    with (
        fault_table.case(35, "2 processes append 20,000 lines each: none torn") as case,
        case.run(),
    ):
        command = [sys.executable, "-c", WRITER, str(run.path)]
        writers = [subprocess.Popen([*command, who, str(count)]) for who in "ab"]
        wait_for_all(writers)
        reader = EventReader(run.events)
        events = reader.poll()
        while reader.behind:
            events += reader.poll()
        assert reader.skipped == []
        for who in "ab":
            assert [event["number"] for event in events if event["who"] == who] == list(
                range(count)
            )


def test_a_huge_log_is_read_in_pieces(run, monkeypatch, fault_table):
    """What is shown of a log that grew by 100 MB between two looks must not freeze the reader: one
    chunk a poll.
    """
    line = encode_event(EventKind.STEP, step(1, text="x" * 900))
    with fault_table.case(35, "100 MB log: one poll reads at most one chunk") as case, case.run():
        with run.events.open("wb") as file:
            for _ in range(100):
                file.write(line * (1_000_000 // len(line)))
        reader = EventReader(run.events, chunk=1 << 20)
        read: list[int] = []

        class Counted(io.FileIO):
            def read(self, size=-1):
                data = super().read(size)
                read.append(len(data))
                return data

        with monkeypatch.context() as patch:
            patch.setattr(log, "open_regular", Counted)
            events = reader.poll()
        assert sum(read) == 1 << 20
        assert 0 < len(events) <= (1 << 20) / len(line)
        assert reader.behind


def test_every_size_of_chunk_reads_the_whole_log(run):
    """The end of a log that is no multiple of the chunk is read too, and a line longer than a chunk
    stops nobody.
    """
    lines = sample_log()
    run.events.write_bytes(b"".join(lines) + b"y" * 3000 + b"\n" + lines[2])
    for chunk in (700, 1000, 1 << 20):
        reader = EventReader(run.events, chunk=chunk)
        events = reader.poll()
        while reader.behind:
            events += reader.poll()
        assert [event["kind"] for event in events] == [
            "start",
            "alert",
            "step",
            "step",
            "eval",
            "end",
            "step",
        ]
        assert reader.skipped
