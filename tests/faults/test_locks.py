"""One writer a run (row 34): refused while the owner lives, taken over when it is gone, never from
another host.
"""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from dgc.errors import ExitCode, LockedError
from dgc.run import lock
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.process import process_start
from tests.faults.training import ROOT, Zygote, environment, logged, make_run, train
from tests.waiting import wait_for

HOLD = (
    "import sys, time; from pathlib import Path; from dgc.run.lock import acquire; from dgc.run.paths"
    " import RunDir; "
)


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


def hold(run: RunDir, then: str) -> subprocess.Popen[str]:
    """Another process that takes the lock, says so and does `then`."""
    code = HOLD + f"acquire(RunDir(Path({str(run.path)!r}))); print('held', flush=True); {then}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_held_by_a_living_process(run, fault_table):
    owner = hold(run, "time.sleep(60)")
    try:
        with (
            fault_table.case(34, "run in use by a living process: named, code 8") as case,
            case.run(),
        ):
            with pytest.raises(
                LockedError, match=rf"is in use by process {owner.pid} on \S+ since 20"
            ) as caught:
                lock.acquire(run)
            assert caught.value.exit_code == ExitCode.LOCKED
            assert read_json(lock.lock_path(run))["pid"] == owner.pid
    finally:
        owner.kill()
        owner.wait()


def test_owner_killed_while_its_workers_live(run, fault_table):
    """A forked worker inherits every descriptor of the trainer; it must not hold its lock."""
    owner = hold(run, "import os; os.fork(); time.sleep(60)")
    wait_for(lambda: psutil.Process(owner.pid).children() != [], "its worker", by=owner)
    workers = psutil.Process(owner.pid).children()
    try:
        with (
            fault_table.case(
                34, "owner killed, its forked workers alive: taken over with a note"
            ) as case,
            case.run(),
        ):
            owner.kill()
            owner.wait()
            assert workers[0].is_running()
            with lock.run_lock(run) as note:
                assert note == f"took over the lock of process {owner.pid}, which is gone"
                assert read_json(lock.lock_path(run))["pid"] == os.getpid()
            assert not lock.lock_path(run).exists()
    finally:
        for worker in workers:
            worker.kill()


def test_recycled_pid(run, fault_table):
    parent = os.getppid()
    record = {"pid": parent, "start_token": process_start(parent) - 1000, "since": time.time()}
    with (
        fault_table.case(34, "pid of the dead owner given to another process: taken over") as case,
        case.run(),
    ):
        write_json(lock.lock_path(run), {**lock._own_record(), **record})
        assert lock.acquire(run) == f"took over the lock of process {parent}, which is gone"


def test_other_host(run, fault_table):
    record = {"host": "node-a", "pid": 4711, "start_token": 1.0, "since": 1.0}
    write_json(lock.lock_path(run), record)
    before = lock.lock_path(run).read_bytes()
    with (
        fault_table.case(
            34, "lock from another host: never taken over, says which file to remove"
        ) as case,
        case.run(),
    ):
        with pytest.raises(
            LockedError, match=r"process 4711 on node-a since 1970-01-01 .* remove .*lock\.json"
        ):
            lock.acquire(run)
        assert lock.lock_path(run).read_bytes() == before


def test_damaged_record(run):
    lock.lock_path(run).write_text("{")
    assert lock.acquire(run) == ""
    lock.release(run)


def test_two_trainers_on_one_run(tmp_path, fault_table):
    with Zygote() as zygote:
        run = make_run(tmp_path / "run", ("epochs: 3", "epochs: 400"))
        child = zygote.start(run)
        try:
            wait_for(lambda: len(logged(run, "step")) >= 3, "step 3", by=child)
            with (
                fault_table.case(34, "second trainer on a run: code 8, the first goes on") as case,
                case.run(),
            ):
                second = train(run, "--resume")
                assert second.returncode == ExitCode.LOCKED
                assert f"run {run.id} is in use by process {child.pid} on" in second.stderr
                seen = len(logged(run, "step"))
                wait_for(lambda: len(logged(run, "step")) > seen, "another step", by=child)
        finally:
            child.signal(signal.SIGKILL)
            child.wait()
