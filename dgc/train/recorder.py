"""What the first rank writes about a run: environment, model, log, status with a heartbeat, events,
curves.

Other ranks hold a recorder that writes nothing, so that the loop reads the same on all of them.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgc.data.chunks import chunk_size
from dgc.errors import DgcError
from dgc.kernels.cpu import library
from dgc.layers import iter_dgc
from dgc.layers.macs import Complexity, count
from dgc.recipe.load import Recipe
from dgc.run import metrics, provenance
from dgc.run.events import EventKind, EventWriter, encode_event
from dgc.run.files import atomic_write, write_json
from dgc.run.paths import RunDir
from dgc.run.status import HEARTBEAT_SECONDS, State, Status, read_status, write_status
from dgc.train import costs
from dgc.train.ranks import Ranks


class Recorder:
    """Writes the run directory, if this is the first rank."""

    def __init__(self, run: RunDir, ranks: Ranks, recipe: Recipe) -> None:
        self.run = run
        self.active = ranks.first
        self.status = Status(state=State.RUNNING, epochs=recipe.train.epochs)
        self._every = recipe.train.log_every
        self._train_rows: list[Mapping[str, Any]] = []
        self._eval_rows: list[Mapping[str, Any]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._events: EventWriter | None = None
        self._lock = threading.Lock()
        self._before: Status | None = None
        # whether the run was taken up: before that a refusal leaves a resumed one as it was
        self.begun = False

    @property
    def is_resumed(self) -> bool:
        """Whether the run had been started before."""
        return self._before is not None and self._before.state != State.QUEUED

    def open(self) -> None:
        """From here on the run is `running`, and a thread says so every few seconds."""
        if not self.active:
            return
        self._events = EventWriter(self.run)
        self._keep_start()
        self.write_status()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _keep_start(self) -> None:
        """A resumed run began when it was first started, and nobody ran it while it was stopped."""
        # a status that cannot be read (a run just made, a damaged file) is no reason not to train
        with contextlib.suppress(OSError, DgcError):
            self._before = read_status(self.run)
            if self._before.state != State.QUEUED:
                stopped = max(0.0, self.status.started - self._before.heartbeat)
                self.status.paused = self._before.paused + stopped
                self.status.started = self._before.started

    def withdraw(self) -> None:
        """The run is not taken up after all: it stays what it was."""
        self._quiet()
        if self._events is not None:
            self._events.close()
            self._events = None
        if self.active and self._before is not None:
            with contextlib.suppress(OSError):
                write_status(self.run, self._before)

    def _quiet(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()

    def close(self, state: State, reason: str = "", exit_code: int = 0) -> None:
        """The last status and the END event.
        A disk that refuses them must not hide why the run ended.
        """
        # the heartbeat ends first, or it would write `running` over the last state
        self._quiet()
        if not self.active or self._events is None:
            return
        self.status.state, self.status.reason, self.status.exit_code = state, reason, exit_code
        # the event first: a reader that sees the end in status.json finds it in the log
        with contextlib.suppress(OSError, DgcError):
            self.event(EventKind.END, state=str(state), reason=reason, step=self.status.step)
            self._events.sync()
        self._events.close()
        with contextlib.suppress(OSError, DgcError):
            self.write_status()

    def _beat(self) -> None:
        # a thread of its own: a step of minutes is no sign of death
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # the next checkpoint meets the same disk and reports it
            with contextlib.suppress(OSError, DgcError):
                self.write_status()

    def write_status(self) -> None:
        if self.active:
            # the heartbeat and the loop write the same file
            with self._lock:
                self.status.heartbeat = time.time()
                write_status(self.run, self.status)

    # --- events and log ---------------------------------------------------------------------------

    def event(self, kind: EventKind, **fields: Any) -> None:
        if self._events is not None:
            self._events.append(kind, **fields)

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """STEP events of several steps, in one write."""
        if self._events is not None and rows:
            self._events.append_lines(encode_event(EventKind.STEP, row) for row in rows)
            # thinned out here: the log has every step, the curves have what a chart can show
            self._train_rows += [row for row in rows if row["step"] % self._every == 0]

    def evaluation(self, row: dict[str, Any]) -> None:
        """An EVAL event, and a row of eval.csv when the curves are written next."""
        self.event(EventKind.EVAL, **row)
        self._eval_rows.append(row)

    def sync(self) -> None:
        if self._events is not None:
            self._events.sync()

    def log(self, text: str, level: str = "info") -> None:
        """A line in log.txt; warnings and errors are an ALERT event too."""
        if not self.active:
            return
        provenance.append_log(self.run, f"{level}: {text}")
        if level != "info":
            self.event(EventKind.ALERT, level=level, text=text)

    def set_note(self, notes: list[str]) -> None:
        """What every reader of this run should know, e.g. that it was not resumed exactly."""
        self.status.note = "; ".join(notes)

    # --- curves -----------------------------------------------------------------------------------

    def restore_curves(self, rows: list[dict[str, Any]]) -> None:
        """Take the curves of a resumed run from its log."""
        self._train_rows = [
            row for row in rows if row["kind"] == EventKind.STEP and row["step"] % self._every == 0
        ]
        self._eval_rows = [row for row in rows if row["kind"] == EventKind.EVAL]

    def write_curves(self) -> None:
        """plots/train.csv (every log_every-th step) and plots/eval.csv."""
        if self.active:
            folder = self.run.file("plots")
            folder.mkdir(exist_ok=True)
            _write_csv(folder / "train.csv", metrics.train_columns(), self._train_rows)
            # averaged weights have columns only where there are averaged weights
            found = {key for row in self._eval_rows for key in row}
            _write_csv(folder / "eval.csv", metrics.eval_columns(found), self._eval_rows)


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode(), point="plots")


# --- what it runs on ------------------------------------------------------------------------------


def environment(recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """env.json: machine, interpreter, packages,
    torch's build, device, threads, determinism switches.
    """
    return {
        **provenance.machine(),
        "device": device_name(ranks.device),
        "world_size": ranks.world,
        "threads": torch.get_num_threads(),
        **library.facts(),
        "instruction_limits": provenance.instruction_limits(),
        "evaluation_chunk": chunk_size(ranks.device),
        "determinism": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
            "recipe": recipe.train.deterministic,
            "tf32": {
                "convolutions": torch.backends.cudnn.allow_tf32,
                "matrices": torch.backends.cuda.matmul.allow_tf32,
            },
        },
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if ranks.device.type == "cuda" else None,  # type: ignore[no-untyped-call]
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "build": torch.__config__.show(),
        },
        "packages": provenance.packages(),
    }


def device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({provenance.cpu_name()})"
    )


def model_facts(recipe: Recipe, model: nn.Module, layout: str, amp: str) -> dict[str, Any]:
    """model.json: memory format, mixed precision, parameters and MACs (dense, promised, executed)
    in all and by layer, at the end of the schedule. What the evaluated network costs stands beside
    its error, in metrics.json.
    """
    with costs.end_of_schedule(model):
        complexity = count(model, recipe.data.image_size, device="cpu")
    return {
        "name": recipe.model.name,
        "form": recipe.model.form,
        "memory_format": layout,
        "amp": amp,
        "parameters": complexity.params,
        costs.SCHEDULE_END: costs.three_ways(complexity),
        "layers": [asdict(row) for row in complexity.rows],
    }


def layer_macs(model: nn.Module, cost: Complexity) -> dict[str, dict[str, int]]:
    """MACs of each DGC layer of `model`, out of the whole `cost`, for gate maps."""
    names = {name for name, _ in iter_dgc(model)}
    return {
        row.name: {
            "promised_macs": round(row.promised),
            "executed_macs": round(row.executed),
            "dense_macs": round(row.dense),
        }
        for row in cost.rows
        if row.name in names
    }


def memory_facts(ranks: Ranks) -> dict[str, int]:
    """Peak resident memory of this process, and of its GPU, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rss = peak if sys.platform == "darwin" else peak * 1024
    gpu = torch.cuda.max_memory_allocated(ranks.device) if ranks.device.type == "cuda" else 0
    return {"rss": rss, "gpu_memory": gpu}


def write_once(path: Path, facts: Mapping[str, Any]) -> None:
    """A record of a run's start: a resumed run leaves the first one as it is."""
    # the circumstances of the first start; changes since then are in RESUME events
    if not path.exists():
        write_json(path, facts, point="record")
