"""Rows 10 and 11: archives that are damaged, cut, HTML or hostile; downloads that fail. Old data
stays.
"""

import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dgc.data import cifar
from dgc.data.archive import unpack
from dgc.errors import DataError, IntegrityError, UnsafeFileError
from tests.faults import tiny_cifar

ARCHIVE = "cifar-10-python.tar.gz"


def tree(folder):
    """Every path under a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def good(tmp_path):
    """The archive, apart from any data folder, and its Source."""
    path = tmp_path / "server" / ARCHIVE
    path.parent.mkdir()
    return path, tiny_cifar.pack(path)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "cifar10"


def replace_url(source, url):
    return replace(source, url=url)


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


BAD = {
    "one bit flipped": flipped,
    "cut at half": lambda data: data[: len(data) // 2],
    "a byte more": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "HTML": lambda data: b"<!DOCTYPE html><html>quota</html>",
}


def test_the_tiny_archive_is_read_like_the_real_one(good, root, fault_table):
    path, source = good
    root.mkdir(parents=True)
    (root / ARCHIVE).write_bytes(path.read_bytes())
    cifar.ensure(source, root, download=False)
    images, labels = cifar.load(source, root, train=True)
    assert (images.shape, images.dtype, labels.shape) == ((40, 32, 32, 3), np.uint8, (40,))
    first = pickle.loads(tiny_cifar.files()["data_batch_1"], encoding="latin1")
    assert np.array_equal(images[0, :, :, 0], first["data"][0, :1024].reshape(32, 32))
    assert labels[:8].tolist() == first["labels"]
    assert cifar.load(source, root, train=False)[0].shape == (8, 32, 32, 3)
    assert not list(root.glob(".tmp-*"))


@pytest.mark.parametrize("kind", BAD)
def test_bad_archive_is_refused_before_it_is_unpacked(kind, good, root, fault_table):
    path, source = good
    data = BAD[kind](path.read_bytes())
    root.mkdir(parents=True)
    (root / ARCHIVE).write_bytes(data)
    with (
        fault_table.case(
            10, "archive flipped, cut, HTML: both digests shown, nothing unpacked"
        ) as case,
        case.run(),
    ):
        with pytest.raises(IntegrityError) as caught:
            cifar.ensure(source, root, download=False)
        text = str(caught.value)
        assert caught.value.exit_code == 4
        for part in (
            f"expected {source.sha256} ({source.size:,} bytes), got ",
            f"({len(data):,} bytes)",
            ARCHIVE,
        ):
            assert part in text
        assert tree(root) == {ARCHIVE: data}


@pytest.mark.parametrize("kind", BAD)
def test_bad_download_keeps_the_old_data(kind, good, root, httpserver, fault_table):
    """`dgcctl data download` of a damaged set: the server sends rubbish, what was there stays."""
    path, source = good
    httpserver.expect_request(f"/{ARCHIVE}").respond_with_data(BAD[kind](path.read_bytes()))
    source = replace_url(source, httpserver.url_for(f"/{ARCHIVE}"))
    (root / source.folder).mkdir(parents=True)
    (root / source.folder / "data_batch_1").write_bytes(b"old and damaged")
    before = tree(root)
    with (
        fault_table.case(10, "bad download: old data kept, nothing left behind") as case,
        case.run(),
    ):
        with pytest.raises((IntegrityError, DataError)) as caught:
            cifar.ensure(source, root, download=True, repair=True)
        assert len(str(caught.value).splitlines()) == 1
        if kind != "empty":
            assert "sha256 mismatch: expected" in str(caught.value)
        assert {
            name: data for name, data in tree(root).items() if name != ".download.lock"
        } == before


def test_download_verifies_repairs_and_is_not_repeated(good, root, httpserver, fault_table, capfd):
    path, source = good
    httpserver.expect_request(f"/{ARCHIVE}").respond_with_data(path.read_bytes())
    source = replace_url(source, httpserver.url_for(f"/{ARCHIVE}"))
    with (
        fault_table.case(10, "download: progress, digest, repair of damaged files") as case,
        case.run(),
    ):
        cifar.ensure(source, root, download=True)
        assert "100%" in capfd.readouterr().err
        asked = len(httpserver.log)
        cifar.ensure(source, root, download=True, repair=True)
        assert len(httpserver.log) == asked
        broken = root / source.folder / "test_batch"
        whole = broken.read_bytes()
        broken.write_bytes(flipped(whole))
        with pytest.raises(
            IntegrityError,
            match=r"test_batch: md5 mismatch: expected \w{32}, got \w{32} .*: remove ",
        ):
            cifar.load(source, root, train=False)
        assert [name for name, _ in cifar.damaged(source, root)] == ["test_batch"]
        cifar.ensure(source, root, download=True, repair=True)
        assert broken.read_bytes() == whole
        assert not list(root.glob(".tmp-*"))


@pytest.mark.parametrize("way", ["offline", "off", "refused", "404"])
def test_absent_and_not_to_be_fetched_is_one_line_and_creates_nothing(
    way, good, tmp_path, httpserver, monkeypatch
):
    _, source = good
    url = {"refused": "http://127.0.0.1:9/x.tar.gz"}.get(way, httpserver.url_for("/nothing.tar.gz"))
    if way == "offline":
        monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    root = tmp_path / "new" / "deep" / "cifar10"
    with pytest.raises(DataError) as caught:
        cifar.ensure(replace_url(source, url), root, download=way != "off")
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert len(text.splitlines()) == 1
    for part in (str(root), "--data-dir FOLDER", "`dgcctl data download cifar10`"):
        assert part in text
    assert not (tmp_path / "new").exists()


def test_what_a_killed_download_left_is_cleared_and_a_living_ones_stays(good, root, fault_table):
    path, source = good
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        (root / f".tmp-{pid}-download").mkdir(parents=True)
        (root / f".tmp-{pid}-download" / ARCHIVE).write_bytes(b"half")
    (root / ARCHIVE).write_bytes(path.read_bytes())
    with (
        fault_table.case(
            10, "leftovers of a killed download: cleared; those of a living one stay"
        ) as case,
        case.run(),
    ):
        cifar.ensure(source, root, download=False)
        assert sorted(entry.name for entry in root.iterdir()) == sorted(
            [f".tmp-{os.getppid()}-download", ARCHIVE, source.folder]
        )


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("CANARY"),))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(
    protocol, good, root, tmp_path, monkeypatch, fault_table
):
    """Even with the right digest: the reader knows arrays only."""
    monkeypatch.chdir(tmp_path)
    _, source = good
    data = pickle.dumps({"data": Malicious(), "labels": []}, protocol=protocol)
    (root / source.folder).mkdir(parents=True)
    (root / source.folder / "test_batch").write_bytes(data)
    source = replace(source, test=(("test_batch", hashlib.md5(data).hexdigest()),))
    with fault_table.case(11, "pickle that would run code: refused") as case, case.run():
        with pytest.raises(
            UnsafeFileError, match=r"test_batch: refused: it needs \S+, which no array needs"
        ):
            cifar.load(source, root, train=False)
        assert not (tmp_path / "CANARY").exists()


# --- row 11 ---------------------------------------------------------------------------------------


def link(kind, target):
    def add(tar):
        info = tarfile.TarInfo("cifar-10-batches-py/evil")
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def named(name, data=b"evil"):
    def add(tar):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    return add


def device(tar):
    info = tarfile.TarInfo("cifar-10-batches-py/evil")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    tar.addfile(info)


def fifo(tar):
    info = tarfile.TarInfo("cifar-10-batches-py/evil")
    info.type = tarfile.FIFOTYPE
    tar.addfile(info)


def many(tar):
    for number in range(3_000):
        tar.addfile(tarfile.TarInfo(f"cifar-10-batches-py/evil{number}"))


def bomb(tar):
    """A member that says it holds 768 GiB: refused by its header, before a byte of it is read."""
    named("cifar-10-batches-py/evil0", bytes(4 << 20))(tar)
    info = tarfile.TarInfo("cifar-10-batches-py/evil1")
    info.size = 768 << 30
    # its header alone: tarfile 3.13 asks for all its bytes
    tar.fileobj.write(info.tobuf(tar.format))
    tar.offset += tarfile.BLOCKSIZE


HOSTILE = {
    "../x": (named("../evil"), "'../evil' leads outside the folder"),
    "deep ..": (named("cifar-10-batches-py/../../../evil"), "leads outside the folder"),
    "absolute": (named("/tmp/dgc-evil"), "'/tmp/dgc-evil' has an absolute name"),
    "windows absolute": (named("C:\\evil"), "has an absolute name"),
    "symlink outside": (
        link(tarfile.SYMTYPE, "/etc"),
        "'cifar-10-batches-py/evil' is a link (to '/etc')",
    ),
    "symlink inside": (link(tarfile.SYMTYPE, "data_batch_1"), "is a link (to 'data_batch_1')"),
    "hard link": (link(tarfile.LNKTYPE, "/etc/passwd"), "is a link (to '/etc/passwd')"),
    "device": (device, "is neither a file nor a folder"),
    "fifo": (fifo, "is neither a file nor a folder"),
    "3,000 entries": (many, "more than 1,000 members, from 'cifar-10-batches-py/evil"),
    "bomb": (
        bomb,
        "unpacks to more than 1,073,741,824 bytes, from member 'cifar-10-batches-py/evil1' on",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_refused_by_member(kind, good, root, tmp_path, fault_table):
    add, said = HOSTILE[kind]
    _, source = good
    root.mkdir(parents=True)
    archive = root / ARCHIVE
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        named("cifar-10-batches-py/data_batch_1", b"first, harmless")(tar)
        add(tar)
    before = tree(tmp_path)
    with (
        fault_table.case(
            11, "hostile member: refused by name, nothing outside, nothing kept"
        ) as case,
        case.run(),
    ):
        with pytest.raises(UnsafeFileError) as caught:
            cifar.ensure(tiny_cifar.described(source, archive), root, download=False)
        assert caught.value.exit_code == 5
        assert said in str(caught.value)
        assert str(archive) in str(caught.value)
        assert tree(tmp_path) == before
        assert not Path("/tmp/dgc-evil").exists()


def test_a_symlink_cannot_be_planted_for_the_next_member(tmp_path, fault_table):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        link(tarfile.SYMTYPE, str(outside))(tar)
        named("cifar-10-batches-py/evil/x")(tar)
    with (
        fault_table.case(
            11, "hostile member: refused by name, nothing outside, nothing kept"
        ) as case,
        case.run(),
    ):
        with pytest.raises(UnsafeFileError):
            unpack(archive, tmp_path / "in")
        assert list(outside.iterdir()) == []
        assert not (tmp_path / "in").exists()


def test_same_member_twice_does_not_overwrite(tmp_path, fault_table):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        named("x", b"first")(tar)
        named("x", b"second")(tar)
    with fault_table.case(11, "member twice: refused") as case, case.run():
        with pytest.raises(UnsafeFileError, match="member 'x' comes twice"):
            unpack(archive, tmp_path / "in")
        assert not (tmp_path / "in").exists()
