"""Run directories in the exact format of dgc.run, made without training: for tests, screenshots
and benchmarks.

Everything follows from the arguments (a fixed clock, hashed noise), so that frames and pictures are
reproducible.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dgc import schedule
from dgc.recipe.load import dump_recipe, parse_recipe
from dgc.run.events import EventKind, encode_event
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.process import process_start
from dgc.run.status import Status, write_status

T0 = 1_767_603_600.0  # 2026-01-05 09:00:00 UTC
HOST_ELSEWHERE = "node-7.example"
LAYERS = (
    ("dense1.layer1.conv1", 16),
    ("dense1.layer2.conv1", 24),
    ("dense2.layer1.conv1", 48),
    ("dense3.layer1.conv1", 96),
)


@dataclass(frozen=True)
class Spec:
    """One run to make. `now_step` is how far it is; `pid` 0 makes a process that no longer is."""

    recipe: str = "demo_fashion"
    title: str = "Fashion-MNIST, four heads"
    suffix: str = "aaaaaa"
    seed: int = 0
    lr: float = 0.1
    form: str = "dgc"
    epochs: int = 6
    steps_per_epoch: int = 100
    now_step: int = 600
    state: str = "done"
    reason: str = ""
    pid: int = 0
    host: str = ""
    started: float = T0
    step_seconds: float = 0.5
    final_error: float = 8.0
    target: float = 9.0
    nan_at: int | None = None
    extra_metrics: int = 0
    gates: bool = True
    log_lines: int = 40
    images_per_s: float = 410.0

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def clock(self, step: int) -> float:
        return self.started + step * self.step_seconds


def make(runs: Path, spec: Spec) -> RunDir:
    """Write one whole run directory."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(spec.started))
    run = RunDir(runs / f"{stamp}-{spec.recipe}-{spec.suffix}")
    run.path.mkdir(parents=True)
    run.recipe.write_text(
        dump_recipe(parse_recipe(yaml.safe_dump(recipe(spec), sort_keys=False), "synthetic"))
    )
    _write_records(run, spec)
    run.events.write_bytes(b"".join(event_lines(spec)))
    _write_results(run, spec)
    set_status(run, spec)
    return run


def recipe(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.recipe,
        "title": spec.title,
        "source": "ours",
        "tags": ["demo"],
        "seed": spec.seed,
        "model": {
            "name": "dydensenet",
            "form": spec.form,
            "stem": "cifar",
            "num_classes": 10,
            "heads": 4,
            "squeeze_rate": 16,
            "gate_factor": 0.25,
            "stages": [2, 2, 2],
            "growth": [8, 16, 32],
            "bottleneck": 4,
            "group_3x3": 4,
        },
        "data": {
            "name": "fashion_mnist",
            "augment": "crop_flip",
            "image_size": 32,
            "crop_padding": 2,
            "mean": [0.286, 0.286, 0.286],
            "std": [0.353, 0.353, 0.353],
            "workers": 2,
        },
        "optim": {
            "lr": spec.lr,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "gate_l1": 1e-5,
        },
        "train": {"epochs": spec.epochs, "batch_size": 64, "log_every": 20},
        "eval": {"batch_size": 256, "every_epochs": 1},
        "checkpoint": {"every_seconds": 600, "keep_last": 2},
        "expect": [
            {
                "metric": "top1_error",
                "value": spec.target,
                "tolerance": 0.5,
                "source": "ours: mean of three seeds",
            }
        ],
        "origin": {
            "optim.lr": "paper",
            "optim.gate_l1": "released code",
            "train.epochs": "ours: minutes on two cores",
        },
    }


def noise(step: int, salt: int) -> float:
    """A fixed number in [-1, 1) for each step and salt."""
    return math.sin(step * 12.9898 + salt * 78.233) * 43758.5453 % 1 * 2 - 1


def loss_at(spec: Spec, step: int) -> float:
    p = step / spec.steps
    return (
        0.25
        + 0.05 * spec.final_error / 8
        + 2.0 * math.exp(-6 * p)
        + 0.12 * (1.2 - p) * noise(step, spec.seed)
    )


