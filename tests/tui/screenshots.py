"""`make screenshots`: a picture of every screen into docs/screenshots, from made runs, the same on
every machine.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from dgcctl.tui import palette
from dgcctl.tui.start_options import shipped
from tests.tui import frames, synthetic
from tests.tui.screens import SCREENS, Screen

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SIZE = (132, 38)


async def take(screen: Screen, runs: Path, theme: str = palette.DARK) -> str:
    """One frame as SVG."""
    dash = frames.app(runs, theme=theme, open=screen.open, recipes=shipped)
    async with dash.run_test(size=SIZE) as pilot:
        await screen.reach(dash, pilot, runs)
        picture = dash.export_screenshot(title=f"dgcctl dash: {screen.name}")
    return re.sub(r"\bterminal-\d+-", "terminal-", picture)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        synthetic.gallery(runs)
        for screen in SCREENS:
            (folder / f"{screen.name}.svg").write_text(
                asyncio.run(take(screen, runs)), encoding="utf-8"
            )
        for theme in (palette.LIGHT, palette.PLAIN):
            run = next(screen for screen in SCREENS if screen.name == "run")
            name = theme.rpartition("-")[2]
            (folder / f"run-{name}.svg").write_text(
                asyncio.run(take(run, runs, theme)), encoding="utf-8"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
