"""Ranks that hang, fail or cannot meet (row 38). Ranks that are killed: test_resume.py."""

import signal
import socket
import subprocess
import sys

import psutil
import pytest

from dgc.errors import ExitCode, RankError
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgc.train import launch
from tests.faults.training import ROOT, end_group, environment, logged, make_run, start
from tests.waiting import GUARD, wait_for


@pytest.mark.slow
def test_hanging_rank(tmp_path, fault_table):
    run = make_run(tmp_path / "run", ("epochs: 3", "epochs: 400"))
    process = start(run, ranks=2, DGCCTL_RANK_TIMEOUT="5")
    try:
        with (
            fault_table.case(
                38, "rank 1 hangs (SIGSTOP): the other gives up after the timeout, code 10"
            ) as case,
            case.run(),
        ):
            wait_for(lambda: len(logged(run, "step")) >= 6, "step 6", by=process)
            ranks = psutil.Process(process.pid).children()
            next(child for child in ranks if child.environ().get("RANK") == "1").send_signal(
                signal.SIGSTOP
            )
            _, said = process.communicate(timeout=GUARD)
            assert process.returncode == ExitCode.RANK_DIED, said
            assert read_status(run).state == State.FAILED
            assert "error: " in said
            _, alive = psutil.wait_procs(ranks, timeout=GUARD)
            assert alive == []
    finally:
        end_group(process)


def test_port_taken(tmp_path, fault_table):
    run = make_run(tmp_path / "run")
    with (
        socket.socket() as taken,
        fault_table.case(38, "rendezvous port taken: one line, code 10") as case,
        case.run(),
    ):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "dgc.train.launch",
                *options,
                "-m",
                "dgc.train",
                "--run-dir",
                str(run.path),
            ],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
        )
        assert done.returncode == ExitCode.RANK_DIED, done.stderr
        assert "error: the ranks could not meet (" in done.stderr
        assert "check --rdzv-endpoint, --nnodes and the port" in done.stderr


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path)
    write_status(run, Status(state=State.RUNNING, step=41))
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "rank-1.err").write_text("Warning: x\nerror: a.jpg (sample 3): broken\n")
    return run


@pytest.mark.parametrize(
    ("exit_codes", "code", "told"),
    [
        ({0: 10, 1: -9}, 10, "rank 1 killed by signal 9 at step 41 (log "),
        ({0: -15, 1: -11}, 10, "rank 1 killed by signal 11 at step 41 (log "),
        ({0: 10, 1: 3}, 3, "a.jpg (sample 3): broken"),
        ({0: -15, 1: 3}, 3, "a.jpg (sample 3): broken"),
        ({0: 9, 1: 9}, 9, "rank 0 ended with exit code 9"),
    ],
)
def test_the_cause_among_the_ends(exit_codes, code, told, run):
    error = launch.explain(run, exit_codes)
    assert error.exit_code == code
    assert told in str(error)


def test_a_lost_rank_is_settled(run):
    launch.settle(run, RankError("rank 1 killed"))
    status = read_status(run)
    assert (status.state, status.reason, status.exit_code) == (State.FAILED, "rank 1 killed", 10)
    assert [event["reason"] for event in logged(run, "end")] == ["rank 1 killed"]


def test_what_the_first_rank_wrote_is_told(run):
    """Its log may be a terminal's."""
    status = Status(state=State.FAILED, exit_code=10, reason="lost contact with another rank")
    write_status(run, status)
    assert str(launch.explain(run, {0: 10})) == "lost contact with another rank"
    assert str(launch.explain(run, {0: 7})) == "rank 0 ended with exit code 7", "of another end"


def test_the_machine_where_the_ranks_met_is_gone(tmp_path, monkeypatch, capsys):
    from torch.distributed.elastic.rendezvous import RendezvousConnectionError

    def lost(options):
        try:
            raise RuntimeError("failed to recv, got 0 bytes\nframe #0: c10::Error")
        except RuntimeError as error:
            raise RendezvousConnectionError("See inner exception for details.") from error

    monkeypatch.setattr("torch.distributed.run.run", lost)
    run = make_run(tmp_path / "run")
    write_status(run, Status(state=State.RUNNING, step=41))
    where = ["--rdzv-backend=c10d", "--rdzv-endpoint=head:29500"]
    code = launch.main([*where, "-m", "dgc.train", "--run-dir", str(run.path)])
    assert code == ExitCode.RANK_DIED
    assert capsys.readouterr().err == (
        "error: no contact with where the ranks meet, head:29500 (failed to recv, got 0 bytes):"
        " is that machine up, and can this one reach it?\n"
    )
    assert read_status(run).state == State.FAILED