def event_lines(spec: Spec, first: int = 0) -> Iterator[bytes]:
    """The log of steps first+1 .. now_step, in the order in which the trainer writes it."""
    if first == 0:
        yield encode_event(
            EventKind.START,
            {
                "recipe": spec.recipe,
                "world_size": 1,
                "steps": spec.steps,
                "epochs": spec.epochs,
                "resumed": False,
            },
            now=spec.clock(0),
        )
    for step in range(first + 1, spec.now_step + 1):
        yield from step_lines(spec, step)
    if spec.state in ("done", "stopped", "failed"):
        yield encode_event(
            EventKind.END,
            {"state": spec.state, "reason": spec.reason, "step": spec.now_step},
            now=spec.clock(spec.now_step) + 1,
        )


def step_lines(spec: Spec, step: int) -> Iterator[bytes]:
    now = spec.clock(step)
    yield encode_event(EventKind.STEP, step_fields(spec, step), now=now)
    if step % 20 == 0:
        yield encode_event(EventKind.PERF, perf_fields(spec, step), now=now)
    if step == spec.nan_at:
        yield encode_event(
            EventKind.ALERT, {"level": "error", "text": f"loss is NaN at step {step}"}, now=now
        )
    if step % spec.steps_per_epoch == 0:
        yield from epoch_lines(spec, step, now)


def step_fields(spec: Spec, step: int) -> dict[str, Any]:
    p = (step - 1) / spec.steps
    loss = math.nan if step == spec.nan_at else loss_at(spec, step)
    extra = {
        f"probe/{index:05d}": index + noise(step, index) for index in range(spec.extra_metrics)
    }
    return {
        "step": step,
        "epoch": (step - 1) // spec.steps_per_epoch,
        "progress": p,
        "lr": schedule.cosine(p, spec.lr),
        "loss": loss,
        "cross_entropy": loss - 0.01,
        "gate_l1": 900 * (1.1 - p),
        "error": min(100.0, 30 * loss),
        "inactive": schedule.inactive_channels(p, 96, 0.25),
        **extra,
    }


def perf_fields(spec: Spec, step: int) -> dict[str, Any]:
    rate = spec.images_per_s * (1 + 0.04 * noise(step, 5))
    eta = (spec.steps - step) * spec.step_seconds
    return {
        "step": step,
        "images_per_s": rate,
        "step_ms": 64_000 / rate,
        "data_ms": 3.0 + noise(step, 6),
        "cpu": 170.0 + 12 * noise(step, 7),
        "rss": 812_000_000,
        "gpu_memory": 0,
        "eta_s": eta,
    }


def error_at(spec: Spec, epoch: int) -> float:
    return (
        spec.final_error + 60 * math.exp(-7 * epoch / spec.epochs) + 0.2 * noise(epoch, spec.seed)
    )


def epoch_lines(spec: Spec, step: int, now: float) -> Iterator[bytes]:
    epoch = step // spec.steps_per_epoch
    error = error_at(spec, epoch)
    yield encode_event(
        EventKind.EPOCH,
        {"epoch": epoch, "step": step, "train_loss": loss_at(spec, step), "train_error": error - 1},
        now=now,
    )
    fields = {
        "epoch": epoch,
        "step": step,
        "split": "val",
        "top1_error": error,
        "top5_error": error / 8,
        "loss": error / 30,
    }
    yield encode_event(EventKind.EVAL, {**fields, "samples": 10_000}, now=now + 0.1)
    if spec.gates:
        yield encode_event(
            EventKind.GATES,
            {"epoch": epoch, "step": step, "file": f"gates/epoch-{epoch:04d}.json"},
            now=now + 0.2,
        )
    saved = {
        "step": step,
        "epoch": epoch,
        "path": f"checkpoints/step-{step:06d}",
        "bytes": 3_400_000,
        "ms": 41.0,
        "best": True,
    }
    yield encode_event(EventKind.CHECKPOINT, saved, now=now + 0.3)


