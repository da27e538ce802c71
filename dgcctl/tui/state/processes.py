"""CPU, memory and GPU of a run's process, as the dashboard's own process sees them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Sample:
    """One look: `cpu` in percent of one core, `rss` in bytes, the rest in percent (`gpu` None:
    there is none).
    """

    cpu: float
    rss: int
    processes: int
    host_cpu: float
    host_memory: float
    gpu: float | None = None


class Sampler:
    """Keeps psutil's process objects, for a CPU share is a difference between two looks."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._smi = shutil.which("nvidia-smi")

    def __call__(self, pid: int) -> Sample | None:
        """Sum over the process and its children; None where it is gone."""
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return None
        cpu, rss = 0.0, 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                # The object of the first look, not this one: it remembers the times of its last
                # look, and a fresh one would say 0 %.
                known = self._known.setdefault(process.pid, process)
                cpu += known.cpu_percent()
                rss += known.memory_info().rss
        host_memory = float(psutil.virtual_memory().percent)
        return Sample(cpu, rss, len(family), psutil.cpu_percent(), host_memory, self._gpu())

    def _gpu(self) -> float | None:
        """Mean use of the GPUs, by nvidia-smi where there is one."""
        if self._smi is None:
            return None
        command = [self._smi, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            said = subprocess.run(
                command, capture_output=True, text=True, timeout=2, check=True
            ).stdout.split()
            return sum(map(float, said)) / len(said) if said else None
        return None
