"""What the dashboard is started with. Everything that makes a frame differ from machine to machine
can be set here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dgc.recipe.load import recipes_dir, shipped_recipes
from dgc.run.files import free_bytes
from dgcctl.core import settings
from dgcctl.tui.state.clock import Clock
from dgcctl.tui.state.processes import Sample, Sampler


def shipped() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    return {name: recipes_dir() / f"{name}.yaml" for name in shipped_recipes()}


@dataclass(frozen=True)
class Options:
    """`open` names runs to open at once (ids, prefixes, paths, `latest`); `state_dir` None
    remembers nothing.
    """

    runs_dir: Path
    open: tuple[str, ...] = ()
    readonly: bool = False
    theme: str | None = None
    state_dir: Path | None = None
    keys_file: Path | None = None
    export_dir: Path = field(default_factory=Path.cwd)
    interval: float = 0.2
    clock: Clock = field(default_factory=Clock)
    tick: Callable[[], float] = time.monotonic  # when a key came, and since when a question stands
    recipes: Callable[[], dict[str, Path]] = shipped
    free_bytes: Callable[[Path], int] = free_bytes
    sample: Callable[[int], Sample | None] = field(default_factory=Sampler)


def default_state_dir() -> Path:
    """Where views are remembered: the cache folder, as for everything that may be deleted."""
    return settings.cache_dir() / "dash"
