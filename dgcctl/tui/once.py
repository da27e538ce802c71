"""One frame as plain text: for a pipe, a cron mail, a terminal that cannot be taken over."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from dgcctl.tui.app import DashApp
from dgcctl.tui.start_options import Options

PATIENCE = 20.0  # seconds after which a frame is shown with what has been read so far
_STEP = 0.05


def frame(options: Options, size: tuple[int, int]) -> str:
    """The first whole frame, `size` = (columns, lines), without colours; nothing is remembered."""
    return asyncio.run(_frame(DashApp(replace(options, state_dir=None)), size))


async def _frame(app: DashApp, size: tuple[int, int]) -> str:
    async with app.run_test(size=size) as pilot:
        for _ in range(int(PATIENCE / _STEP)):
            await pilot.pause(_STEP)
            if app.complete:
                break
        # What was read last is drawn a little later.
        await pilot.pause(3 * _STEP)
        return as_text(app)


def as_text(app: DashApp) -> str:
    """The frame that is on screen."""
    strips = app.screen._compositor.render_strips()
    lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
    return "\n".join(lines).rstrip() + "\n"
