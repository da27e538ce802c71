"""The checkpoint writer, killed: at every named point, at random times, with full disks, with bytes
changed after.
"""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgc.errors import IntegrityError, ResourceError
from dgc.run import checkpoint_store
from dgc.run.files import clear_leftovers, read_json
from dgc.run.paths import RunDir
from tests.faults import writer
from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]
FILES = ("model", "optim", "state", "manifest")
POINTS = [
    "checkpoint.begin",
    *(
        f"checkpoint.{file}.{moment}"
        for file in FILES
        for moment in ("before-write", "before-fsync")
    ),
    "checkpoint.before-rename",
    "checkpoint.after-rename",
    "checkpoint.after-fsync-parent",
    *(
        f"last.{moment}"
        for moment in ("before-write", "before-fsync", "before-rename", "after-rename")
    ),
    *(f"best.{moment}" for moment in ("before-write", "before-rename", "after-rename")),
    "purge.before",
    "purge.after-rename",
    "purge.after",
]
KILLS = 500
KILLS_REDUCED = 60


def start_writer(
    run: RunDir, last: int | None = None, crash_at: str = ""
) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "tests.faults.writer",
        str(run.path),
        *([str(last)] if last else []),
    ]
    env = {**os.environ, "DGCCTL_CRASH_AT": crash_at}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE)


def committed(output: bytes) -> int:
    """The last step that the writer reported as committed (0 where none). What a kill cut is no
    report: a line counts from its end on.
    """
    whole = output[: output.rfind(b"\n") + 1]
    steps = [int(line.split()[1]) for line in whole.splitlines() if line.startswith(b"committed ")]
    return max(steps, default=0)


def check(run: RunDir, at_least: int) -> int:
    """After a kill: the newest checkpoint loads, is what was written, and nothing reported as
    committed is lost.
    """
    newest = checkpoint_store.newest_valid(run)
    if newest is None:
        assert at_least == 0
        return 0
    found, files, passed_over = newest
    assert passed_over == []
    assert files == writer.content(found.step)
    assert at_least <= found.step <= at_least + 1
    for pointer in (run.last, run.best):
        if pointer.exists():
            target = run.path / read_json(pointer)["path"]
            assert checkpoint_store.read_verified(target) == writer.content(
                read_json(pointer)["step"]
            )
    return found.step


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_named_point(point, tmp_path, fault_table):
    run = RunDir(tmp_path)
    with fault_table.case(27, "checkpoint writer killed at each named point") as case, case.run():
        process = start_writer(run, 12, f"{point}:{2 if point.startswith('best') else 7}")
        output = process.communicate(timeout=GUARD)[0]
        assert process.returncode == -signal.SIGKILL, "the point was never passed"
        check(run, committed(output))
        again = start_writer(run, 12)  # the next start clears what is left and goes on
        again.communicate(timeout=GUARD)
        assert again.returncode == 0
        assert check(run, 12) == 12
        assert [
            entry.name for entry in run.checkpoints.iterdir() if entry.name.startswith(".tmp-")
        ] == []
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".tmp-")] == []


def test_the_named_points_are_all_that_the_writer_passes(tmp_path):
    source = (ROOT / "dgc/run/checkpoint_store.py").read_text() + (
        ROOT / "dgc/run/files.py"
    ).read_text()
    assert len(POINTS) >= 12
    for point in POINTS:
        assert (
            f'crash_point("{point}")' in source
            or f'"{{point}}.{point.rpartition(".")[2]}"' in source
        )


def kill_at_random(run: RunDir, kills: int, case) -> None:
    """Kill one writer after another on the same run, each at a random moment of its work."""
    chance = random.Random(0)
    for _ in range(kills):
        with case.run():
            process = start_writer(run)
            assert process.stdout is not None
            started = process.stdout.readline()
            assert started.endswith(b"\n"), "the writer ended before it began"
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
            rest = process.stdout.read()
            process.wait(timeout=GUARD)
            check(run, max(committed(rest), int(started.split()[1])))


def test_a_report_that_was_cut_is_none():
    whole = b"committed 8\ncommitted 9\ncommitted 10\n"
    reports = {cut: committed(whole[:cut]) for cut in range(len(whole) + 1)}
    assert [reports[cut] for cut in (0, 11, 12, 23, 24, 34, 35, 36, 37)] == [
        0,
        0,
        8,
        8,
        9,
        9,
        9,
        9,
        10,
    ]
    assert set(reports.values()) == {0, 8, 9, 10}


def test_killed_at_random(tmp_path, fault_table):
    with fault_table.case(27, "checkpoint writer killed at random times, reduced") as case:
        kill_at_random(RunDir(tmp_path), KILLS_REDUCED, case)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_five_hundred_times(tmp_path, fault_table):
    with fault_table.case(27, "checkpoint writer killed at random times") as case:
        kill_at_random(RunDir(tmp_path), KILLS, case)


def test_same_step_is_replaced_without_a_gap(tmp_path, fault_table):
    """An epoch that was saved open and is then closed writes its step a second time."""
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    checkpoint_store.commit(run, 1, {"state.json": b"open"})
    with fault_table.case(27, "replacing a checkpoint of the same step, killed in between") as case:
        for point in ("checkpoint.set-aside", "checkpoint.after-rename"):
            with case.run():
                code = (
                    "from dgc.run import checkpoint_store; from dgc.run.paths import RunDir; from pathlib"
                    f" import Path;checkpoint_store.commit(RunDir(Path({str(tmp_path)!r})), 1,"
                    " {'state.json': b'closed'})"
                )
                env = {**os.environ, "DGCCTL_CRASH_AT": point}
                done = subprocess.run(
                    [sys.executable, "-c", code], cwd=ROOT, env=env, timeout=GUARD, check=False
                )
                assert done.returncode == -signal.SIGKILL
                newest = checkpoint_store.newest_valid(run)
                assert newest is not None
                assert newest[1]["state.json"] == (
                    b"open" if point.endswith("aside") else b"closed"
                )
                clear_leftovers(run.checkpoints)


