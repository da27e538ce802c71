"""One way of training a network, in its own process: `python -m dgc.bench.training_contenders
NETWORK PROGRESS NAME THREADS`.

It makes two steps to warm up, prints {"peak_mb", "saved_bytes", "batch"}, and then, for each line
that it is sent, it makes a step and prints its seconds. It ends with its standard input; its memory
goes back to the system with it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import dgc
from dgc.bench.peak_memory import saved_bytes
from dgc.talk import put, run_program

WARM = 2


class TrainedNetwork(NamedTuple):
    model: str
    batch: int
    size: int
    classes: int
    options: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default, read only


NETWORKS = {
    "densenet86": TrainedNetwork("cifar10_dydensenet86_h4", 64, 32, 10),
    "condensenet": TrainedNetwork("imagenet_dydensenet_h4", 8, 224, 1000),
    "resnet18": TrainedNetwork("imagenet_dyresnet18_h4", 16, 224, 1000),
    # for tests of the program itself
    "tiny": TrainedNetwork(
        "dydensenet", 4, 16, 4, {"stages": (1, 1), "growth": (8, 8), "num_classes": 4}
    ),
}


class Contender(NamedTuple):
    """`backend`: what dynamic layers compute with (see dgc.set_backend)."""

    form: str = "dense"
    backend: str = "auto"
    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False


CONTENDERS = {
    "dense": Contender(),
    "dense_channels_last": Contender(channels_last=True),
    "dense_bf16": Contender(bf16=True),
    "dense_bf16_channels_last": Contender(bf16=True, channels_last=True),
    "dense_compiled": Contender(compiled=True),
    "dgc": Contender("dgc"),
    "dgc_bf16": Contender("dgc", bf16=True),
    "plain": Contender("dgc", "plain"),
    "masked": Contender("dgc", "masked"),
}


class Trainer:
    """A network on one batch of noise, and its optimizer."""

    def __init__(self, network: str, progress: float, name: str) -> None:
        n, self.contender = NETWORKS[network], CONTENDERS[name]
        self.order = (
            torch.channels_last if self.contender.channels_last else torch.contiguous_format
        )
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(n.batch, 3, n.size, n.size, generator=generator)
        self.images = images.to(memory_format=self.order)
        self.labels = torch.randint(0, n.classes, (n.batch,), generator=generator)
        torch.manual_seed(0)
        self.net = (
            dgc.create_model(n.model, form=self.contender.form, **n.options)
            .train()
            .to(memory_format=self.order)
        )
        dgc.set_progress(self.net, progress)
        dgc.set_backend(self.net, self.contender.backend)  # type: ignore[arg-type]
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.net) if self.contender.compiled else self.net
        )
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True
        )

    def loss(self) -> Tensor:
        precision: AbstractContextManager[Any] = (
            torch.autocast("cpu", dtype=torch.bfloat16) if self.contender.bf16 else nullcontext()
        )
        with precision:
            logits = self.forward(self.images)
        return F.cross_entropy(logits.float(), self.labels) + 1e-5 * dgc.gate_l1(self.net)

    def step(self) -> float:
        """Seconds of forward, backward and update."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.loss().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return time.perf_counter() - start

    def saved(self) -> int | None:
        """Bytes kept for backward; a compiled network does not tell."""
        return None if self.contender.compiled else saved_bytes(self.net, self.loss)


def peak_mb() -> float:
    """Most resident memory of this program so far. Not ru_maxrss where it can be helped: a child's
    starts at what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        high = next(
            (line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None
        )
        if high is not None:
            return int(high.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def native_bf16() -> bool:
    """Whether this processor multiplies in BF16; elsewhere it is emulated."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def main(argv: list[str]) -> int:
    network, progress, name, threads = argv
    torch.set_num_threads(int(threads))
    trainer = Trainer(network, float(progress), name)
    for _ in range(WARM):
        trainer.step()
    peak = peak_mb()  # before anything is done that training does not do
    put(json.dumps({"peak_mb": peak, "saved_bytes": trainer.saved(), "batch": len(trainer.images)}))
    for _ in sys.stdin:
        put(json.dumps(trainer.step()))
    return 0


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
