"""The Slurm script: complete, refused where it cannot be, and run here with a stand-in for the
cluster.
"""

import os
import signal
import subprocess
import time

import pytest

from dgc.errors import RecipeError, UsageError
from dgc.recipe.load import find_recipe, load_recipe
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from dgcctl.core.launch.slurm import Job, script, submit
from tests.waiting import GUARD, wait_for

DEMO = load_recipe(find_recipe("demo"))


def text(tmp_path, **job):
    return script(DEMO, Job(**job), tmp_path / "runs", tmp_path)


def test_the_script_asks_for_everything_a_requeued_job_needs(tmp_path):
    found = text(
        tmp_path,
        nodes=2,
        gpus_per_node=4,
        partition="gpu",
        account="me",
        extra=("--constraint=h100",),
    )
    for line in (
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=me",
        "#SBATCH --constraint=h100",
        'srun --kill-on-bad-exit=1 "$PYTHON" -m dgc.train.launch \\',
        "  --nnodes=2 --nproc-per-node=4 --max-restarts=0 \\",
    ):
        assert line in found.splitlines()
    assert found.startswith("#!/usr/bin/env bash\n#SBATCH")
    assert "@" not in found.replace("USR1@120", "").replace('"${RESUME[@]}"', "")


def test_a_script_that_is_submitted_later_trusts_what_its_writer_did(tmp_path, monkeypatch):
    assert "export DGCCTL_TRUST_CODE='' " in text(tmp_path)
    monkeypatch.setenv("DGCCTL_TRUST_CODE", "mine, other")
    assert "export DGCCTL_TRUST_CODE=mine,other " in text(tmp_path)


def test_options_that_cannot_be_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"--time tomorrow: should be \[days-\]hours"):
        text(tmp_path, time="tomorrow")
    with pytest.raises(UsageError, match=r"--sbatch 'x': should be one option of sbatch"):
        text(tmp_path, extra=("x",))
    with pytest.raises(
        RecipeError, match=r"train.batch_size = 64 cannot be shared by 12 processes"
    ):
        text(tmp_path, nodes=3, gpus_per_node=4)


def test_without_slurm_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no Slurm here: --dry-run prints the script"):
        submit("#!/bin/sh")


# --- a stand-in for the cluster -------------------------------------------------------------------

SRUN = r"""#!/usr/bin/env bash
# trains until control/stop appears, then says in status.json what the trainer would say
while [ "$1" != --run-dir ]; do shift; done
RUN=$2; shift 2
[ -e "$RUN/lock.json" ] && echo locked >> "$RUN/starts"
echo "${1:-fresh}" >> "$RUN/starts"
echo '{"step": 1}' > "$RUN/last.json"
for _ in $(seq 12000); do
  if [ -e "$RUN/control/stop" ]; then echo '{"exit_code": 130}' > "$RUN/status.json"; exit 1; fi
  [ -e "$RUN/finish" ] && { echo '{"exit_code": 0}' > "$RUN/status.json"; exit 0; }
  [ -e "$RUN/fail" ] && { echo '{"exit_code": 9}' > "$RUN/status.json"; exit 1; }
  [ -e "$RUN/preempted" ] && { echo '{"exit_code": 75}' > "$RUN/status.json"; exit 1; }
  sleep 0.05
done
"""
SCONTROL = r"""#!/usr/bin/env bash
[ "$1" = requeue ] && echo "requeue $2" >> "$CALLS"
[ "$1" = show ] && printf 'node1\nnode2\n'
exit 0
"""


class Cluster:
    """Runs the script as Slurm would: with a job id, srun and scontrol on PATH."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "bin").mkdir()
        for name, source in (("srun", SRUN), ("scontrol", SCONTROL)):
            path = folder / "bin" / name
            path.write_text(source)
            path.chmod(0o755)
        self.job = folder / "job.sh"
        self.job.write_text(text(folder))
        self.calls = folder / "calls"

    def start(self):
        env = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
        }
        env |= {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]"}
        self.process = subprocess.Popen(["bash", str(self.job)], env=env)
        return self

    @property
    def run(self):
        runs = self.folder / "runs"
        wait_for(
            lambda: any(runs.glob("*-demo-4711/starts")), "the start of the run", by=self.process
        )
        return next(runs.glob("*-demo-4711/starts")).parent

    def end(self):
        return self.process.wait(timeout=GUARD)


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def test_a_warning_stops_the_trainer_gently_and_queues_the_job_again(cluster):
    cluster.start()
    run = cluster.run
    cluster.process.send_signal(signal.SIGUSR1)
    assert cluster.end() == 75
    assert cluster.calls.read_text() == "requeue 4711\n"
    assert load_recipe(run / "recipe.yaml").digest() == DEMO.digest()


def test_a_requeued_job_resumes_in_the_same_run_directory(cluster):
    cluster.start()
    run = cluster.run
    cluster.process.send_signal(signal.SIGUSR1)
    cluster.end()
    (run / "finish").touch()
    assert cluster.start().end() == 0
    assert (run / "starts").read_text() == "fresh\n--resume\n"
    assert not (run / "control" / "stop").exists()


def test_a_requeued_job_takes_over_from_a_node_that_was_lost(cluster):
    cluster.start()
    run = cluster.run
    cluster.process.send_signal(signal.SIGUSR1)
    cluster.end()
    write_json(run / "lock.json", {"host": "elsewhere", "boot": "b", "pid": 1, "start_token": 1.0})
    silent = Status(state=State.RUNNING, host="elsewhere", heartbeat=time.time() - 3600)
    write_status(RunDir(run), silent)
    (run / "finish").touch()
    assert cluster.start().end() == 0
    assert (run / "starts").read_text() == "fresh\n--resume\n"


def test_scancel_stops_gently_and_does_not_queue_again(cluster):
    cluster.start()
    assert cluster.run
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.end() == 130
    assert not cluster.calls.exists()


@pytest.mark.parametrize(
    ("mark", "code", "queued"), [("fail", 9, False), ("preempted", 75, True), ("finish", 0, False)]
)
def test_the_ranks_own_exit_code_is_the_jobs(cluster, mark, code, queued):
    cluster.start()
    (cluster.run / mark).touch()
    assert cluster.end() == code
    assert cluster.calls.exists() is queued
