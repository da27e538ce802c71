"""`python -m dgc.jobs.fingerprint`: a determinism receipt. Some seeded training steps of a small
network, hashed one by one.

Two machines (or two builds) that write the same digest computed the same bits: every loss, every
parameter and buffer after every step. Where they do not, the receipts name the first step and the
facts of the machines that differ.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import dgc
from dgc.errors import UsageError
from dgc.jobs.reply import reply
from dgc.kernels.cpu import library
from dgc.run import provenance
from dgc.talk import run_program
from dgc.train import seeding

# small enough for seconds, and with each kind of layer in it
BATCH, SIZE, CLASSES = 16, 32, 10
NETWORK: dict[str, Any] = {
    "stages": [2, 2, 2],
    "growth": [8, 16, 32],
    "bottleneck": 4,
    "group_3x3": 4,
    "heads": 4,
}


def receipt(steps: int, seed: int, device: str, threads: int | None = None) -> dict[str, Any]:
    """{digest, steps: [{step, loss, digest}], facts}. 20 steps take a few seconds on a CPU."""
    seeding.set_switches(deterministic=True, threads=threads)
    seeding.seed_everything(seed)
    began = time.monotonic()
    rows = list(_train(steps, torch.device(device)))
    return {
        "digest": rows[-1]["digest"],
        "seed": seed,
        "network": NETWORK,
        "steps": rows,
        "facts": facts(torch.device(device)),
        "seconds": round(time.monotonic() - began, 3),
    }


def _train(steps: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """One row a step: its loss to the last bit, and a digest of everything up to here."""
    model = dgc.create_model(
        "dydensenet", form="dgc", stem="cifar", num_classes=CLASSES, gate_factor=0.25, **NETWORK
    )
    model = model.to(device).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    # a generator of its own: what the network draws must not move the images
    source = torch.Generator().manual_seed(torch.initial_seed())
    digest = hashlib.sha256()
    for step in range(steps):
        # pruned like a training: gates and thresholds are part of what is compared
        dgc.set_progress(model, step / steps)
        images = torch.randn(BATCH, 3, SIZE, SIZE, generator=source).to(device)
        labels = torch.randint(CLASSES, (BATCH,), generator=source).to(device)
        loss = functional.cross_entropy(model(images), labels) + 1e-5 * dgc.gate_l1(model)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        digest.update(state_digest(model, loss))
        yield {"step": step + 1, "loss": float(loss.detach()).hex(), "digest": digest.hexdigest()}


def state_digest(model: nn.Module, loss: torch.Tensor) -> bytes:
    """SHA-256 over a loss and all tensors of a model, by name."""
    digest = hashlib.sha256(loss.detach().cpu().numpy().tobytes())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def facts(device: torch.device) -> dict[str, Any]:
    """What may change the bits: processor, threads, torch's build, device."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        **provenance.machine(),
        "dgc": dgc.__version__,
        "code": provenance.code_digest(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **library.facts(),
        "cuda": torch.version.cuda,
        "gpu": gpu,
        "device": str(device),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.fingerprint", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    def make() -> dict[str, Any]:
        _check(options.steps, options.device)
        return receipt(options.steps, options.seed, options.device, options.threads)

    return reply(options.json, make)


def _check(steps: int, device: str) -> None:
    if steps < 1:
        raise UsageError(f"--steps {steps}: should be at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device here: use --device cpu")


if __name__ == "__main__":
    run_program(main)