# --- bytes that changed after ---------------------------------------------------------------------


@pytest.fixture
def two_steps(tmp_path) -> RunDir:
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    for step in (1, 2):
        writer.write(run, step)
    return run


def falls_back(run: RunDir, named: str) -> None:
    newest = checkpoint_store.newest_valid(run)
    assert newest is not None
    found, files, passed_over = newest
    assert found.step == 1
    assert files == writer.content(1)
    assert len(passed_over) == 1
    assert named in passed_over[0]


def test_cut_at_every_sixty_fourth(two_steps, fault_table):
    path = two_steps.checkpoints / "step-000002" / "model.safetensors"
    whole = path.read_bytes()
    with fault_table.case(
        24, "checkpoint file cut at every 1/64: previous one used, file named"
    ) as case:
        for part in range(64):
            with case.run():
                path.write_bytes(whole[: len(whole) * part // 64])
                falls_back(two_steps, "model.safetensors: ")


def test_flipped_bits(two_steps, fault_table):
    folder = two_steps.checkpoints / "step-000002"
    chance = random.Random(1)
    with fault_table.case(
        24, "random bit flipped in any file: previous one used, file named"
    ) as case:
        for _ in range(200):
            path = chance.choice(sorted(folder.iterdir()))
            whole = path.read_bytes()
            place = chance.randrange(len(whole))
            with case.run():
                path.write_bytes(
                    whole[:place]
                    + bytes([whole[place] ^ 1 << chance.randrange(8)])
                    + whole[place + 1 :]
                )
                falls_back(
                    two_steps, path.name if path.name != "MANIFEST.json" else "MANIFEST.json"
                )
            path.write_bytes(whole)


def test_swapped_and_edited(two_steps, fault_table):
    old, new = (two_steps.checkpoints / f"step-00000{step}" for step in (1, 2))
    keep = {path.name: path.read_bytes() for path in new.iterdir()}
    changes = {
        "a file of another step": (
            lambda: (new / "optim.safetensors").write_bytes(
                (old / "optim.safetensors").read_bytes()
            )
        ),
        "the manifest of another step": (
            lambda: (new / "MANIFEST.json").write_bytes((old / "MANIFEST.json").read_bytes())
        ),
        "an edited digest": (
            lambda: (new / "MANIFEST.json").write_bytes(
                keep["MANIFEST.json"].replace(b'"sha256": "', b'"sha256": "0', 1)
            )
        ),
        "a missing file": lambda: (new / "state.json").unlink(),
        "no manifest": lambda: (new / "MANIFEST.json").unlink(),
    }
    with fault_table.case(24, "files swapped, missing, manifest edited") as case:
        for change in changes.values():
            with case.run():
                change()
                falls_back(two_steps, "step-000002")
            for name, data in keep.items():
                (new / name).write_bytes(data)


def test_all_bad_stops(two_steps, fault_table):
    for step in (1, 2):
        (two_steps.checkpoints / f"step-00000{step}" / "state.json").write_bytes(b"{}")
    refused = pytest.raises(
        IntegrityError, match=r"no checkpoint is whole.*step-000002.*step-000001"
    )
    with (
        fault_table.case(33, "all checkpoints bad: refused, each named") as case,
        case.run(),
        refused,
    ):
        checkpoint_store.newest_valid(two_steps)


# --- disks that refuse ----------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path):
    """A file system of 1 MiB on `folder`, where we may mount one; else a limit on the size of
    files.
    """
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
    )
    if mounted:
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk(tmp_path, fault_table):
    run = RunDir(tmp_path)
    with (
        small_disk(tmp_path),
        fault_table.case(28, "disk full during a checkpoint: line, code 7, old ones kept") as case,
    ):
        run.checkpoints.mkdir()
        checkpoint_store.commit(run, 1, {"model.safetensors": b"x" * 100_000})
        with case.run():
            with pytest.raises(
                ResourceError,
                match=r"step-000002: checkpoint not written, 2,000,000 bytes needed, [\d,]+ free",
            ):
                checkpoint_store.commit(run, 2, {"model.safetensors": b"x" * 2_000_000})
            assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]
            newest = checkpoint_store.newest_valid(run)
            assert newest is not None
            assert newest[0].step == 1


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS]
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "mkdir"])
def test_every_refusal_of_the_system(number, call, tmp_path, monkeypatch, fault_table):
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    checkpoint_store.commit(run, 1, {"state.json": b"1"})

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    with (
        fault_table.case(28, "write, fsync, rename, mkdir refused (5 errors each)") as case,
        case.run(),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(ResourceError, match=os.strerror(number)):
                checkpoint_store.commit(run, 2, {"state.json": b"2"})
        assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]


def test_leftovers_of_the_living_stay(tmp_path):
    (tmp_path / f".tmp-{os.getppid()}-x").write_text("being written")
    (tmp_path / f".tmp-{os.getpid()}-x").write_text("by a namesake that is gone")
    (tmp_path / ".tmp-4194304-y").mkdir()
    assert len(clear_leftovers(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [f".tmp-{os.getppid()}-x"]
