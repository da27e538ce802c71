"""Requests to stop (row 37), files in control/, workers that die (row 12), folders that refuse
(rows 28, 29).
"""

import errno
import os
import signal
import time

import psutil
import pytest

from dgc.errors import ExitCode
from dgc.run import checkpoint_store
from dgc.run.events import EventWriter, read_events
from dgc.run.files import disk_error
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status
from tests.faults.training import Zygote, end_group, fingerprint, logged, make_run, start
from tests.waiting import GUARD, wait_for

LONG = ("epochs: 3", "epochs: 400")
SLOW_CHECKPOINTS = ("every_steps: 4", "every_steps: 1000")


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as started:
        yield started


def saved_step(run: RunDir) -> int:
    newest = checkpoint_store.newest_valid(run)
    assert newest is not None
    assert newest[2] == []
    return newest[0].step


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, ExitCode.PREEMPTED),
        (signal.SIGUSR1, ExitCode.PREEMPTED),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
@pytest.mark.parametrize("moment", ["before the first step", "in an epoch"])
def test_finishes_saves_and_leaves(number, code, moment, zygote, tmp_path, fault_table):
    run = make_run(tmp_path / "run", LONG, SLOW_CHECKPOINTS)
    with (
        fault_table.case(
            37, "SIGTERM, SIGUSR1, SIGINT: step finished, saved, code 75 or 130"
        ) as case,
        case.run(),
    ):
        child = zygote.start(run)
        if moment == "in an epoch":
            wait_for(lambda: len(logged(run, "step")) >= 3, "step 3", by=child)
        else:
            wait_for(run.status.exists, "its status", by=child)
        child.signal(number)
        ended, said = child.wait()
        assert ended == code
        status = read_status(run)
        assert status.state == State.STOPPED
        assert status.exit_code == code
        assert said.strip() == status.reason
        assert f"saved at step {status.step}; go on with `dgcctl resume {run.id}`" in said
        assert saved_step(run) == status.step
        assert [row["step"] for row in logged(run, "step")] == list(range(1, status.step + 1))


@pytest.mark.parametrize("point", ["train.evaluate", "checkpoint.before-rename"])
def test_in_an_evaluation_and_in_a_save(point, tmp_path, fault_table):
    """The signal comes exactly there: a point that would end the process sends SIGTERM instead."""
    with Zygote() as zygote:
        whole = make_run(tmp_path / "whole")
        assert zygote.train(whole) == (0, "")
        run = make_run(tmp_path / "run")
        with (
            fault_table.case(
                37, "SIGTERM in an evaluation and in a save; then resumed: same SHA-256"
            ) as case,
            case.run(),
        ):
            code, _ = zygote.train(run, DGCCTL_CRASH_AT=f"{point}:3", SIGNAL_INSTEAD="15")
            assert code == ExitCode.PREEMPTED
            assert zygote.train(run, "--resume") == (0, "")
            assert fingerprint(run) == fingerprint(whole)


@pytest.mark.parametrize("point", ["train.step:6", "checkpoint.before-rename:3"])
def test_second_signal_leaves_at_once(point, zygote, tmp_path, fault_table):
    """A step or a save that never ends cannot be finished: the second signal does not wait for it."""
    run = make_run(tmp_path / "run", LONG)
    with (
        fault_table.case(
            37, "second signal while a step or a save hangs: code 143 at once"
        ) as case,
        case.run(),
    ):
        child = zygote.start(run, DGCCTL_CRASH_AT=point, SIGNAL_INSTEAD="hang")
        wait_for(lambda: "hanging" in child.errors.read_text(), "the hanging", by=child)
        child.signal(signal.SIGTERM)
        # Slurm's pair, and a launcher that passes on what the group already got:
        child.signal(signal.SIGCONT)
        child.signal(signal.SIGTERM)  # one request
        time.sleep(1.2)  # longer than what counts as one request
        assert psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE

        def gone() -> bool:
            # again, should the child have been so late as to take it for the first
            child.signal(signal.SIGTERM)
            return not psutil.pid_exists(child.pid)

        wait_for(gone, "its end", by=None, pause=0.3)
        code, _ = child.wait()
        assert code == ExitCode.TERMINATED
        assert saved_step(run) == 4
        assert zygote.train(run, "--resume", DGCCTL_CRASH_AT="train.step:1")[0] == -signal.SIGKILL
        assert list(run.checkpoints.glob(".tmp-*")) == []


def saved_step_or_none(run: RunDir) -> int | None:
    newest = checkpoint_store.newest_valid(run)
    return newest[0].step if newest else None


def test_one_rank_only(tmp_path, fault_table):
    """The second rank gets the signal; both save at the same step."""
    run = make_run(tmp_path / "run", LONG, SLOW_CHECKPOINTS)
    process = start(run, ranks=2)
    try:
        with (
            fault_table.case(
                37, "SIGTERM to one rank of two: both stop at the same step, code 75"
            ) as case,
            case.run(),
        ):
            wait_for(lambda: len(logged(run, "step")) >= 3, "step 3", by=process)
            ranks = psutil.Process(process.pid).children()
            next(child for child in ranks if child.environ().get("RANK") == "1").send_signal(
                signal.SIGTERM
            )
            _, said = process.communicate(timeout=GUARD)
            assert process.returncode == ExitCode.PREEMPTED, said
            assert read_status(run).state == State.STOPPED
            assert saved_step(run) == read_status(run).step
            assert said.count("preempted: saved at step") == 1
    finally:
        end_group(process)


