"""Whatever stands where a file of a run is expected: it is neither waited for nor read without end."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dgc.errors import IntegrityError
from dgc.run import files
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from tests.tui import synthetic
from tests.waiting import GUARD

MEMORY = 3 << 30


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    short = os.open(path.parent, os.O_RDONLY)  # an address of a socket is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{short}/{path.name}")
    finally:
        os.close(short)


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE = {
    "pipe": _pipe,
    "folder": _folder,
    "zeros": _zeros,
    "socket": _socket,
    "endless": _endless,
}
strange = pytest.mark.parametrize("put", STRANGE.values(), ids=STRANGE)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(synthetic.make(tmp_path / "runs", synthetic.Spec()).path)


def replace(path: Path, put: Callable[[Path], None]) -> None:
    path.unlink(missing_ok=True)
    put(path)


def dgcctl(run: RunDir, *words: str) -> subprocess.CompletedProcess[str]:
    """A command over this run, which may use so much memory and no more."""
    return subprocess.run(
        [sys.executable, "-m", "dgcctl", *words, "--runs-dir", str(run.path.parent)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=GUARD,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


@strange
def test_what_is_no_file_is_said_to_be_unreadable(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    path = tmp_path / "there"
    put(path)
    with pytest.raises(IntegrityError, match="unreadable"):
        files.read_bounded(path)
    with pytest.raises(IntegrityError, match="unreadable"):
        read_json(path)


def test_an_absent_file_is_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_bounded(tmp_path / "absent")


@strange
def test_a_dashboard_over_a_run_without_files_ends(
    run: RunDir, put: Callable[[Path], None]
) -> None:
    for path in (run.status, run.recipe, run.events, run.log, run.metrics):
        replace(path, put)
    run.status.rename(run.path / "was")
    run.status.mkdir()
    for words in (("dash", "--once"), ("runs", "ls"), ("dash", "--once", "--size", "160x48")):
        done = dgcctl(run, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert "unreadable" in done.stdout


FILES = (
    ("status.json",),
    ("recipe.yaml",),
    ("events.jsonl", "log.txt", "metrics.json", "env.json", "model.json"),
)


@pytest.mark.parametrize("put", [_pipe, _zeros], ids=["pipe", "zeros"])
@pytest.mark.parametrize(
    "words", [("show",), ("tail",), ("tail", "--log"), ("verify",), ("export",)], ids=" ".join
)
def test_each_reader_ends_with_a_line(
    run: RunDir, words: tuple[str, ...], put: Callable[[Path], None]
) -> None:
    for names in FILES:
        kept = {
            run.file(name): run.file(name).read_bytes() for name in names if run.file(name).exists()
        }
        for path in kept:
            replace(path, put)
        more = [str(run.path.parent.parent / f"copy-{names[0]}")] if words == ("export",) else []
        done = dgcctl(run, "runs", words[0], str(run.path), *more, *words[1:])
        assert done.returncode in (0, 2, 4), (names, done)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 2, done.stderr
        for path, content in kept.items():
            path.unlink()
            path.write_bytes(content)
