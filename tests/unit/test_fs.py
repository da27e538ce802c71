"""Durable writing: the old bytes or the new ones, whole; and one line where the disk refuses."""

import errno
import os
import tracemalloc

import pytest

from dgc.errors import ExitCode, IntegrityError, ResourceError
from dgc.run.files import (
    CrashPoints,
    atomic_write,
    free_bytes,
    read_bounded,
    remove_tree,
    temporary_name,
)


def test_replaces_whole(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_refused_write_leaves_the_old_file(call, tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def refuse(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(
            ResourceError,
            match=r"file: cannot write 4 bytes \(No space left on device; [\d,]+ bytes free\)",
        ) as caught:
            atomic_write(path, b"new!")
    assert caught.value.exit_code == ExitCode.RESOURCES
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:3])))
    atomic_write(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "absent" / "file", b"x")


def test_crash_points_count(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    point = CrashPoints("here:3")
    for name in ("here", "there", "here", "here", "here"):
        point(name)
    assert killed == [(os.getpid(), 9)]
    CrashPoints()("here")
    assert len(killed) == 1


def test_free_bytes_asks_the_nearest_folder_that_exists(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.5)
    assert free_bytes(tmp_path) > 0


def test_remove_tree_takes_links_not_their_targets(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "absent")
    assert (tmp_path / "target" / "file").exists()
    assert not (tmp_path / "link").exists()
    assert temporary_name("x") == f".tmp-{os.getpid()}-x"


def test_a_small_record_is_read_with_little_memory(tmp_path):
    """A process that is told that memory is out still reads who holds its lock."""
    path = tmp_path / "lock"
    path.write_bytes(b"{}" * 50)
    tracemalloc.start()
    try:
        assert read_bounded(path) == b"{}" * 50
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(IntegrityError, match="larger than 99 bytes"):
        read_bounded(path, 99)
