"""Every screen in every theme and size, by what stands on it and in which style.

No pictures are compared: any release of Textual would change them all. `make screenshots` makes
some to look at.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from dgcctl.tui import palette
from dgcctl.tui.app import DashApp
from tests.tui import frames
from tests.tui.screens import SCREENS, Screen

SIZES = {"80x24": frames.SMALL, "160x48": frames.LARGE}
THEMES = {"dark": palette.DARK, "light": palette.LIGHT, "plain": palette.PLAIN}
QUICK = {("80x24", "dark"), ("160x48", "light"), ("80x24", "plain")}
# what each screen says, in every size and theme
TOLD = {
    "runs": (
        "runs",
        "8/8",
        "▶ running",
        "† died",
        "■ stopped",
        "✗ failed",
        "✓ done",
        "●",
        "Filter",
    ),
    "runs-grouped": ("6 runs", "seeds 0-5", "±", "n=3", "1 run ", "none done"),
    "run": (
        "▶ running",
        "step 420/600",
        "top-1 error",
        "loss",
        "smooth 0.8",
        "▲ step",
        "target 9",
        "Log y",
    ),
    "run-failed": ("✗ failed", "loss is NaN at step 230", "✗", " log ", "log.txt", "loss 0.4826"),
    "run-metrics": (" metrics ", "step.loss", "perf.images_per_s", "600"),
    "run-usage": ("usage", "CPU %", "memory, peak bytes", "waiting for images, ms"),
    "run-filter": ("charts with 'loss'", "epoch.train_loss", "eval.loss"),
    "run-log-search": ("contain 'loss'", "follows the end"),
    "gates": (
        "gates",
        "active share",
        "head 0",
        "▸head 1",
        "promised",
        "executed",
        "channels left out %",
        "▲",
    ),
    "compare": ("compare 4 runs", "[figures]", "n=3", "top-1 error", "executed"),
    "compare-differences": ("[differences]", "model.form", "dgc", "dense"),
    "compare-scatter": ("[scatter]", "◆A", "top-1 error % against"),
    "recipes": ("recipes", "demo", "model.gate_factor", "key", "why"),
    "help": ("help", "Everywhere", "command palette", "ctrl+p"),
    "confirm": (
        "Stop 20260105T104500Z-demo_fashion-fff001?",
        "It finishes its step, saves and stops.",
        "Yes (y)",
    ),
}


def _marks(screen: Screen, size: str, theme: str) -> list[pytest.MarkDecorator]:
    quick = (size, theme) in QUICK and (screen.all_themes or theme == "dark")
    return [] if quick else [pytest.mark.slow]


CASES = [
    pytest.param(
        screen, size, theme, id=f"{screen.name}-{size}-{theme}", marks=_marks(screen, size, theme)
    )
    for screen in SCREENS
    for size in SIZES
    for theme in THEMES
]


def test_every_screen_is_looked_at() -> None:
    assert TOLD.keys() == {screen.name for screen in SCREENS}


@pytest.mark.parametrize(("screen", "size", "theme"), CASES)
async def test_a_screen_says_what_it_is_for(
    made_runs: Path, screen: Screen, size: str, theme: str
) -> None:
    dash = frames.app(made_runs, theme=THEMES[theme], open=screen.open)
    async with dash.run_test(size=SIZES[size]) as pilot:
        await screen.reach(dash, pilot, made_runs)
        shown = frames.lines(dash)
        text = "\n".join(shown)
        assert [told for told in TOLD[screen.name] if told not in text] == []
        assert len(shown) == SIZES[size][1]
        assert {cell_len(line) for line in shown} == {SIZES[size][0]}
        assert_theme(dash, theme)


def assert_theme(dash: DashApp, theme: str) -> None:
    """The head lies on the theme's panel, letters are light on dark or dark on light; plain has no
    colour at all.
    """
    styles = [
        segment.style
        for strip in dash.screen._compositor.render_strips()
        for segment in strip
        if segment.style and any(letter.isalnum() for letter in segment.text)
    ]
    colours = [
        colour for style in styles for colour in (style.color, style.bgcolor) if colour is not None
    ]
    if theme == "plain":
        assert [colour for colour in colours if not colour.is_default] == []
        return
    grounds = [
        sum(style.bgcolor.get_truecolor()) / 3 for style in styles if style.bgcolor is not None
    ]
    dark = sum(ground < 128 for ground in grounds)
    assert (dark > len(grounds) / 2) == (theme == "dark")
    for style in styles:
        if style.color is not None and style.bgcolor is not None:
            assert contrast(style.color.get_truecolor(), style.bgcolor.get_truecolor()) >= 1.2, (
                style
            )


def contrast(front: tuple[int, int, int], back: tuple[int, int, int]) -> float:
    """Ratio of relative luminances, as WCAG defines it."""
    light, dark = sorted((_luminance(front), _luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
