"""`make rehearsal`: two machines rehearsed on one. Each is a network namespace with an address, a
host name and a hosts file of its own; the only way from one to the other is a cable (a pair of
virtual Ethernet devices), which the rehearsal can cut.

A training of two ranks, one a machine, is started by our launcher over gloo; in mid-epoch the cable
is cut, or a machine's processes are killed at once. What is left must end with exit code 10 within
the bound below, and the resumed training must come to the same bits as two ranks of one machine
that nobody stopped. Needs root, Linux and Debian's iproute2. The folder is kept after a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dgc.errors import ExitCode
from dgc.run.paths import RunDir
from dgc.run.status import read_status
from tests.faults.training import ROOT, environment, fingerprint, logged, make_run, train
from tests.waiting import wait_for

# seconds that a rank waits for the others
TIMEOUT = 10
# from the trouble to the end of every process that is left: the wait itself, once for the gradients
# and once for what torchrun says at the end, and a slow machine's time to close down
BOUND = 2 * TIMEOUT + 40
PORT = 29500
CHANGES = ("epochs: 3", "epochs: 12")
TRAINED_BEFORE_TROUBLE = 9  # steps: in the second epoch, behind a checkpoint


class Machine:
    """One of the two, `name` its host name."""

    def __init__(self, number: int) -> None:
        self.name = f"dgc{os.getpid()}n{number}"
        self.address = f"10.213.7.{number + 1}"
        self.number, self.cable = number, f"dgcv{os.getpid()}n{number}"[-15:]
        self.etc = Path("/etc/netns") / self.name
        self.launcher: subprocess.Popen[str] | None = None

    def build(self, hosts: str) -> None:
        # what `ip netns exec` lays over /etc: names that only these two know
        self.etc.mkdir(parents=True)
        (self.etc / "hosts").write_text(hosts)
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def plug_in(self) -> None:
        ip("link", "set", self.cable, "netns", self.name)
        self.ip("addr", "add", f"{self.address}/24", "dev", self.cable)
        self.ip("link", "set", self.cable, "up")

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    def start(self, run: RunDir, head: Machine, *more: str) -> None:
        """The launcher, as `dgcctl train` and Slurm's script start it on each machine."""
        command = [
            sys.executable, "-m", "dgc.train.launch", "--nnodes=2", "--nproc-per-node=1",
            f"--node-rank={self.number}", "--rdzv-backend=c10d", f"--rdzv-id={run.id}",
            f"--rdzv-endpoint={head.name}:{PORT}", "-m", "dgc.train", "--run-dir", str(run.path),
            *more,
        ]  # fmt: skip
        inside = f'hostname {self.name} && exec "$@"'
        self.launcher = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", inside, "sh",
             *command],
            cwd=ROOT, env=environment(DGCCTL_RANK_TIMEOUT=str(TIMEOUT), GLOO_SOCKET_IFNAME=self.cable),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ended(self) -> tuple[int, str]:
        """Exit code of the launcher, and what it said."""
        assert self.launcher is not None
        process = self.launcher
        wait_for(lambda: process.poll() is not None, f"the end of {self.name}", by=None, pause=0.1)
        return process.returncode, process.communicate()[1].strip()

    def processes(self) -> list[int]:
        done = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        return [int(word) for word in done.stdout.split()]

    def empty(self) -> bool:
        return not self.processes()

    def kill(self) -> None:
        """All that runs on it, at once."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        self.kill()
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        shutil.rmtree(self.etc, ignore_errors=True)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


class Pair:
    """Both machines and the cable between them; a context manager."""

    def __enter__(self) -> Pair:
        self.machines = [Machine(0), Machine(1)]
        first, second = self.machines
        hosts = "127.0.0.1 localhost\n" + "".join(
            f"{machine.address} {machine.name}\n" for machine in self.machines
        )
        try:
            for machine in self.machines:
                machine.build(hosts)
            ip("link", "add", first.cable, "type", "veth", "peer", "name", second.cable)
            for machine in self.machines:
                machine.plug_in()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.remove()

    def start(self, run: RunDir, *more: str) -> None:
        for machine in self.machines:
            machine.start(run, self.machines[0], *more)

    def cut(self) -> None:
        # the far end: a machine's own device stays up, so that it is told nothing
        self.machines[1].ip("link", "set", self.machines[1].cable, "down")

    def mend(self) -> None:
        self.machines[1].ip("link", "set", self.machines[1].cable, "up")


def cut_cable(pair: Pair) -> list[Machine]:
    pair.cut()
    return pair.machines


def kill_second(pair: Pair) -> list[Machine]:
    pair.machines[1].kill()
    return pair.machines[:1]


def kill_first(pair: Pair) -> list[Machine]:
    pair.machines[0].kill()
    return pair.machines[1:]


def power_cut(pair: Pair) -> list[Machine]:
    """The second machine falls silent: no process of it is left to say that it ends."""
    pair.cut()
    pair.machines[1].kill()
    return pair.machines[:1]


TROUBLES: dict[str, Callable[[Pair], list[Machine]]] = {
    "cable cut": cut_cable,
    "second machine killed": kill_second,
    "first machine killed": kill_first,
    "power cut of the second machine": power_cut,
}


def rehearse(pair: Pair, folder: Path, name: str) -> dict[str, str]:
    """One trouble in mid-epoch, and the way back; what the training then comes to."""
    run = make_run(folder / name.replace(" ", "-"), CHANGES)
    pair.start(run)
    launcher = pair.machines[0].launcher
    wait_for(lambda: len(logged(run, "step")) >= TRAINED_BEFORE_TROUBLE, "some steps", by=launcher)
    began = time.monotonic()
    left = TROUBLES[name](pair)
    for machine in left:
        code, said = machine.ended()
        print(f"{name}: {machine.name} ended with {code} after {time.monotonic() - began:.1f} s:"
              f" {said.splitlines()[-1] if said else '(silence)'}", flush=True)  # fmt: skip
        assert code == ExitCode.RANK_DIED, f"{name}: exit code {code}, not 10: {said}"
    took = time.monotonic() - began
    assert took <= BOUND, f"{name}: it took {took:.1f} s, more than {BOUND}"
    for machine in pair.machines:
        # what a machine still runs is a process that outlived its launcher
        wait_for(machine.empty, f"nothing left on {machine.name}", by=None)
    stopped = len(logged(run, "step"))
    assert read_status(run).state == "failed", read_status(run)
    pair.mend()
    pair.start(run, "--resume")
    for machine in pair.machines:
        code, said = machine.ended()
        assert code == ExitCode.DONE, f"{name}: resumed, then exit code {code}: {said}"
    print(f"{name}: stopped after {stopped} logged steps, resumed to the end", flush=True)
    return fingerprint(run)


def one_machine(folder: Path) -> dict[str, str]:
    """Two ranks here, that nobody stops."""
    run = make_run(folder / "one-machine", CHANGES)
    done = train(run, ranks=2)
    assert done.returncode == 0, done.stderr
    return fingerprint(run)


def main() -> int:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        print("make rehearsal needs root and iproute2, for network namespaces")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="dgcctl-rehearsal-"))
    wanted = sys.argv[1:] or list(TROUBLES)
    failed = 0
    with Pair() as pair:
        alone = one_machine(folder)
        for name in wanted:
            try:
                found = rehearse(pair, folder, name)
                unequal = [key for key in alone if found.get(key) != alone[key]]
                assert not unequal, f"{name}: other than on one machine: {', '.join(unequal)}"
                print(f"{name}: {len(alone)} of {len(alone)} digests equal to one machine's")
            except AssertionError as error:
                failed += 1
                print(f"failed: {error}\nkept: {folder}", flush=True)
                for machine in pair.machines:
                    machine.kill()
                pair.mend()
    if not failed:
        shutil.rmtree(folder)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
