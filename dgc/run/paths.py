"""A run's folder and the names of the files in it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from dgc.run.names import checked_name


@dataclass(frozen=True)
class RunDir:
    """Paths of one run. Making one touches nothing."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    def file(self, name: str) -> Path:
        return self.path / name

    recipe = property(lambda self: self.path / "recipe.yaml")
    env = property(lambda self: self.path / "env.json")
    git = property(lambda self: self.path / "git.json")
    data = property(lambda self: self.path / "data.json")
    model = property(lambda self: self.path / "model.json")
    argv = property(lambda self: self.path / "argv.json")
    status = property(lambda self: self.path / "status.json")
    events = property(lambda self: self.path / "events.jsonl")
    gates = property(lambda self: self.path / "gates")
    metrics = property(lambda self: self.path / "metrics.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    last = property(lambda self: self.path / "last.json")
    best = property(lambda self: self.path / "best.json")
    control = property(lambda self: self.path / "control")
    log = property(lambda self: self.path / "log.txt")
    verdict = property(lambda self: self.path / "verdict.json")


def create_run(runs: Path, recipe_name: str) -> RunDir:
    """Make `runs/<utc>-<recipe>-<id>/`, new and empty."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    run = RunDir(runs / f"{stamp}-{checked_name(recipe_name, 'name')}-{secrets.token_hex(3)}")
    run.path.mkdir(parents=True)
    return run