def _write_records(run: RunDir, spec: Spec) -> None:
    write_json(
        run.env,
        {
            "python": "3.11.9",
            "torch": {"version": "2.15.0"},
            "cpu": "two cores",
            "device": "cpu",
            "threads": 2,
        },
    )
    write_json(
        run.git,
        {
            "commit": ("0" * 39 + "1") if spec.seed < 2 else "0" * 39 + "2",
            "dirty": False,
            "branch": "main",
        },
    )
    write_json(
        run.data, {"name": "fashion_mnist", "digest": "d1" * 32, "train": 60_000, "val": 10_000}
    )
    executed = 0 if spec.form == "dense" else 1
    macs = {
        "dense": 4_100_000,
        "promised": 1_700_000 if executed else 4_100_000,
        "executed": 1_900_000 if executed else 4_100_000,
    }
    write_json(
        run.model,
        {"name": f"dydensenet-{spec.form}", "parameters": 182_000, "macs": macs, "layers": []},
    )
    write_json(run.argv, {"argv": ["dgcctl", "train", spec.recipe, f"seed={spec.seed}"]})
    stamps = (
        time.strftime("%H:%M:%S", time.gmtime(spec.clock(n * 10))) for n in range(spec.log_lines)
    )
    run.log.write_text(
        "".join(
            f"{stamp} epoch {n // 10} step {n * 10} loss {loss_at(spec, n * 10):.4f}\n"
            for n, stamp in enumerate(stamps)
        )
    )


