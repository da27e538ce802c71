"""A training small enough to be killed often: a DGC net of three layers on 48 images, crop and flip
on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dgc.run import checkpoint_store
from dgc.run.events import Event, metric_digest, read_events
from dgc.run.paths import RunDir
from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]
RECIPE = """
name: tiny
title: three DGC layers, for tests
source: ours
seed: 3
model: {name: dydensenet, stem: cifar, num_classes: 10, gate_factor: 0.25, stages: [1, 1, 1], growth: [4, 4, 4]}
data: {name: fashion_mnist, augment: crop_flip, image_size: 32, mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353],
       workers: 0, limit_train: 44, limit_val: 30}
optim: {lr: 0.05}
train: {epochs: 3, batch_size: 8, log_every: 3, threads: 1, device: cpu}
eval: {batch_size: 16}
checkpoint: {every_steps: 4}
"""
STEPS = 18  # 3 epochs of 6 batches, the last of 4 images


def make_run(folder: Path, *changes: tuple[str, str]) -> RunDir:
    """A run directory with the recipe, each (old, new) text replaced."""
    folder.mkdir(parents=True)
    text = RECIPE
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "recipe.yaml").write_text(text)
    return RunDir(folder)


def command(run: RunDir, *arguments: str, ranks: int = 1) -> list[str]:
    module = ["-m", "dgc.train", "--run-dir", str(run.path), *arguments]
    if ranks == 1:
        return [sys.executable, *module]
    return [
        sys.executable,
        "-m",
        "dgc.train.launch",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *module,
    ]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **extra}


def train(
    run: RunDir, *arguments: str, ranks: int = 1, timeout: float = GUARD, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(run, *arguments, ranks=ranks),
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(run: RunDir, *arguments: str, ranks: int = 1, **env: str) -> subprocess.Popen[str]:
    """In a process group of its own, so that a test can end all of it."""
    return subprocess.Popen(
        command(run, *arguments, ranks=ranks),
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """Nothing of a started training outlives its test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def logged(run: RunDir, kind: str) -> list[Event]:
    return [event for event in read_events(run) if event["kind"] == kind]


def fingerprint(run: RunDir) -> dict[str, str]:
    """SHA-256 of everything that a run comes to: weights and buffers, momentum, all other state,
    metric rows.
    """
    newest = checkpoint_store.newest_valid(run)
    assert newest is not None
    found, files, passed_over = newest
    assert passed_over == []
    state = json.loads(files["state.json"])
    del state["stands_on"]  # names the number of workers, which may change
    files = {**files, "state.json": json.dumps(state, sort_keys=True).encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    plots = {
        name: hashlib.sha256((run.file("plots") / name).read_bytes()).hexdigest()
        for name in ("train.csv", "eval.csv")
    }
    return {
        "step": str(found.step),
        **digests,
        **plots,
        "rows": metric_digest(read_events(run)),
        "metrics": hashlib.sha256(run.metrics.read_bytes()).hexdigest(),
    }


class Zygote:
    """Trainings of one process, started quickly (tests/faults/zygote.py). A context manager."""

    def __enter__(self) -> Zygote:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()
        self._running: Child | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> dict[str, int]:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def start(self, run: RunDir, *arguments: str, **env: str) -> Child:
        if self._running is not None:  # its test failed before it could wait
            self._running.signal(signal.SIGKILL)
            self._running.wait()
        errors = run.path.with_name(run.id + ".err")
        errors.write_text("")
        order = {
            "argv": ["--run-dir", str(run.path), *arguments],
            "env": env,
            "errors": str(errors),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        self._running = Child(self._answer()["pid"], errors, self)
        return self._running

    def train(self, run: RunDir, *arguments: str, **env: str) -> tuple[int, str]:
        """Exit code (negative: a signal) and what was said."""
        return self.start(run, *arguments, **env).wait()


@dataclass
class Child:
    """One training; `wait` must be called before the next is started."""

    pid: int
    errors: Path
    zygote: Zygote
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; None before."""
        answers = self.zygote._server.stdout
        if self.code is None and select.select([answers], [], [], 0)[0]:
            self.code = self.zygote._answer()["code"]
        return self.code

    def last_words(self) -> str:
        return self.errors.read_text()

    def wait(self) -> tuple[int, str]:
        code = self.zygote._answer()["code"] if self.code is None else self.code
        self.zygote._running = None
        return code, self.errors.read_text()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
