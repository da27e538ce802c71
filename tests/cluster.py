"""`make cluster`: trainings, sweeps and searches on a real Slurm, two nodes on this machine, on
loopback.

Starts munged, slurmctld and two slurmd of its own in a temporary folder, each node under a host name
of its own (a UTS namespace), and ends them. Needs root, Linux, and Debian's packages slurmctld,
slurmd, slurm-client and munge, which `make cluster` installs. What is kept: the folder, named at
the end of a failure.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dgc.run.paths import RunDir
from dgc.run.status import read_status
from tests.waiting import wait_for

NODES = ("node1", "node2")
RECIPE = (
    "demo",
    "model.stages=[1,1,1]",
    "model.growth=[4,4,4]",
    "data.limit_train=44",
    "data.limit_val=30",
    "train.epochs=40",
    "train.batch_size=8",
    "train.threads=1",
    "eval.batch_size=16",
    "checkpoint.every_steps=10",
)
# trains each run given, in a process of its own that finds PyTorch imported
TRAIN_HERE = """
import os, sys
import dgc.train.main
from dgc.train.__main__ import main
for place in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        os._exit(int(main(["--run-dir", place])))
    os.waitpid(pid, 0)
"""
CONF = """
ClusterName=dgcctl
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=15
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdTimeout=10
KillWait=60
ReturnToService=2
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SlurmdParameters=config_overrides
MailProg=/bin/true
{nodes}
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Two nodes, from `start` to `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        munge, port = self.folder / "munge", _free_port()
        for place in (munge, self.folder / "state"):
            place.mkdir(mode=0o700)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        (munge / "key").chmod(0o600)
        ports = {node: _free_port() for node in NODES}
        nodes = "\n".join(
            f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={node} Port={ports[node]} CPUs=1"
            for node in NODES
        )
        text = CONF.format(host=socket.gethostname(), folder=self.folder, port=port, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        names = {"key": "key-file", "socket": "socket", "pid": "pid-file", "log": "log-file"}
        files = [f"--{option}={munge / name}" for name, option in names.items()]
        self._daemon("munged", "munged", "--foreground", "--force", *files,
                     f"--seed-file={munge / 'seed'}")  # fmt: skip
        self.wait(lambda: (munge / "socket").exists(), "munged")
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: self.said("sinfo", "-h", "-o", "%D %t") == "2 idle", "two idle nodes")

    def start_node(self, node: str) -> None:
        # a host name of its own: else a run could not see that another node had it; both names
        # resolve there, as they do on a cluster
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()} {' '.join(NODES)}\n")
        self._daemon(
            node, "unshare", "--uts", "--mount", "sh", "-c",
            f"hostname {node}; mount --bind {hosts} /etc/hosts; exec slurmd -D -N {node}",
        )  # fmt: skip

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )

    def said(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False
        ).stdout.strip()

    def wait(self, ready: Callable[[], Any], what: str) -> None:
        wait_for(ready, what, by=self.daemons["munged"], pause=0.3)

    def kill_node(self, node: str) -> None:
        """As a power cut would: slurmd and all that runs on the node, at once."""
        for process in self._of_node(node):
            process.kill()
        self.daemons[node].wait()

    def _of_node(self, node: str) -> list[psutil.Process]:
        """Found by the node's UTS namespace: slurmstepd leaves the tree of its slurmd."""
        own = os.readlink(f"/proc/{self.daemons[node].pid}/ns/uts")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/uts") == own:
                    found.append(process)
            except OSError:
                continue
        return found

    def end(self) -> None:
        for node in NODES:
            if self.daemons[node].poll() is None:
                self.kill_node(node)
        for name in ("slurmctld", "munged"):
            self.daemons[name].terminate()
            self.daemons[name].wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Check:
    """One kind of work (`sweep` or `search`) with three troubles, and the same run here."""

    def __init__(self, cluster: Cluster, kind: str, *words: str) -> None:
        self.cluster, self.kind, self.words = cluster, kind, words
        self.runs = cluster.folder / kind
        self.troubled: set[str] = set()

    def dgcctl(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dgcctl", *words, "--runs-dir", str(self.runs)],
            env=self.cluster.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{words}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def submit(self) -> None:
        print(self.dgcctl(self.kind, *RECIPE, *self.words, "--launcher", "slurm").strip())

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.dgcctl(self.kind, "show", "--json"))["trials"]
        return rows

    def at_work(self, node: str = "") -> tuple[str, str]:
        """Run and Slurm job of a trial that no trouble has met and that saved something; waits."""
        found: list[tuple[str, str]] = []

        def look() -> bool:
            for line in self.cluster.said(
                "squeue", "-h", "-r", "-t", "R", "-o", "%i %N"
            ).splitlines():
                job, host = line.split()
                for place in self.runs.glob("2*"):
                    run = RunDir(place)
                    if place.name in self.troubled or not any(run.checkpoints.glob("step-*")):
                        continue
                    status = read_status(run)
                    if status.state == "running" and status.host == host and node in ("", host):
                        found.append((place.name, job))
                        return True
            return False

        self.cluster.wait(look, f"a trial of the {self.kind} at work")
        self.troubled.add(found[0][0])
        return found[0]

    def emptied(self) -> None:
        self.cluster.wait(lambda: not self.cluster.said("squeue", "-h"), "an empty queue")

    def trouble(self) -> None:
        run, job = self.at_work()
        # scancel tries again for as long as the job is being queued again
        self.cluster.said("timeout", "5", "scancel", "--signal=USR1", "--batch", job)
        print(f"{self.kind}: warned {run} (USR1)")
        run, job = self.at_work()
        self.cluster.said("scancel", job)
        print(f"{self.kind}: cancelled {run}")
        run, _ = self.at_work("node2")
        self.lose("node2", run)
        self.emptied()
        left = [row for row in self.rows() if row["state"] not in ("done", "stopped")]
        print(f"{self.kind}: after the array: {_counts(self.rows())}")
        if left:
            raise AssertionError(f"neither done nor stopped: {left}")

    def lose(self, node: str, run: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Kill a node, do something while Slurm knows it to be down, and start it again."""
        self.cluster.kill_node(node)
        print(f"{self.kind}: killed {node} with {run}")
        self.cluster.wait(
            lambda: "down" in self.cluster.said("sinfo", "-h", "-n", node, "-o", "%T"),
            f"Slurm's word that {node} is down",
        )
        meanwhile()
        self.cluster.start_node(node)

    def go_on(self, trials: int) -> None:
        """The same command again does what the cancelled task left; all are done then."""
        self.submit()
        self.emptied()
        rows = self.rows()
        print(f"{self.kind}: after the same command again: {_counts(rows)}")
        if len(rows) != trials or any(row["state"] != "done" for row in rows):
            raise AssertionError(f"not {trials} done trials: {rows}")

    def same_here(self) -> None:
        """Each run trained here, without a stop, has the same weights."""
        runs, place = sorted(self.runs.glob("2*")), self.cluster.folder / f"{self.kind}-here"
        here = [place / run.name for run in runs]
        for run, own in zip(runs, here, strict=True):
            own.mkdir(parents=True)
            shutil.copy(run / "recipe.yaml", own)
        command = [sys.executable, "-c", TRAIN_HERE, *map(str, here)]
        subprocess.run(command, env=self.cluster.env, capture_output=True, check=True)
        unequal = [
            run.name for run, own in zip(runs, here, strict=True) if digest(run) != digest(own)
        ]
        equal = len(runs) - len(unequal)
        print(f"{self.kind}: {equal} of {len(runs)} digests equal to trainings here")
        if unequal:
            raise AssertionError(f"other weights than here: {unequal}")


class LaunchCheck(Check):
    """One training by `dgcctl launch slurm`: warned, and then its node killed."""

    def submit(self) -> None:
        options = ("--gpus-per-node", "0", "--cpus-per-task", "1")
        log = f"--sbatch=--output={self.cluster.folder}/launch.out"
        longer = (word.replace("train.epochs=40", "train.epochs=120") for word in RECIPE)
        print(self.dgcctl("launch", "slurm", *longer, *options, log).strip())

    def trouble(self) -> None:
        run, job = self.at_work()
        self.cluster.said("timeout", "5", "scancel", "--signal=USR1", "--batch", job)
        self.cluster.wait(lambda: self.resumed(run) == 1, "the warned run at work again")
        print(f"launch: warned {run} (USR1)")
        node = read_status(RunDir(self.runs / run)).host

        def elsewhere() -> None:
            """The other node has it: whose lock was freed, for its owner cannot be asked."""
            self.cluster.wait(lambda: self.resumed(run) == 2, "the training on the other node")
            now = read_status(RunDir(self.runs / run)).host
            print(f"launch: {now} goes on with it")

        self.lose(node, run, elsewhere)
        self.emptied()

    def resumed(self, run: str) -> int:
        """How often it went on, if it is at work."""
        found = RunDir(self.runs / run)
        log = found.events.read_text()
        return log.count('"resume"') if read_status(found).state == "running" else 0

    def go_on(self, trials: int) -> None:
        runs = [RunDir(place) for place in self.runs.glob("2*")]
        states = [read_status(run).state for run in runs]
        times = runs[0].events.read_text().count('"resume"')
        print(f"launch: {states[0]}, resumed {times} times")
        if states != ["done"] * trials:
            raise AssertionError(f"not {trials} done: {states}")


def digest(run: Path) -> str:
    """Of the weights at the end."""
    last = json.loads((run / "last.json").read_text())["path"]
    files = json.loads((run / last / "MANIFEST.json").read_text())["files"]
    return str(files["model.safetensors"]["sha256"])


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    states = [row["state"] for row in rows]
    return {state: states.count(state) for state in sorted(set(states))}


def main() -> int:
    if os.geteuid() != 0 or shutil.which("slurmd") is None:
        print("make cluster needs root and Slurm (Debian: slurmctld slurmd slurm-client munge)")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="dgcctl-cluster-"))
    cluster = Cluster(folder)
    passed, failed, wanted = 0, 0, sys.argv[1:] or ["launch", "sweep", "search"]
    try:
        cluster.start()
        for check, trials in (
            (LaunchCheck(cluster, "launch"), 1),
            (Check(cluster, "sweep", "seed=0..2", "optim.lr=0.05,0.1"), 6),
            (Check(cluster, "search", "optim.lr=log:0.01..0.3", "--trials", "20",
                   "--pruner", "none"), 20),
        ):  # fmt: skip
            if check.kind not in wanted:
                continue
            check.submit()
            check.trouble()
            check.go_on(trials)
            check.same_here()
            passed += 1
    except (AssertionError, TimeoutError, subprocess.CalledProcessError) as error:
        failed = 1
        print(f"failed: {error}\nkept: {folder}")
    finally:
        cluster.end()
        # what is said is read while it goes on
        sys.stdout.flush()
    if not failed:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed, {len(wanted) - passed - failed} not run")
    return failed


if __name__ == "__main__":
    sys.exit(main())
