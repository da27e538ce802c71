"""Rows 13 to 20: hosts that lie, cut, change, log in, stall; and no wrong byte ever at the final
path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import torch

from dgc.errors import DgcError, IntegrityError, NetworkError
from dgc.hub.cache import Cache, PinFile
from dgc.hub.fetch import Fetched, FetchOptions, download, import_file
from dgc.hub.hosts import Bases
from dgc.hub.registry import MIB, ReleasedCheckpoint, find_entry
from dgc.hub.scan import inspect
from dgc.hub.transfer import Policy
from tests.faults import hosts as play
from tests.faults.conftest import FaultTable
from tests.waiting import GUARD

NAME = "cifar10_dydensenet86_h4"
ROOT = Path(__file__).parents[2]
FAST = Policy(attempts=5, backoff=0.001, connect=2.0, stall=0.3, stall_bytes=4096)


def checkpoint(seed: int, legacy: bool = True) -> bytes:
    buffer = io.BytesIO()
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(seed))
    torch.save(
        {"state_dict": {"module.w": weight}}, buffer, _use_new_zipfile_serialization=not legacy
    )
    return buffer.getvalue()


GOOD, OTHER = checkpoint(1), checkpoint(2)


class World:
    """One cache, one entry of the registry, both hosts."""

    def __init__(self, hosts: play.Hosts, folder: Path) -> None:
        self.hosts, self.cache = hosts, Cache(folder)
        self.entry = dataclasses.replace(find_entry(NAME), size_mib=len(GOOD) / MIB)
        self.said: list[str] = []
        hosts.drive, hosts.onedrive = [play.status(404)], [play.status(404)]

    @property
    def path(self) -> Path:
        return self.cache.file(self.entry.file)

    def fetch(self, entry: ReleasedCheckpoint | None = None, **changes: object) -> Fetched:
        bases = Bases(self.hosts.url, self.hosts.url)
        options = FetchOptions(bases=bases, policy=FAST, say=self.said.append, offline=False)
        return download(entry or self.entry, self.cache, dataclasses.replace(options, **changes))

    def holds(self, content: bytes) -> None:
        """The file is there, whole, and nothing else is left of the transfer."""
        assert self.path.read_bytes() == content
        assert not list(self.cache.folder.glob(".*.part*"))

    def is_empty(self) -> None:
        assert not self.path.exists()
        assert not list(self.cache.folder.glob("*.tar"))

    def fails(self, code: int, **changes: object) -> str:
        with pytest.raises(DgcError) as caught:
            self.fetch(**changes)
        line = str(caught.value)
        assert caught.value.exit_code == code, line
        assert "\n" not in line
        return line


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with play.running() as hosts:
        yield World(hosts, tmp_path / "cache")


def test_13_quota_page_then_the_mirror_gives_the_file(
    world: World, fault_table: FaultTable
) -> None:
    with fault_table.case("13", "quota page (200, HTML), mirror good") as case:
        for content_type in ("text/html; charset=utf-8", "application/octet-stream"):
            with case.run():
                world.hosts.drive, world.hosts.onedrive = (
                    [play.page(play.QUOTA, 200, content_type)],
                    [play.file(GOOD)],
                )
                assert world.fetch().origin.startswith(world.hosts.url + "/:u:/")
                world.holds(GOOD)
                gid = world.entry.links[0].target
                assert any(
                    f"Google Drive quota exceeded for {gid}; retry in 24 h" in line
                    for line in world.said
                )
                assert any("trying the mirror onedrive" in line for line in world.said)
                world.path.unlink()


def test_13_quota_page_and_no_mirror(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("13", "quota page, mirror gone") as case, case.run():
        world.hosts.drive = [play.page(play.QUOTA)]
        line = world.fails(6)
        assert "quota exceeded" in line
        assert "HTTP 404" in line
        assert f"drive.google.com/file/d/{world.entry.links[0].target}/view" in line
        assert f"dgcctl ckpt import FILE --name {NAME}" in line
        world.is_empty()


def test_14_virus_scan_form_is_followed(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("14", "virus-scan form, then the file") as case:
        for action in ("/download", f"{world.hosts.url}/download"):
            with case.run():
                form = play.virus_form(action, world.entry.links[0].target)
                world.hosts.drive = [play.page(form), play.file(GOOD)]
                world.fetch()
                world.holds(GOOD)
                assert world.hosts.seen[-1].path.startswith("/download?id=")
                assert "confirm=t&uuid=a-b%26c" in world.hosts.seen[-1].path
                world.path.unlink()


def test_14_a_form_that_leads_elsewhere_is_not_followed(
    world: World, fault_table: FaultTable
) -> None:
    with fault_table.case("14", "virus-scan form that leads to a stranger, or in a circle") as case:
        with case.run():
            world.hosts.drive = [play.page(play.virus_form("https://evil.example/download", "x"))]
            assert "leads to evil.example; not followed" in world.fails(6)
        with case.run():
            world.hosts.drive = [play.page(play.virus_form("/download", "x"))]
            assert "one web page after another" in world.fails(6)
        world.is_empty()


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_15_deleted_or_private(world: World, code: int, fault_table: FaultTable) -> None:
    with (
        fault_table.case("15", "deleted or private: 401, 403, 404, 410 on both hosts") as case,
        case.run(),
    ):
        world.hosts.drive = world.hosts.onedrive = [play.status(code)]
        line = world.fails(6)
        assert line.count(f"HTTP {code}") == 2
        assert "127.0.0.1" in line
        assert "gdrive: " in line
        assert "onedrive: " in line
        assert len(world.hosts.seen) == 2  # nothing that is gone is asked for again
        world.is_empty()


def test_15_login_pages(world: World, fault_table: FaultTable) -> None:
    with fault_table.case(
        "15", "OneDrive: redirect to a login page, login page, error page"
    ) as case:
        for answer in (
            [play.redirect("/:u:/_layouts/15/Authenticate.aspx?x=1"), play.page(play.LOGIN)],
            [play.page(play.LOGIN)],
            [play.page(play.LOGIN, content_type="application/octet-stream")],
        ):
            with case.run():
                world.hosts.onedrive = answer
                assert "OneDrive asks to log in (link withdrawn or private)" in world.fails(6)
                world.is_empty()


def test_15_plain_http_to_a_stranger_is_refused(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("15", "redirect to another host without encryption") as case, case.run():
        world.hosts.drive = [play.redirect("http://somewhere.example/file")]
        assert "somewhere.example without encryption; refused" in world.fails(6)


RESUMES = {
    "206 goes on": lambda: play.file(GOOD),
    "200, range ignored": lambda: play.ignores_range(GOOD),
    "ETag changed": lambda: play.file(GOOD, etag='"v2"'),
    "416": lambda: play.refuses_range,
    "206 from the wrong place": lambda: play.wrong_range(GOOD),
    "206 of another file": lambda: play.other_file_in_range(OTHER),
}


@pytest.mark.parametrize("then", RESUMES)
def test_16_cut_at_30_per_cent(world: World, then: str, fault_table: FaultTable) -> None:
    with fault_table.case("16", f"cut at 30 %, then {then}") as case, case.run():
        world.hosts.drive = [play.cut(GOOD, 0.3), RESUMES[then](), play.file(GOOD, etag='"v3"')]
        fetched = world.fetch()
        assert fetched.sha256 == hashlib.sha256(GOOD).hexdigest()
        world.holds(GOOD)
        second = world.hosts.seen[1]
        assert second.range == f"bytes={int(len(GOOD) * 0.3)}-"
        assert second.if_range == '"v1"'


def test_16_the_file_changed_between_two_starts(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("16", "other file between two starts") as case:
        for etag in ('"v2"', ""):
            with case.run():
                world.hosts.drive, world.hosts.onedrive = [play.cut(OTHER, 0.5)], [play.status(404)]
                world.fails(6)
                world.is_empty()
                world.hosts.drive = [play.file(GOOD, etag=etag)]
                world.fetch()
                world.holds(GOOD)
                world.path.unlink()


def test_16_weak_or_no_validators_start_anew(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("16", "weak ETag or none: from the start") as case:
        for etag in ('W/"v1"', ""):
            with case.run():
                world.hosts.seen.clear()
                world.hosts.drive = [play.cut(OTHER, 0.5, etag=etag), play.file(GOOD)]
                world.fetch()
                world.holds(GOOD)
                assert world.hosts.seen[1].range is None
                world.path.unlink()


def test_16_last_modified_will_do(world: World) -> None:
    when = "Wed, 01 Jul 2020 10:00:00 GMT"
    world.hosts.drive = [
        play.cut(GOOD, 0.5, etag="", **{"Last-Modified": when}),
        play.file(GOOD, etag=when),
    ]
    world.fetch()
    world.holds(GOOD)
    assert world.hosts.seen[1].if_range == when


def test_16_a_damaged_part_gets_one_second_chance(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("16", "the part on disk was damaged in between") as case, case.run():
        world.hosts.drive = [play.cut(GOOD, 0.5)]
        world.fails(6)
        part = world.cache.part(world.entry.file, "gdrive")
        part.write_bytes(b"\0" * part.stat().st_size)
        world.hosts.drive = [play.file(GOOD)]
        world.fetch()
        world.holds(GOOD)
        assert any("fetching it again from the start" in line for line in world.said)


def test_16_random_cuts(world: World, fault_table: FaultTable) -> None:
    """Any number of cuts at any place: the bytes are the right ones or there is no file."""
    dice = random.Random(16)
    with fault_table.case("16", "1 to 7 cuts at random places") as case:
        for _ in range(12):
            with case.run():
                cuts = [play.cut(GOOD, dice.random()) for _ in range(dice.randint(1, 7))]
                world.hosts.drive = [*cuts, play.file(GOOD)]
                with contextlib.suppress(NetworkError):
                    world.fetch()
                    world.holds(GOOD)
                assert not world.path.exists() or world.path.read_bytes() == GOOD
                world.path.unlink(missing_ok=True)


def test_17_short_body_again_and_again(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("17", "Content-Length larger than the body, always") as case, case.run():
        world.hosts.drive = [play.cut(GOOD, 0.3, etag="")]
        line = world.fails(6)
        assert f"got {int(len(GOOD) * 0.3):,} of {len(GOOD):,} bytes after 5 attempts" in line
        assert len([seen for seen in world.hosts.seen if seen.path.startswith("/uc")]) == 5
        world.is_empty()


def test_17_length_smaller_than_the_body(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("17", "Content-Length smaller than the body") as case:
        for claim in (len(GOOD) - 1, len(GOOD) // 2):
            with case.run():
                world.hosts.drive = [play.cut(GOOD, 1.0, claim=claim)]
                world.fails(6)
                world.is_empty()


def test_17_no_length_and_gzip_are_right_in_the_end(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("17", "no length; gzip-encoded body") as case:
        for answer in (play.no_length(GOOD), play.zipped(GOOD)):
            with case.run():
                world.hosts.drive = [answer]
                world.fetch()
                world.holds(GOOD)
                world.path.unlink()


def test_17_no_length_and_cut(world: World, fault_table: FaultTable) -> None:
    with (
        fault_table.case(
            "17", "no length, and cut: the file itself says that it ends early"
        ) as case,
        case.run(),
    ):
        world.hosts.drive = [play.no_length(GOOD[:-1000])]
        assert "gave a damaged file" in world.fails(6)
        world.is_empty()


def test_17_stall(world: World, fault_table: FaultTable) -> None:
    """The stall timeout is 30 s; the test waits 0.3."""
    assert Policy().stall == 30
    assert Policy().attempts == 5
    with fault_table.case("17", "1 byte now and then, or none at all") as case:
        patient = dataclasses.replace(FAST, attempts=2)
        with case.run():
            world.hosts.drive = [play.drip(GOOD, 0.05, 1.5)]
            assert "stalled: " in world.fails(6, policy=patient)
        with case.run():
            world.hosts.drive = [play.drip(GOOD, 3.0, 1.0)]
            assert "broken off" in world.fails(6, policy=patient)
        world.is_empty()


def test_17_server_errors_are_tried_again(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("17", "500, 503, 429, then the file") as case, case.run():
        world.hosts.drive = [play.status(500), play.status(503), play.status(429), play.file(GOOD)]
        world.fetch()
        world.holds(GOOD)


def test_17_a_server_that_says_when_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """Retry-After in seconds or as a date is waited for; an hour is not: the mirror is asked."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    soon = formatdate(time.time() + 50, usegmt=True)
    with fault_table.case("17", "429 and 503 with Retry-After") as case:
        for code, told, least in ((429, "7", 7), (503, soon, 1), (429, "soon", 0)):
            with case.run():
                busy = play.busy(code, told)
                world.hosts.drive = [busy, busy, play.file(GOOD)]
                world.fetch()
                world.holds(GOOD)
                assert [pause >= least for pause in pauses] == [True, True]
                assert max(pauses) <= 60
                pauses.clear()
                world.path.unlink()
        with case.run():
            world.hosts.drive, world.hosts.onedrive = [play.busy(429, "3600")], [play.file(GOOD)]
            world.fetch()
            assert pauses == []
            assert any("asks to come back in 3,600 s; trying the mirror" in x for x in world.said)


