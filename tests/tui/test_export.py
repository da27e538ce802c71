"""`e`: what is on screen into files."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.style import Style

from dgcctl.tui import bitmap
from dgcctl.tui.screens.run_screen import RunScreen
from dgcctl.tui.state import comparison
from tests.tui import frames, synthetic
from tests.tui.frames import lines, press
from tests.waiting import GUARD


async def test_e_exports_the_numbers_and_the_frame(made_runs: Path, tmp_path: Path) -> None:
    async with frames.opened(made_runs, export_dir=tmp_path, open=("aaa001",)) as (dash, pilot):
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
        await press(pilot, ["e", "e"])
        await frames.until(pilot, lambda: frames.notified(dash).count("exported") == 2)
    tables, pictures, pixels = (
        sorted(tmp_path.glob(f"*.{kind}")) for kind in ("csv", "svg", "png")
    )
    assert len(tables) == len(pictures) == len(pixels) == 2
    head, *rows = tables[0].read_text().splitlines()
    assert head == "run,metric,step,value"
    loss = [row.split(",") for row in rows if ",step.loss," in row]
    assert len(loss) == 600
    assert float(loss[99][3]) == synthetic.loss_at(synthetic.Spec(final_error=8.1), 100)
    assert pictures[0].read_text().startswith("<svg")


async def test_the_png_holds_the_frame_cell_by_cell(made_runs: Path, tmp_path: Path) -> None:
    async with frames.opened(made_runs, export_dir=tmp_path, open=("aaa001",)) as (dash, pilot):
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
        frame, styles = lines(dash), cell_styles(dash)
        await press(pilot, ["e"])
        await frames.until(pilot, lambda: "exported" in frames.notified(dash))
    pixels = np.array(Image.open(next(tmp_path.glob("*.png"))))
    width, height = bitmap.Glyphs().cell
    assert pixels.shape == (24 * height, 80 * width, 3)
    for row, column in ((0, 1), (0, 0), (4, 0), (1, 12), (5, 13)):
        cell = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        found = {tuple(colour) for colour in cell.reshape(-1, 3).tolist()}
        front, back = bitmap.colours(styles[row][column], dash.ansi_theme)
        assert back in found
        assert (front in found) is not frame[row][column].isspace()


def test_a_braille_cell_has_its_dots_where_they_belong() -> None:
    glyphs = bitmap.Glyphs()
    width, height = glyphs.cell
    for bit, column, row in ((0, 0, 0), (3, 1, 0), (6, 0, 3), (7, 1, 3)):
        left, top, right, bottom = glyphs.mask(chr(0x2800 + (1 << bit)), False).getbbox()
        assert column * width / 2 <= left < right <= (column + 1) * width / 2
        assert row * height / 4 <= top < bottom <= (row + 1) * height / 4


def cell_styles(dash) -> list[list[Style]]:
    """The style of every cell of the frame."""
    strips = dash.screen._compositor.render_strips()
    return [[style or Style.null() for text, style, _ in strip for _ in text] for strip in strips]


async def test_an_export_folder_that_cannot_be_written_is_one_line(
    made_runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    async with frames.opened(made_runs, export_dir=tmp_path / "file" / "folder") as (dash, pilot):
        await press(pilot, ["e"])
        await frames.until(pilot, lambda: "cannot be written" in frames.notified(dash))


@pytest.mark.parametrize(
    "keys_pressed", [[], ["g"], ["n"], ["question_mark"], ["space", "space", "d"]]
)
async def test_every_screen_can_be_exported(
    made_runs: Path, tmp_path: Path, keys_pressed: list[str]
) -> None:
    async with frames.opened(made_runs, frames.LARGE, export_dir=tmp_path) as (dash, pilot):
        await press(pilot, keys_pressed)
        await frames.until(pilot, lambda: dash.front is not None and dash.front.loaded)
        await press(pilot, ["e"])
        await frames.until(pilot, lambda: "exported" in frames.notified(dash))
    rows = next(tmp_path.glob("*.csv")).read_text().splitlines()
    assert len(rows) > 2
    assert all(row.count(",") >= 2 for row in rows)


async def test_what_is_still_being_read_is_exported_when_it_is_there(
    made_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, may_read = comparison.read, threading.Event()
    monkeypatch.setattr(comparison, "read", lambda dirs: (may_read.wait(GUARD), read(dirs))[1])
    async with frames.opened(made_runs, frames.LARGE, export_dir=tmp_path) as (dash, pilot):
        for key in ("space", "space", "d", "e"):
            frames.type_key(dash, key)
        await frames.until(pilot, lambda: dash.hearing.waits)
        assert not list(tmp_path.iterdir())
        may_read.set()
        await frames.until(pilot, lambda: "exported" in frames.notified(dash))
    rows = next(tmp_path.glob("dash-compare-*.csv")).read_text().splitlines()
    assert len(rows) == 3, "the head and two runs"
