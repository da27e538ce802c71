"""Of which parts the launches and bytes of a training step on a GPU are made, without a GPU: the
step on fake CUDA tensors (tests.fake_cuda), dense and DGC side by side.

    python -m tests.gpu_parts [--case densenet86-fp32] [--progress 0.9] [--json FILE]

Each operation belongs to the function of the library that asked for it, or to the kind of its name.
What no rule names is "other". Beside the table: what is kept for backward; the step as a CUDA graph
(`train.compile: reduce-overhead`), of which the host starts one launch and the copies in front of it;
and the Triton kernels (`train.backend: triton`), each by the bytes of its arguments.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

import dgc
from dgc.bench.gpu import NETWORKS
from dgc.recipe.schema import OptimSection
from dgc.train.mixing import Target
from dgc.train.optimizers import make_optimizer
from dgc.train.ranks import Ranks
from dgc.train.step import Updater
from dgc.train.step_graph import GraphUpdater, Work
from tests.fake_cuda import DEVICE, Counted, counted_step, fake_cuda, on_device
from tests.recorded_launches import RecordedLaunch, recorded_launches


class PartsCase(NamedTuple):
    network: str
    batch: int
    amp: str


CASES = {
    "densenet86-fp32": PartsCase("densenet86", 64, "off"),
    "densenet86-bf16": PartsCase("densenet86", 64, "bf16"),
    "condensenet-bf16": PartsCase("condensenet", 256, "bf16"),
    "resnet18-bf16": PartsCase("resnet18", 256, "bf16"),
}
_GATES = re.compile(r"layers/gating\.py:|:_gates$|:gates_backward$|:gate_l1$")
# operations whose part does not depend on who asks for them, but for those of gates
_BY_NAME = (
    (r"batch_norm|var_mean|lerp|::relu|threshold", "BatchNorm, ReLU"),
    (r"convolution", "convolution"),
    (r"::cat$", "concatenation"),
    (r"_pool|adaptive", "pooling"),
    (r"_to_copy", "casts"),
)
# who asks: file and function, the innermost frame that a row names
_BY_PLACE = (
    (r"layers/(selection|geometry)\.py:", "selection"),
    (r"layers/(norm|batch_link)\.py:|modules/batchnorm\.py:", "BatchNorm, ReLU"),
    (r"(gpu_layer|fused)\.py:", "pooling"),
    (r"static\.py:", "copies"),
    (r"layers/shuffle\.py:", "shuffle"),
    (r"layers/algorithms/", "gather, mask"),
    (r"fake_cuda\.py:(_add|_accumulate)", "sums of gradients"),
    (r"train/(step|optimizers|mixing|distillation)\.py:|run/metrics\.py:", "trainer, loss, head"),
)


@dataclass
class InParts(Counted):
    """`parts`: launches and bytes by part and direction."""

    parts: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    unnamed: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, size: int) -> None:
        super().note(name, size)
        places = list(_places(sys._getframe(1)))
        part = _part(name, places)
        if part == "other":
            self.unnamed[f"{name} {places[:3]}"] += size
        back = any(place.endswith("fake_cuda.py:_called") for place in places)
        found = self.parts.setdefault((part, "backward" if back else "forward"), [0, 0])
        found[0] += 1
        found[1] += size


def _places(frame: FrameType | None) -> Any:
    while frame is not None:
        code = frame.f_code
        ours = "/dgc/" in code.co_filename or "/torch/nn/modules/" in code.co_filename
        engine = code.co_filename.endswith("/fake_cuda.py") and "dispatch" not in code.co_name
        if ours or engine:
            yield f"{code.co_filename}:{code.co_name}"
        frame = frame.f_back


def _part(name: str, places: list[str]) -> str:
    if any(map(_GATES.search, places)):
        return "gates"
    for pattern, part in _BY_NAME:
        if re.search(pattern, name):
            return part
    for place in places:
        for pattern, part in _BY_PLACE:
            if re.search(pattern, place):
                # the product of a convolution is no mask
                product = part == "gather, mask" and re.search(r"bmm$", name)
                return "convolution" if product else part
    return "other"


def updater(
    case: PartsCase, form: str, backend: str = "auto", kind: Any = Updater, **more: Any
) -> Updater:
    preset, _, _ = NETWORKS[case.network]
    net = on_device(lambda: dgc.create_model(preset, form=form))
    dgc.set_backend(net, backend)  # type: ignore[arg-type]
    rule = make_optimizer(OptimSection(lr=0.1), net, torch.zeros(1, device=DEVICE))
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    made: Updater = kind(net, net, rule, scaler, Ranks(0, 1, 0, DEVICE), case.amp, 1e-5, 1, **more)
    return made


def in_parts(case: PartsCase, form: str, progress: float) -> InParts:
    """One step."""
    found = InParts()
    with fake_cuda():
        counted_step(lambda: updater(case, form), shape_of(case), progress, counted=found)
    return found


def shape_of(case: PartsCase) -> tuple[int, ...]:
    size = NETWORKS[case.network][1]
    return case.batch, 3, size, size


def kept(case: PartsCase, form: str, progress: float) -> int:
    """Bytes of what forward keeps for backward, each storage once, parameters left out."""
    found: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if not isinstance(t, nn.Parameter):
            found[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    with fake_cuda():
        made = updater(case, form)
        dgc.set_progress(made.module, progress)
        images, labels = (torch.empty(s, device=DEVICE) for s in (shape_of(case), case.batch))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            parts = made._losses(images, Target(labels.long()))
        total = sum(found.values())  # while the graph, and with it each storage, is alive
        del parts
    return total


@dataclass
class Within:
    """Stands for the capture: what runs in it is counted apart."""

    counted: Counted
    launches: int = 0

    def run(self, work: Work) -> Tensor:
        before = self.counted.launches.total()
        found = work()
        self.launches = self.counted.launches.total() - before
        return found

    def capture(self, work: Work) -> Work:
        return lambda: self.run(work).clone()


def as_graph(case: PartsCase, form: str, progress: float) -> tuple[int, int]:
    """Launches of the host for a step that is replayed, and those within the graph."""
    counted = Counted()
    within = Within(counted)
    with fake_cuda(), mock.patch("dgc.train.step_graph.WARM_UP", 0):
        counted_step(
            lambda: updater(case, form, kind=GraphUpdater, capturing=within),
            shape_of(case), progress, counted=counted,
        )  # fmt: skip
    return counted.launches.total() - within.launches + 1, within.launches


class _Kernels(Counted):
    """Counts PyTorch's operations, and forgets the kernels of the step before."""

    def __enter__(self) -> Any:
        self.recorded.clear()
        return super().__enter__()

    recorded: list[RecordedLaunch]


