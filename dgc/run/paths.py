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

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def recipe_json(self) -> Path:
        return self.path / "recipe.json"

    @property
    def config(self) -> Path:
        """What a script says in the place of a recipe (dgc.run.script)."""
        return self.path / "config.json"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def git(self) -> Path:
        return self.path / "git.json"

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def model(self) -> Path:
        return self.path / "model.json"

    @property
    def own_code(self) -> Path:
        return self.path / "own_code.json"

    @property
    def own_code_copies(self) -> Path:
        return self.path / "own_code"

    @property
    def argv(self) -> Path:
        return self.path / "argv.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def gates(self) -> Path:
        return self.path / "gates"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.path / "last.json"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"


def create_run(runs: Path, recipe_name: str) -> RunDir:
    """Make `runs/<utc>-<recipe>-<id>/`, new and empty."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    # time for people, random letters for two that begin in one second
    run = RunDir(runs / f"{stamp}-{checked_name(recipe_name, 'name')}-{secrets.token_hex(3)}")
    run.path.mkdir(parents=True)
    return run
