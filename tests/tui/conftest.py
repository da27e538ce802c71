"""Runs to look at: made once for tests that only read, anew for tests that change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tui import synthetic


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery; nobody writes into it."""
    folder = tmp_path_factory.mktemp("gallery") / "runs"
    synthetic.gallery(folder)
    return folder


@pytest.fixture
def runs(made_runs: Path, tmp_path: Path) -> Path:
    """A copy of the gallery that may be changed."""
    return shutil.copytree(made_runs, tmp_path / "runs")


def one(folder: Path, ending: str) -> Path:
    """The run directory whose id ends so."""
    return next(path for path in folder.iterdir() if path.name.endswith(ending))