def test_control_files(zygote, tmp_path, fault_table):
    run = make_run(tmp_path / "run", LONG, SLOW_CHECKPOINTS)
    with (
        fault_table.case(
            37, "control/checkpoint and control/stop: done, and the files removed"
        ) as case,
        case.run(),
    ):
        child = zygote.start(run)
        wait_for(lambda: len(logged(run, "step")) >= 3, "step 3", by=child)
        (run.control / "checkpoint").touch()
        wait_for(lambda: not (run.control / "checkpoint").exists(), "the save", by=child)
        assert saved_step(run) > 0
        (run.control / "stop").touch()
        code, said = child.wait()
        assert code == ExitCode.INTERRUPTED
        assert "stopped on request: saved at step" in said
        assert not (run.control / "stop").exists()
        (run.control / "stop").touch()
        again = zygote.start(run, "--resume")  # an old request does not stop the next start
        wait_for(lambda: logged(run, "resume") != [], "the resumption", by=again)
        assert not (run.control / "stop").exists()
        again.signal(signal.SIGKILL)
        again.wait()


# --- workers and disks ----------------------------------------------------------------------------


def test_worker_killed(zygote, tmp_path, fault_table):
    """Row 12: the line names worker, signal, epoch, step and the last checkpoint."""
    run = make_run(tmp_path / "run", LONG, ("workers: 0", "workers: 2"))
    with (
        fault_table.case(12, "data worker killed: named, last checkpoint named, code 7") as case,
        case.run(),
    ):
        child = zygote.start(run)
        wait_for(lambda: len(logged(run, "step")) >= 3, "step 3", by=child)
        workers = [
            other for other in psutil.Process(child.pid).children() if other.status() != "zombie"
        ]
        workers[0].kill()
        code, said = child.wait()
        assert code == ExitCode.RESOURCES
        error = said.strip().splitlines()[-1]
        assert error.startswith("error: worker ")
        assert "died (signal 9, SIGKILL" in error
        assert "; last checkpoint: step-" in error
        assert read_status(run).state == State.FAILED


def test_log_disk_full(tmp_path, monkeypatch, fault_table):
    """Row 28: a line that does not fit leaves none of itself behind."""
    run = RunDir(tmp_path)
    writer = EventWriter(run)
    writer.append("alert", text="before")
    real = os.write

    def full(descriptor, data):
        real(descriptor, bytes(data[:10]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        fault_table.case(28, "disk full in the middle of a log line: no torn line") as case,
        case.run(),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(Exception, match="No space left on device") as caught:
                writer.append("alert", text="x" * 100)
        assert caught.value.exit_code == ExitCode.RESOURCES
        writer.append("alert", text="after")
        assert [event["text"] for event in read_events(run)] == ["before", "after"]


def test_run_moved_away(zygote, tmp_path, fault_table):
    """Row 29: the next save names the path, ends with 7, and saves to --rescue-dir."""
    run = make_run(tmp_path / "run", LONG)
    rescue = tmp_path / "rescue"
    with (
        fault_table.case(
            29, "run folder moved away: stops at the next save, state rescued, code 7"
        ) as case,
        case.run(),
    ):
        child = zygote.start(run, "--rescue-dir", str(rescue))
        wait_for(lambda: saved_step_or_none(run) == 4, "the save of step 4", by=child)
        run.path.rename(tmp_path / "elsewhere")
        code, said = child.wait()
        assert code == ExitCode.RESOURCES
        assert f"error: {run.path}" in said  # the folder, or a file in it: whichever was met first
        assert f"was rescued to {rescue}/run/checkpoints/step-" in said
        assert not run.path.exists()
        assert saved_step(RunDir(rescue / "run")) >= 4
        assert saved_step(RunDir(tmp_path / "elsewhere")) >= 4


def test_no_room_to_begin_with(zygote, tmp_path, fault_table):
    """Row 28: the check before the first step."""
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(
            28, "too little room before the first step: said with both numbers"
        ) as case,
        case.run(),
    ):
        code, said = zygote.train(run, FREE_BYTES="1000")
        assert code == ExitCode.RESOURCES
        assert "1,000 bytes free, but the checkpoints of this recipe need " in said
        assert "choose another DGCCTL_RUNS_DIR, or lower checkpoint.keep_last" in said
        assert checkpoint_store.list_checkpoints(run) == []


def test_disk_errors_are_told_from_others(tmp_path):
    assert disk_error(OSError(errno.ENOENT, "gone"), tmp_path, 1).args == (errno.ENOENT, "gone")
    assert "3 bytes" in str(disk_error(OSError(errno.ENOSPC, "full"), tmp_path, 3))