def triton_bytes(case: PartsCase, progress: float) -> tuple[int, int]:
    """Launches and bytes of a step by the Triton kernels and PyTorch's operations around them."""
    counted = _Kernels()
    with fake_cuda(), recorded_launches() as counted.recorded:
        counted_step(
            lambda: updater(case, "dgc", "triton"), shape_of(case), progress, counted=counted
        )
    kernels = counted.recorded
    return (
        counted.launches.total() + len(kernels),
        counted.bytes + sum(kernel.bytes for kernel in kernels),
    )


def rows(found: InParts) -> dict[str, list[int]]:
    """By part: launches forward and backward, bytes forward and backward."""
    table: dict[str, list[int]] = {}
    for (part, direction), (launches, size) in found.parts.items():
        row = table.setdefault(part, [0, 0, 0, 0])
        back = direction == "backward"
        row[back] += launches
        row[2 + back] += size
    return dict(sorted(table.items(), key=lambda item: -sum(item[1][2:])))


def named(found: InParts) -> float:
    """The share that the rules name, of launches or of bytes, whichever is less."""
    other = rows(found).get("other", [0, 0, 0, 0])
    return 1 - max(sum(other[:2]) / found.launches.total(), sum(other[2:]) / found.bytes)


def told(dense: InParts, dynamic: InParts) -> str:
    """A table: each part's launches and GB, DGC and dense; and the ratio of the whole."""
    lines = [f"{'part':18}{'launches fwd bwd':>18}{'dense':>7}{'GB fwd':>9}{'bwd':>8}{'dense':>8}"]
    others = rows(dense)
    for part, (ahead, back, read, read_back) in rows(dynamic).items():
        a, b, c, d = others.pop(part, [0, 0, 0, 0])
        lines.append(
            f"{part:18}{ahead:12}{back:6}{a + b:7}{read / 1e9:9.2f}{read_back / 1e9:8.2f}"
            f"{(c + d) / 1e9:8.2f}"
        )
    for part, (a, b, c, d) in others.items():
        lines.append(f"{part:18}{0:12}{0:6}{a + b:7}{0:9.2f}{0:8.2f}{(c + d) / 1e9:8.2f}")
    n, m = (found.launches.total() for found in (dynamic, dense))
    lines.append(
        f"all: {n} launches, {n / m:.2f} times the dense network's {m};"
        f" {dynamic.bytes / 1e9:.2f} GB, {dynamic.bytes / dense.bytes:.2f} times its"
        f" {dense.bytes / 1e9:.2f}; named {named(dynamic):.1%}"
    )
    return "\n".join(lines)


def _beside(case: PartsCase, dense: InParts, progress: float) -> None:
    keeps = [kept(case, form, progress) / 1e9 for form in ("dgc", "dense")]
    print(f"kept for backward: {keeps[0]:.2f} GB, dense {keeps[1]:.2f}")
    (host, within), (_, other) = (as_graph(case, form, progress) for form in ("dgc", "dense"))
    print(f"as a graph: the host launches {host}; within are {within}, {within / other:.2f} times")
    launches, size = triton_bytes(case, progress)
    print(
        f"triton: {launches} launches, {launches / dense.launches.total():.2f} times;"
        f" {size / 1e9:.2f} GB, {size / dense.bytes:.2f} times"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_parts", description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--progress", type=float, default=0.9)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args(argv)
    found = {}
    for name in a.case or CASES:
        dense, dynamic = (in_parts(CASES[name], form, a.progress) for form in ("dense", "dgc"))
        print(f"{name}, batch {CASES[name].batch}, progress {a.progress}")
        print(told(dense, dynamic), flush=True)
        for what, size in dynamic.unnamed.most_common(5):
            print(f"  other: {what} {size / 1e9:.2f} GB")
        _beside(CASES[name], dense, a.progress)
        found[name] = {"dense": rows(dense), "dgc": rows(dynamic)}
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
