"""What runs natively of a network, and what stands in the way of the rest."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dgc.infer.compile import LOWERINGS, NativeModule, Precision, compile_parts, graph
from dgc.infer.graph import UnknownError
from dgc.infer.plan_cache import PlanCache
from dgc.infer.plan_file import image_of
from dgc.infer.read import Blocker, blockers, read
from dgc.kernels.cpu import library
from dgc.layers import DynamicGroupConv2d


@dataclass(frozen=True)
class NativePart:
    """A module with a plan of its own."""

    module: str
    operations: int
    dynamic_layers: int


@dataclass(frozen=True)
class InferenceReport:
    """`plan`: whole (one native program), parts (some modules have one each) or none. `layers`: of
    how many dynamic layers `native` run natively."""

    plan: str
    parts: tuple[NativePart, ...]
    blockers: tuple[Blocker, ...]
    native: int
    layers: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "plan": self.plan,
            "parts": [vars(part) for part in self.parts],
            "blockers": [vars(blocker) for blocker in self.blockers],
            "native_layers": self.native,
            "dynamic_layers": self.layers,
        }

    def __str__(self) -> str:
        layers = f"{self.native} of {self.layers} dynamic layers run natively"
        if self.plan == "whole":
            return f"one native plan, {self.parts[0].operations} operations; {layers}"
        head = {"parts": f"{len(self.parts)} native parts", "none": "no native plan"}[self.plan]
        rows = [
            f"  {b.operation} | {b.module or 'the network itself'} | {b.count}"
            for b in self.blockers
        ]
        parts = [f"  {p.module}: {p.operations} operations" for p in self.parts]
        blocked = ["what stands in the way of one plan (operation | first module | count):", *rows]
        return "\n".join([f"{head}; {layers}", *blocked, *(["parts:", *parts] if parts else [])])


@torch.no_grad()
def explain_inference(
    model: nn.Module, x_BCHW: Tensor, *, precision: Precision = "float32"
) -> InferenceReport:
    """What `dgc.compile_for_inference` makes of `model` for images like these: one plan, parts or
    none, and every operation that stands in the way of one plan.

    The model is left as it is; where there is no one plan, a copy runs once on the images.
    """
    model = model.original if isinstance(model, NativeModule) else model
    # compile_parts puts compiled modules into it.
    model = copy.deepcopy(model).eval()
    layers = sum(isinstance(m, DynamicGroupConv2d) for m in model.modules())
    if library.load() is None:
        why = f"no native kernels: {library.describe()['why_not']}"
        return InferenceReport("none", (), (Blocker(why, "", 1),), 0, layers)
    shape = image_of(x_BCHW)
    try:
        plan = LOWERINGS[precision](graph(model, precision, shape), shape).plan()
        return InferenceReport(
            "whole", (NativePart("", len(plan.ops), layers),), (), layers, layers
        )
    except UnknownError as error:
        found = _blockers(model, shape) or [Blocker(str(error), "", 1)]
    compile_parts(model, precision, PlanCache())
    model(x_BCHW)
    parts = tuple(_parts(model))
    native = sum(part.dynamic_layers for part in parts)
    return InferenceReport("parts" if parts else "none", parts, tuple(found), native, layers)


def _blockers(model: nn.Module, shape: tuple[int, int, int]) -> list[Blocker]:
    try:
        return blockers(read(model, shape))
    except UnknownError:
        return []


def _parts(model: nn.Module) -> list[NativePart]:
    """The outermost modules that have a plan."""
    found: list[NativePart] = []
    taken: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, NativeModule) or any(name.startswith(t + ".") for t in taken):
            continue
        plans = [plan for plan in module.made if plan is not None]
        if plans:
            taken.append(name)
            inside = sum(isinstance(m, DynamicGroupConv2d) for m in module.modules())
            # Users know their modules by the names before compiling.
            path = name.replace(".original", "").replace("original.", "")
            found.append(NativePart(path, len(plans[0].ops), inside))
    return found
