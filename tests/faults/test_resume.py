"""kill -9 and go on: every byte of the result equals that of the run that was never stopped (rows
27, 30 to 33).
"""

import random
import shutil
import signal
import time

import pytest

from dgc.errors import ExitCode
from dgc.run import checkpoint_store
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status
from tests.faults.training import (
    STEPS,
    Zygote,
    end_group,
    fingerprint,
    logged,
    make_run,
    start,
    train,
)
from tests.waiting import GUARD, wait_for

EVERY = 4  # checkpoint.every_steps of the test's recipe
POINTS_REDUCED = [
    "train.step:1",  # before the first row is read
    "train.step:7",  # in the middle of an epoch
    "train.evaluate:3",  # in an evaluation
    "checkpoint.before-rename:4",
    "best.before-rename:2",
    "train.finish:1",  # after the last step, before "done"
]
POINTS = [
    *(f"train.step:{step}" for step in (2, 4, 5, 6, 8, 11, 12, 13, 17, 18)),
    *(f"train.evaluate:{batch}" for batch in (1, 2, 4, 6)),
    *(f"train.epoch-end:{epoch}" for epoch in (1, 3)),
    *(f"train.epoch-closed:{epoch}" for epoch in (1, 3)),
    *(
        f"checkpoint.{moment}"
        for moment in ("begin:2", "model.before-fsync:3", "state.before-write:5", "after-rename:5")
    ),
    *(f"last.{moment}" for moment in ("before-write:2", "after-rename:6")),
    *(
        "best.before-write:1",
        "purge.after-rename:2",
        "gates.before-rename:2",
        "metrics.before-rename:2",
    ),
    # the third plain JSON file of a run is its verdict; before the first two nothing can be resumed
    # yet
    *("plots.before-rename:3", "json.before-rename:3"),
]


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def untouched(zygote, tmp_path_factory) -> dict[str, str]:
    """Digests of the run that nobody stopped."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run")
    assert zygote.train(run) == (0, "")
    assert len(logged(run, "step")) == STEPS
    return fingerprint(run)


def use_workers(run: RunDir, count: int) -> None:
    text = run.recipe.read_text()
    run.recipe.write_text(
        text.replace("workers: 0", f"workers: {count}").replace("workers: 2", f"workers: {count}")
    )


def check_whole(run: RunDir, untouched: dict[str, str]) -> None:
    assert read_status(run).state == State.DONE
    assert fingerprint(run) == untouched
    leftovers = list(run.path.rglob(".tmp-*"))
    assert leftovers == []


def kill_and_resume(
    zygote, run: RunDir, point: str, untouched, workers: tuple[int, int] = (0, 0)
) -> None:
    use_workers(run, workers[0])
    code, said = zygote.train(run, DGCCTL_CRASH_AT=point)
    assert code == -signal.SIGKILL, f"{point} was never passed: {said}"
    use_workers(run, workers[1])
    assert zygote.train(run, "--resume") == (0, "")
    check_whole(run, untouched)


@pytest.mark.parametrize("point", POINTS_REDUCED)
def test_killed_at_a_point(point, zygote, untouched, tmp_path, fault_table):
    with (
        fault_table.case(
            30, "trainer killed at a named point, resumed: same SHA-256, reduced"
        ) as case,
        case.run(),
    ):
        kill_and_resume(zygote, make_run(tmp_path / "run"), point, untouched)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point(point, zygote, untouched, tmp_path, fault_table):
    with (
        fault_table.case(30, "trainer killed at a named point, resumed: same SHA-256") as case,
        case.run(),
    ):
        kill_and_resume(zygote, make_run(tmp_path / "run"), point, untouched)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_other_number_of_workers(before, after, zygote, untouched, tmp_path, fault_table):
    with (
        fault_table.case(
            30, "killed and resumed with another number of workers (0 to 2, 2 to 0)"
        ) as case,
        case.run(),
    ):
        kill_and_resume(
            zygote, make_run(tmp_path / "run"), "train.step:9", untouched, (before, after)
        )


def test_killed_twice(zygote, untouched, tmp_path, fault_table):
    """Again in the first resumed step, then at the end of an epoch."""
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(
            31, "killed again in the first resumed step, and once more: same SHA-256"
        ) as case,
        case.run(),
    ):
        for arguments, point in (
            ([], "train.step:9"),
            (["--resume"], "train.step:1"),
            (["--resume"], "train.epoch-end:1"),
        ):
            assert zygote.train(run, *arguments, DGCCTL_CRASH_AT=point)[0] == -signal.SIGKILL
        assert zygote.train(run, "--resume") == (0, "")
        check_whole(run, untouched)
        steps = [row["step"] for row in logged(run, "step")]
        assert len(steps) > STEPS  # replayed rows stand in the log, and do not count


def kill_at_random(zygote, folder, kills: int, untouched, case) -> None:
    """Kill one training after another on the same run until it is done; begin a new run whenever
    one is.
    """
    chance = random.Random(7)
    number, run, arguments, done = 0, make_run(folder / "0"), [], False
    for _ in range(kills):
        if done:
            check_whole(run, untouched)
            number, arguments = number + 1, []
            run = make_run(folder / str(number))
        with case.run():
            reached = newest_step(run)
            child = zygote.start(run, *arguments)
            time.sleep(chance.uniform(0.05, 1.2))
            child.signal(signal.SIGKILL)
            code, said = child.wait()
            done = code == 0
            assert code in (0, -signal.SIGKILL), said
            lost = (max((row["step"] for row in logged(run, "step")), default=0)) - newest_step(run)
            assert newest_step(run) >= reached
            assert lost <= EVERY
            arguments = ["--resume"] if checkpoint_store.list_checkpoints(run) else []
    assert zygote.train(run, *arguments)[0] == 0
    check_whole(run, untouched)


def newest_step(run: RunDir) -> int:
    """The step that would be resumed from; raises where what stands there does not load."""
    newest = checkpoint_store.newest_valid(run)
    if newest is None:
        return 0
    assert newest[2] == []
    return newest[0].step


def test_killed_at_random(zygote, untouched, tmp_path, fault_table):
    with fault_table.case(
        27, "full trainer killed at random times, reduced: nothing unloadable"
    ) as case:
        kill_at_random(zygote, tmp_path, 4, untouched, case)


@pytest.mark.slow
def test_killed_at_random_twenty_five_times(zygote, untouched, tmp_path, fault_table):
    with fault_table.case(
        27, "full trainer killed at random times: nothing unloadable, same SHA-256"
    ) as case:
        kill_at_random(zygote, tmp_path, 25, untouched, case)


# --- two ranks ------------------------------------------------------------------------------------


def kill_both_and_resume(folder, points: list[str], case) -> None:
    whole = make_run(folder / "whole")
    assert train(whole, ranks=2).returncode == 0
    expected = fingerprint(whole)
    for place, point in enumerate(points):
        run = make_run(folder / str(place))
        with case.run():
            killed = train(run, ranks=2, DGCCTL_CRASH_AT=point)
            assert killed.returncode == ExitCode.RANK_DIED, killed.stderr
            use_workers(run, 2 * (place % 2))
            done = train(run, "--resume", ranks=2)
            assert done.returncode == 0, done.stderr
            check_whole(run, expected)


def test_two_ranks(tmp_path, fault_table):
    with fault_table.case(30, "two ranks killed and resumed: same SHA-256, reduced") as case:
        kill_both_and_resume(tmp_path, ["train.step:10"], case)


@pytest.mark.slow
def test_two_ranks_at_many_points(tmp_path, fault_table):
    with fault_table.case(
        30, "two ranks killed and resumed, 0 and 2 workers: same SHA-256"
    ) as case:
        points = [
            "train.step:3",
            "train.step:8",
            "train.evaluate:1",
            "train.epoch-closed:1",
            "train.step:18",
        ]
        kill_both_and_resume(tmp_path, [*points, "checkpoint.before-rename:3"], case)


def test_one_of_two_ranks_killed(tmp_path, fault_table):
    """The other one ends too, the line names rank, signal, step and log; no process is left."""
    import psutil

    run = make_run(tmp_path / "run", ("epochs: 3", "epochs: 400"))
    process = start(run, ranks=2)
    try:
        with (
            fault_table.case(38, "rank 1 of 2 killed: named, code 10, all ended") as case,
            case.run(),
        ):
            wait_for(lambda: len(logged(run, "step")) >= 6, "step 6", by=process)
            ranks = psutil.Process(process.pid).children()
            second = next(child for child in ranks if child.environ().get("RANK") == "1")
            second.kill()
            _, said = process.communicate(timeout=GUARD)
            assert process.returncode == ExitCode.RANK_DIED
            assert said.count("error: ") == 1
            assert "rank 1 killed by signal 9 at step " in said
            assert f"(log {run.path}/ranks/rank-1.err)" in said
            assert read_status(run).reason in said
            _, alive = psutil.wait_procs(ranks, timeout=GUARD)
            assert alive == []
    finally:
        end_group(process)


def test_launcher_killed(tmp_path, fault_table):
    """Ranks do not outlive their launcher: they save and leave."""
    import psutil

    run = make_run(tmp_path / "run", ("epochs: 3", "epochs: 400"))
    process = start(run, ranks=2)
    try:
        with (
            fault_table.case(38, "launcher killed: ranks save and end with it") as case,
            case.run(),
        ):
            wait_for(lambda: len(logged(run, "step")) >= 6, "step 6", by=process)
            ranks = psutil.Process(process.pid).children()
            process.kill()
            _, alive = psutil.wait_procs(ranks, timeout=GUARD)
            assert alive == []
            assert read_status(run).state == State.STOPPED
            assert read_status(run).exit_code == ExitCode.PREEMPTED
            assert newest_step(run) == read_status(run).step
    finally:
        end_group(process)


# --- what is there to go on from ------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(zygote, tmp_path_factory) -> RunDir:
    """A run killed at step 11: checkpoints of steps 6 and 8 stand."""
    run = make_run(tmp_path_factory.mktemp("stopped") / "run")
    assert zygote.train(run, DGCCTL_CRASH_AT="train.step:11")[0] == -signal.SIGKILL
    assert [checkpoint.step for checkpoint in checkpoint_store.list_checkpoints(run)] == [6, 8]
    return run


@pytest.fixture
def copied(stopped, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(stopped.path, tmp_path / "run"))


def test_newest_bad(copied, zygote, untouched, fault_table):
    (copied.checkpoints / "step-000008" / "model.safetensors").write_bytes(b"")
    with (
        fault_table.case(
            33, "newest checkpoint bad: previous one used, said so, same SHA-256"
        ) as case,
        case.run(),
    ):
        assert zygote.train(copied, "--resume") == (0, "")
        alerts = [event["text"] for event in logged(copied, "alert")]
        assert any("step-000008/model.safetensors: 0 bytes where" in text for text in alerts)
        assert "going on from step-000006 instead" in alerts
        assert logged(copied, "resume")[0]["step"] == 6
        check_whole(copied, untouched)


def test_all_bad(copied, zygote, fault_table):
    for folder in copied.checkpoints.iterdir():
        (folder / "state.json").unlink()
    with (
        fault_table.case(33, "all checkpoints bad: code 4, nothing started over") as case,
        case.run(),
    ):
        code, said = zygote.train(copied, "--resume")
        assert code == ExitCode.INTEGRITY
        assert "no checkpoint is whole, not going on: " in said
        assert logged(copied, "resume") == []


def test_none_and_too_many(copied, zygote, tmp_path, fault_table):
    with fault_table.case(33, "no checkpoint, or one where none should be: code 2") as case:
        with case.run():
            code, said = zygote.train(make_run(tmp_path / "new"), "--resume")
            assert code == ExitCode.USAGE
            assert (
                "no checkpoint to resume from, nothing was trained yet: start afresh with" in said
            )
        with case.run():
            code, said = zygote.train(copied)
            assert code == ExitCode.USAGE
            assert "holds step-000008 already: go on with --resume" in said


CHANGES = {
    "recipe": ("lr: 0.05", "lr: 0.06", "optim.lr was 0.05, is 0.06"),
    "data": ("limit_train: 44", "limit_train: 42", "data digest was"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed(what, copied, zygote, fault_table):
    old, new, named = CHANGES[what]
    copied.recipe.write_text(copied.recipe.read_text().replace(old, new))
    before = copied.status.read_bytes(), copied.events.read_bytes()
    with (
        fault_table.case(
            32, "changed recipe or data: shown, refused, marked where allowed"
        ) as case,
        case.run(),
    ):
        code, said = zygote.train(copied, "--resume")
        assert code == ExitCode.USAGE
        assert f"{copied.id} cannot go on exactly: " in said
        assert named in said
        assert "pass --allow-change" in said
        # it is no failed run because of that
        assert (copied.status.read_bytes(), copied.events.read_bytes()) == before
        assert zygote.train(copied, "--resume", "--allow-change")[0] == 0
        assert read_status(copied).note.startswith("not exact from step 8: ")
        resumed = logged(copied, "resume")[-1]
        assert resumed["exact"] is False
        assert any(named in text for text in resumed["differences"])


def test_other_world_size(copied, fault_table):
    before = copied.status.read_bytes()
    with fault_table.case(32, "another number of ranks: shown, refused") as case, case.run():
        done = train(copied, "--resume", ranks=2)
        assert copied.status.read_bytes() == before
        assert done.returncode == ExitCode.USAGE
        assert "world_size was 1, is 2" in done.stderr


def test_free_changes(copied, zygote, untouched, fault_table):
    text = (
        copied.recipe.read_text()
        .replace("log_every: 3", "log_every: 5")
        .replace("every_steps: 4", "every_steps: 50")
    )
    copied.recipe.write_text(
        text.replace("workers: 0", "workers: 1").replace("title: three", "title: still three")
    )
    with (
        fault_table.case(32, "workers, log and saving intervals, labels: free to change") as case,
        case.run(),
    ):
        assert zygote.train(copied, "--resume") == (0, "")
        found = fingerprint(copied)
        same = ("model.safetensors", "optim.safetensors", "rows", "metrics")
        assert {key: found[key] for key in same} == {key: untouched[key] for key in same}