def _write_results(run: RunDir, spec: Spec) -> None:
    for epoch in range(1, spec.now_step // spec.steps_per_epoch + 1):
        if spec.gates:
            run.gates.mkdir(exist_ok=True)
            write_json(run.gates / f"epoch-{epoch:04d}.json", gate_map(spec, epoch))
        if epoch > spec.now_step // spec.steps_per_epoch - 2:
            _write_checkpoint(run, spec, epoch * spec.steps_per_epoch)
    write_metrics(run, spec)


def write_metrics(run: RunDir, spec: Spec) -> None:
    epoch = spec.now_step // spec.steps_per_epoch
    if not epoch:
        return
    error = error_at(spec, epoch)
    curve = "".join(
        f"{e},{e * spec.steps_per_epoch},{error_at(spec, e)!r}\n" for e in range(1, epoch + 1)
    )
    run.file("plots").mkdir(exist_ok=True)
    (run.file("plots") / "eval.csv").write_text("epoch,step,top1_error\n" + curve)
    model = json.loads(run.model.read_text())
    costs = {f"macs_{name}": value for name, value in model["macs"].items()}
    result = {"top1_error": error, "top5_error": error / 8, "loss": error / 30, "epoch": epoch}
    write_json(run.metrics, {**result, **costs, "parameters": model["parameters"]})
    if spec.state == "done":
        verdict = {
            "metric": "top1_error",
            "value": error,
            "expected": spec.target,
            "tolerance": 0.5,
            "source": "ours: mean of three seeds",
            "passed": error <= spec.target + 0.5,
        }
        write_json(run.verdict, {"verdicts": [verdict]})


def _write_checkpoint(run: RunDir, spec: Spec, step: int) -> None:
    folder = run.checkpoints / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    pointer = {"step": step, "path": f"checkpoints/step-{step:06d}"}
    write_json(run.last, pointer)
    write_json(run.best, pointer)


def gate_map(spec: Spec, epoch: int) -> dict[str, Any]:
    p = min(0.999, epoch / spec.epochs)
    layers = [
        _gate_layer(name, channels, p, index) for index, (name, channels) in enumerate(LAYERS)
    ]
    return {"epoch": epoch, "step": epoch * spec.steps_per_epoch, "layers": layers}


def _gate_layer(name: str, channels: int, p: float, index: int) -> dict[str, Any]:
    inactive = schedule.inactive_channels(p, channels, 0.25)
    share = 1 - inactive / channels
    dense = channels * 64 * 28 * 28
    return {
        "name": name,
        "in_channels": channels,
        "n_inactive": inactive,
        "dense_macs": dense,
        "promised_macs": int(dense * share * 0.25 + 900),
        "executed_macs": int(dense * share * 0.27 + 1500),
        "heads": [_gate_head(channels, share, index * 4 + head) for head in range(4)],
    }


def _gate_head(channels: int, share: float, salt: int) -> dict[str, Any]:
    entropy = max(0.0, 1 - share) * (0.5 + 0.4 * noise(salt, 3))
    most = [[(salt * 7 + k * 3) % channels, round(1 - 0.02 * k, 3)] for k in range(4)]
    least = [[(salt * 5 + k * 2 + 1) % channels, round(0.01 * k, 3)] for k in range(4)]
    return {"active_share": share, "entropy": entropy, "most": most, "least": least}


def set_status(run: RunDir, spec: Spec) -> Status:
    """Write status.json as the trainer would."""
    pid = spec.pid
    status = Status(
        state=spec.state,
        reason=spec.reason,
        exit_code=_exit_code(spec),
        pid=pid or 2**22 + 1,
        start_token=process_start(pid) if pid else 1.0,
        started=spec.started,
        heartbeat=spec.clock(spec.now_step),
        epoch=spec.now_step // spec.steps_per_epoch,
        epochs=spec.epochs,
        step=spec.now_step,
        steps=spec.steps,
        **({"host": spec.host} if spec.host else {}),
    )
    write_status(run, status)
    return status


def _exit_code(spec: Spec) -> int | None:
    return {"done": 0, "failed": 9, "stopped": 75}.get(spec.state)


def advance(run: RunDir, spec: Spec, to_step: int, state: str | None = None) -> Spec:
    """Append what the trainer writes between now and `to_step`, and its status; return the new
    spec.
    """
    later = replace(spec, now_step=to_step, state=state or spec.state)
    with run.events.open("ab") as file:
        file.writelines(event_lines(later, first=spec.now_step))
    set_status(run, later)
    return later


def gallery(runs: Path) -> dict[str, RunDir]:
    """The runs that the tests and the pictures show: three seeds, a dense twin, one in every other
    state.
    """
    specs = {
        "done": Spec(suffix="aaa001", seed=0, final_error=8.1),
        "second": Spec(suffix="aaa002", seed=1, started=T0 + 900, final_error=8.5),
        "third": Spec(suffix="aaa003", seed=2, started=T0 + 1800, final_error=8.3),
        "dense": Spec(
            recipe="demo_dense",
            suffix="bbb001",
            form="dense",
            started=T0 + 2700,
            final_error=8.9,
            gates=False,
            images_per_s=530,
        ),
        "failed": Spec(
            recipe="demo_hot",
            suffix="ccc001",
            lr=4.0,
            started=T0 + 3600,
            now_step=230,
            state="failed",
            nan_at=230,
            reason="loss is NaN at step 230: lower optim.lr; last good: step-000200",
            final_error=30,
        ),
        "stopped": Spec(
            suffix="ddd001",
            seed=3,
            started=T0 + 4500,
            now_step=310,
            state="stopped",
            reason="stopped on request",
        ),
        "died": Spec(
            suffix="eee001",
            seed=4,
            started=T0 + 5400,
            now_step=270,
            state="running",
            final_error=9.5,
        ),
        "live": Spec(
            suffix="fff001",
            seed=5,
            started=T0 + 6300,
            now_step=420,
            state="running",
            pid=os.getpid(),
        ),
    }
    return {name: make(runs, spec) for name, spec in specs.items()}


def fast_steps(run: RunDir, count: int, *, started: float = T0, keys: int = 0) -> None:
    """A log of `count` STEP rows, written quickly (benchmarks: 100,000 points; `keys` more metric
    names in row 1).
    """
    values = (
        0.3
        + 2 * np.exp(-np.arange(count) / count * 6)
        + np.random.default_rng(0).normal(0, 0.05, count)
    )
    losses = values.tolist()
    head = encode_event(
        EventKind.START,
        {"recipe": "big", "world_size": 1, "steps": count, "epochs": 100, "resumed": False},
        now=started,
    )
    extra = {f"probe/{index:05d}": float(index) for index in range(keys)}
    with run.events.open("wb") as file:
        file.write(head)
        for index in range(count):
            p = index / count
            fields = {
                "step": index + 1,
                "epoch": int(p * 100),
                "progress": p,
                "lr": 0.1 * (1 - p),
                "loss": losses[index],
                "cross_entropy": losses[index] * 0.98,
                "gate_l1": 900 * (1.1 - p),
                "error": losses[index] * 30,
                "inactive": int(72 * p),
                **(extra if index < 2 else {}),
            }
            file.write(encode_event(EventKind.STEP, fields, now=started + index * 0.1))