def test_17_wrong_size_or_kind_goes_to_the_mirror(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("17", "another size, a PNG, a text in place of the file") as case:
        large = checkpoint(1) + b"x" * MIB
        for body, word in (
            (large, "expected"),
            (b"\x89PNG" + GOOD, "a PNG image"),
            (b"hello" * 9, "unknown kind"),
        ):
            with case.run():
                world.hosts.drive, world.hosts.onedrive = [play.file(body)], [play.file(GOOD)]
                world.fetch()
                world.holds(GOOD)
                assert any(word in line for line in world.said)
                world.path.unlink()


def test_17_a_hostile_file_is_refused_before_it_has_a_name(
    world: World, fault_table: FaultTable
) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return os.system, ("touch canary",)

    buffer = io.BytesIO()
    torch.save(
        {"state_dict": {"w": torch.zeros(512, 512)}, "x": Evil()},
        buffer,
        _use_new_zipfile_serialization=False,
    )
    with fault_table.case("21", "a hostile pickle comes over the net") as case, case.run():
        world.hosts.drive = [play.file(buffer.getvalue())]
        assert "needs global posix.system at offset" in world.fails(5)
        world.is_empty()
        assert not list(world.cache.folder.glob(".*.part*"))


def test_18_the_pin(world: World, fault_table: FaultTable) -> None:
    good, other = hashlib.sha256(GOOD).hexdigest(), hashlib.sha256(OTHER).hexdigest()
    with fault_table.case("18", "digest differs from the pin; --repin") as case:
        world.hosts.drive = [play.file(GOOD)]
        world.fetch()
        pin = PinFile(world.cache.pins).get(NAME)
        assert pin
        assert pin.sha256 == good
        assert pin.origin.startswith(world.hosts.url + "/uc?")
        with case.run():
            world.hosts.drive = [play.file(OTHER)]
            world.path.unlink()
            line = world.fails(4)
            assert other in line
            assert f"{good} pinned {pin.when} from {pin.origin}" in line
            assert "--repin" in line
            world.is_empty()
        with case.run():
            assert world.fetch(repin=True).sha256 == other
            world.holds(OTHER)
            history = json.loads(world.cache.pins.read_text())["checkpoints"][NAME]["history"]
            assert [entry["sha256"] for entry in history] == [good]


def test_18_a_cached_good_file_is_kept(world: World, fault_table: FaultTable) -> None:
    with fault_table.case(
        "18", "the hosts disagree, or differ from the pin: the cached file is kept"
    ) as case:
        world.hosts.drive, world.hosts.onedrive = [play.file(GOOD)], [play.file(OTHER)]
        world.fetch()
        with case.run():
            line = world.fails(4, cross_check=True)
            assert "the hosts disagree" in line
            assert hashlib.sha256(GOOD).hexdigest() in line
            assert hashlib.sha256(OTHER).hexdigest() in line
            world.holds(GOOD)
        with case.run():
            world.hosts.drive = [play.file(OTHER)]
            assert "the cached file is kept" in world.fails(4, cross_check=True)
            world.holds(GOOD)
        with case.run():
            world.hosts.onedrive = [play.status(404)]
            assert "not every host gave the file to compare" in world.fails(6, cross_check=True)
            world.holds(GOOD)


def test_18_both_hosts_agree(world: World) -> None:
    world.hosts.drive, world.hosts.onedrive = [play.file(GOOD)], [play.file(GOOD)]
    assert world.fetch(cross_check=True).pin.confirmed_by == ("gdrive", "onedrive")
    world.holds(GOOD)


def test_18_a_known_digest_cannot_be_repinned(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("18", "digest differs from the one in the registry") as case, case.run():
        entry = dataclasses.replace(world.entry, sha256=hashlib.sha256(GOOD).hexdigest())
        world.hosts.drive = [play.file(OTHER)]
        with pytest.raises(IntegrityError, match="the registry knows"):
            world.fetch(entry, repin=True)
        world.is_empty()


def test_18_the_cached_file_was_changed(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("18", "one bit of the cached file flipped") as case, case.run():
        world.hosts.drive = [play.file(GOOD)]
        world.fetch()
        content = bytearray(GOOD)
        content[len(content) // 2] ^= 1
        world.path.write_bytes(content)
        assert "pinned" in world.fails(4)


def test_18_a_broken_lock_file(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("18", "lock file cut, of another version, no JSON") as case:
        world.hosts.drive = [play.file(GOOD)]
        world.fetch()
        whole = world.cache.pins.read_bytes()
        for content in (
            whole[:40],
            b"",
            whole.replace(b'"schema_version": 1', b'"schema_version": 2'),
            b"[]",
        ):
            with case.run():
                world.cache.pins.write_bytes(content)
                assert "checkpoints.lock" in world.fails(4)


def fetching(world: World, seconds_of_patience: float = 5.0) -> subprocess.Popen[str]:
    """A process that downloads; it prints what it says, and `done` at the end."""
    script = f"""
import dataclasses, sys
from pathlib import Path
from dgc.hub.cache import Cache
from dgc.hub.fetch import FetchOptions, download
from dgc.hub.hosts import Bases
from dgc.hub.registry import find_entry
entry = dataclasses.replace(find_entry({NAME!r}), size_mib={world.entry.size_mib!r})
say = lambda line: print(line, flush=True)
bases = Bases({world.hosts.url!r}, {world.hosts.url!r})
seen = []
def progress(done, total):
    if not seen:
        seen.append(done)
        say("bytes")
options = FetchOptions(bases=bases, say=say, progress=progress, offline=False)
download(entry, Cache(Path({str(world.cache.root)!r})), options)
assert "torch" not in sys.modules
say("done")
"""
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_19_killed_during_the_fetch(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("19", "SIGKILL during the fetch, next one resumes") as case:
        for pause in (0.0, 0.1, 0.25):
            with case.run():
                world.hosts.seen.clear()
                world.hosts.drive = [play.slow_file(GOOD, 1.0, honour=play.file(GOOD))]
                process = fetching(world)
                assert process.stdout
                assert process.stdout.readline() == "bytes\n"
                time.sleep(pause)
                process.send_signal(signal.SIGKILL)
                process.wait()
                world.is_empty()
                world.fetch()
                world.holds(GOOD)
                assert world.hosts.seen[-1].range
                world.path.unlink()


def test_19_two_processes_one_transfer(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("19", "two processes fetch the same file") as case, case.run():
        world.hosts.drive = [play.slow_file(GOOD, 1.0)]
        first = fetching(world)
        assert first.stdout
        assert first.stdout.readline() == "bytes\n"
        second = fetching(world)
        told, _ = second.communicate(timeout=GUARD)
        first.communicate(timeout=GUARD)
        assert f"waiting for {NAME}.tar: held by PID {first.pid} on " in told
        assert told.endswith("done\n")
        assert len(world.hosts.seen) == 1
        assert first.returncode == second.returncode == 0
        world.holds(GOOD)


def test_20_offline(world: World, fault_table: FaultTable) -> None:
    with fault_table.case("20", "no network: cached works, not cached says what to do") as case:
        for changes in (
            {"offline": True},
            {"bases": Bases("http://127.0.0.1:9", "http://127.0.0.1:9")},
        ):
            with case.run():
                line = world.fails(6, **changes)
                assert f"drive.google.com/file/d/{world.entry.links[0].target}/view" in line
                assert f"dgcctl ckpt import FILE --name {NAME}" in line
        world.hosts.drive = [play.file(GOOD)]
        world.fetch()
        asked = len(world.hosts.seen)
        for changes in (
            {"offline": True},
            {"bases": Bases("http://127.0.0.1:9", "http://127.0.0.1:9")},
        ):
            with case.run():
                assert world.fetch(**changes).origin == "cache"
        assert len(world.hosts.seen) == asked


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may write everywhere, so root becomes nobody for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_20_read_only_cache(world: World, fault_table: FaultTable) -> None:
    folder = Path(tempfile.mkdtemp())
    with fault_table.case(
        "20", "cache read-only: cached works, not cached says what to do"
    ) as case:
        try:
            world.cache = Cache(folder)
            world.cache.folder.mkdir()
            folder.chmod(0o555)
            world.cache.folder.chmod(0o555)
            with case.run(), as_somebody_else():
                line = world.fails(6)
                assert f"{world.cache.folder} cannot be written" in line
                assert "ckpt import FILE" in line
            world.cache.folder.chmod(0o755)
            world.path.write_bytes(GOOD)
            world.cache.folder.chmod(0o555)
            with case.run(), as_somebody_else():
                assert world.fetch().origin == "cache"
        finally:
            folder.chmod(0o755)
            world.cache.folder.chmod(0o755)
            shutil.rmtree(folder)


def test_20_proxy_wants_a_password(
    world: World, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, world.hosts.url)
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    world.hosts.drive = [play.status(407)]
    with fault_table.case("20", "proxy 407, for https and http") as case:
        for scheme in ("https", "http"):
            with case.run():
                bases = Bases(f"{scheme}://drive.test", f"{scheme}://onedrive.test")
                line = world.fails(6, bases=bases)
                assert "the proxy refuses (" in line
                assert "407" in line
                assert "HTTPS_PROXY" in line


def test_a_file_that_changes_between_two_looks_is_refused(world: World, tmp_path: Path) -> None:
    """What was inspected is what is copied; what was pinned is what is converted."""
    source = tmp_path / "from-baidu.tar"
    source.write_bytes(GOOD)
    inspected = inspect(source)
    source.write_bytes(OTHER)
    with pytest.raises(IntegrityError, match="was changed while it was copied"):
        import_file(inspected, world.entry, world.cache)
    world.is_empty()
    world.hosts.drive = [play.file(GOOD)]
    assert world.fetch().inspection is not None  # a fresh one was looked at on the way
    cached = world.fetch()
    assert cached.inspection is None
    assert cached.inspect().sha256 == cached.sha256
    world.path.write_bytes(OTHER)
    with pytest.raises(IntegrityError, match="was changed after its digest was checked"):
        cached.inspect()


def test_import_takes_a_file_fetched_by_hand(world: World, tmp_path: Path) -> None:
    source = tmp_path / "from-baidu.tar"
    source.write_bytes(GOOD)
    fetched = import_file(inspect(source), world.entry, world.cache, say=world.said.append)
    world.holds(GOOD)
    assert fetched.pin.origin == f"import:{source}"
    assert "trusted on first use" in world.said[-1]
    source.write_bytes(OTHER)
    with pytest.raises(IntegrityError, match="--repin"):
        import_file(inspect(source), world.entry, world.cache)
    world.holds(GOOD)
    source.write_bytes(play.LOGIN)
    with pytest.raises(IntegrityError, match="a Microsoft login page"):
        import_file(inspect(source), world.entry, world.cache)
