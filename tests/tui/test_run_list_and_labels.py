"""The list of runs: columns, visible sort, hidden runs, tags and notes; the pages of charts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgcctl.tui.screens.labelled import give
from dgcctl.tui.state import chart_choice
from tests.tui import frames
from tests.tui.conftest import one
from tests.tui.frames import charts, lines, notified, press, settled, text
from tests.tui.test_run_screen import opened, ready


def row(dash, ending: str) -> str:
    return next(line for line in lines(dash) if ending in line)


async def test_a_row_tells_seed_lr_target_and_speed(made_runs: Path) -> None:
    async with frames.opened(made_runs, (132, 38)) as (dash, _):
        head = lines(dash)[1].split()
        assert head[:5] == ["state", "run", "progress", "epoch", "seed"]
        assert {"lr", "target", "images/s"} <= set(head)
        assert " 4 " in row(dash, "ccc001"), "its learning rate"
        assert "✓ 9±0.5" in row(dash, "aaa002")
        assert "422" in row(dash, "aaa002")
        assert "━" not in row(dash, "aaa002"), "a run that is done needs no bar"
        assert "━" in row(dash, "fff001")
        assert "█" not in text(dash)


async def test_the_sort_stands_over_its_column_and_can_be_reversed(made_runs: Path) -> None:
    async with frames.opened(made_runs, (132, 38)) as (dash, pilot):
        assert "age▲" in lines(dash)[1]
        for told in ("state▲", "run▲", "best▲", "progress▼", "lr▲", "seed▲", "images/s▼"):
            await press(pilot, ["o"])
            assert told in lines(dash)[1]
        first = lines(dash)[2]
        await press(pilot, ["O"])
        assert "images/s▲" in lines(dash)[1]
        assert first in lines(dash)[9]


async def test_h_hides_a_run_from_list_and_charts_and_shift_h_shows_it(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 40)) as (dash, pilot):
        await press(pilot, ["space", "up", "h"])
        assert "fff001" not in "".join(lines(dash)[1:10])
        assert "1 hidden" in lines(dash)[0]
        assert dash.screen.subject().endswith("eee001")
        assert [run.id[-6:] for run in dash.store.overlay(dash.screen.subject())] == ["eee001"]
        await press(pilot, ["H"])
        assert "fff001" in lines(dash)[2]
        await press(pilot, ["home", "h", "H"])
        assert "hidden" not in lines(dash)[0]
        assert "fff001" in lines(dash)[2]


async def test_h_on_a_run_takes_the_marked_ones_out_of_its_charts(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 40), open=("aaa001", "bbb001")) as (dash, pilot):
        await ready(pilot)
        assert {t.label for t in charts(dash)[0].spec.traces} == {"A", "D"}
        await press(pilot, ["h"])
        assert {t.label for t in charts(dash)[0].spec.traces} == {"A"}
        assert "alone" in lines(dash)[0]


async def test_tags_and_a_note_are_given_from_the_list_and_stand_there(runs: Path) -> None:
    async with frames.opened(runs, (160, 48)) as (dash, pilot):
        await press(pilot, ["T", *"paper best", "enter"])
        await press(pilot, ["N", *"as in table 2", "enter"])
        labels = json.loads((one(runs, "fff001") / "labels.json").read_text())
        assert labels["tags"] == ["paper", "best"]
        assert labels["note"] == "as in table 2"
        await frames.until(pilot, lambda: "paper best" in row(dash, "fff001"))
        await press(pilot, ["T", *"-best", "enter"])
        await frames.until(pilot, lambda: "best" not in row(dash, "fff001"))
        assert "#paper" in text(dash)
        await press(pilot, ["/", *"tag:paper", "enter"])
        assert "1/8" in lines(dash)[0]


async def test_a_tag_that_cannot_be_is_refused_and_escape_leaves_the_field(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["T", *"a;b", "enter"])
        assert "tag 'a;b': should be at most 64 letters" in notified(dash)
        assert not (one(runs, "fff001") / "labels.json").exists()
        await press(pilot, ["N", *"half", "escape", "down"])
        assert dash.screen.subject().endswith("eee001"), "the list has the keys again"
        assert not (one(runs, "fff001") / "labels.json").exists()


async def test_a_readonly_dashboard_gives_no_labels(runs: Path) -> None:
    async with frames.opened(runs, readonly=True) as (dash, pilot):
        await press(pilot, ["T", *"x", "enter"])
        assert dash.focused is not None
        assert dash.focused.id == "runs" or dash.screen.name_for_files == "run"
        assert not list(runs.glob("*/labels.json"))


def test_a_note_that_is_empty_is_taken_away(runs: Path) -> None:
    from dgc.run.paths import RunDir

    run = RunDir(one(runs, "aaa001"))
    assert give(run, "note", " x ") == "note kept"
    assert give(run, "note", "  ") == "no note"
    assert give(run, "tags", "a, b") == "tags: a b"
    assert give(run, "tags", "-a -b") == "no tags"
    assert not run.file("labels.json").exists()


# --- charts ---------------------------------------------------------------------------------------


async def test_the_list_shows_the_error_beside_the_loss(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 40)) as (dash, _):
        assert [found.spec.title for found in charts(dash)] == ["top-1 error", "loss"]
        assert charts(dash)[0].spec.target == 9.0


async def test_slash_chooses_charts_and_brackets_turn_pages(made_runs: Path) -> None:
    async with opened(made_runs, size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        assert "charts 1-4 of 19: [ ]" in lines(dash)[0]
        await press(pilot, ["]"])
        assert "charts 5-8 of 19" in lines(dash)[0]
        await press(pilot, ["[", "/", *"loss !train", "enter"])
        assert [found.spec.title for found in charts(dash)] == ["loss", "eval.loss"]
        assert "charts with 'loss !train'" in lines(dash)[0]
        await press(pilot, ["escape"])
        assert "charts 1-4 of 19" in lines(dash)[0]
        await press(pilot, ["/", *"nothing of this", "enter"])
        assert "no chart has 'nothing of this'" in text(dash)


async def test_b_puts_more_or_fewer_charts_on_a_page(made_runs: Path) -> None:
    async with opened(made_runs, size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        seen = []
        for _ in range(7):
            seen.append(len(charts(dash)))
            await press(pilot, ["b"])
        assert seen == [4, 1, 2, 4, 6, 9, 12]


@pytest.mark.parametrize(
    ("name", "word", "held"),
    [
        ("step.loss", "loss", True),
        ("step.loss", "LOSS step", True),
        ("step.loss", "lr|loss", True),
        ("step.loss", "!loss", False),
        ("step.loss", "step !lr", True),
        ("step.lr", "step.*", True),
        ("eval.loss", "step.*", False),
        ("step.lr", "learning", True),
        ("step.lr", "!", True),
        ("step.lr", "|", True),
    ],
)
def test_words_choose_metrics(name: str, word: str, held: bool) -> None:
    assert chart_choice.matches(name, word) is held


async def test_u_shows_the_history_of_cpu_gpu_and_memory(made_runs: Path) -> None:
    async with opened(made_runs, "fff001", size=(160, 48)) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["u"])
        titles = [found.spec.title for found in charts(dash)]
        assert titles[:3] == ["CPU %", "memory, peak bytes", "waiting for images, ms"]
        assert "CPU % of a core, now" in titles
        cpu = charts(dash)[0].spec.traces[-1]
        assert len(cpu.x) == 21, "from the log, and so from the run's start"
        now = next(found for found in charts(dash) if found.spec.title == "CPU % of a core, now")
        assert now.spec.traces[-1].y.tolist() == [183.0]
        assert now.spec.traces[-1].x.tolist() == [420.0]


# --- log ------------------------------------------------------------------------------------------


async def test_the_log_says_whether_it_follows_and_shows_what_was_looked_for(runs: Path) -> None:
    async with opened(runs, size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["l"])
        assert "follows the end" in text(dash)
        await press(pilot, ["up"])
        assert "stands still: F follows" in text(dash)
        with (one(runs, "aaa001") / "log.txt").open("a") as file:
            file.write("a last line\n")
        await press(pilot, ["F"])
        await settled(pilot)
        assert "follows the end" in text(dash)
        await press(pilot, ["/", *"LOSS", "enter"])
        styles = [
            segment.style
            for strip in dash.screen._compositor.render_strips()
            for segment in strip
            if segment.text == "loss"
        ]
        assert styles
        assert any(style is not None and style.bgcolor is not None for style in styles)


# --- small screens ---------------------------------------------------------------------------------


async def test_a_window_of_40_by_10_is_used_and_a_smaller_one_said_to_be_too_small(
    made_runs: Path,
) -> None:
    async with frames.opened(made_runs, (40, 10)) as (dash, pilot):
        assert "▶ running" in text(dash)
        assert "fff001" in text(dash)
        await press(pilot, ["enter"])
        await ready(pilot)
        assert len(charts(dash)) == 1
        assert "•" in text(dash)
        assert " 70%" in lines(dash)[1]
        await pilot.resize_terminal(39, 9)
        await settled(pilot)
        assert "too small: 39x9" in text(dash)
        assert "•" not in text(dash)
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert "too small" not in text(dash)
        assert dash.focused is not None
        assert dash.focused.id == "chart0", "what lay below kept its place"


async def test_the_last_line_names_what_there_is_room_for(made_runs: Path) -> None:
    async with frames.opened(made_runs, (200, 40)) as (dash, _):
        last = lines(dash)[-1]
        for name in ("New run", "Gates", "Group", "Sort", "Hide", "Tag", "Note"):
            assert name in last
