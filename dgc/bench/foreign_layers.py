"""Where the time of a converted network goes, layer by layer, beside the dense one: both as native
plans, one thread, the best of some rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dgc.bench.foreign_networks import Case
from dgc.conversion.report import LayerReport
from dgc.infer.compile import NativeModule
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind, Op

ROUNDS = 10
PRODUCTS = (Kind.CONV, Kind.WINO, Kind.DEPTHWISE, Kind.CONV8, Kind.LINEAR)


@dataclass(frozen=True)
class ModuleTime:
    """What one module of a network takes in its plan."""

    ms: float
    kinds: tuple[str, ...]


def parts(model: nn.Module, x: torch.Tensor, rounds: int = ROUNDS) -> dict[str, ModuleTime] | None:
    """By module, in the order of the plan; None where there is no plan of the whole network."""
    timed = _timed(model, x, rounds)
    if timed is None:
        return None
    found: dict[str, tuple[float, dict[str, None]]] = {}
    for op, path, ms in timed:
        before, known = found.get(path, (0.0, {}))
        found[path] = before + ms, known | {_kind(op): None}
    return {path: ModuleTime(ms, tuple(known)) for path, (ms, known) in found.items()}


def kinds(made: Case, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """What all operations of each kind take, dense and at each gate_factor: how many there are and
    their milliseconds, one thread. Empty without native plans of the whole.
    """
    models = {"dense": made.dense, **{f"{f:g}": one.model for f, one in made.converted.items()}}
    found: dict[str, dict[str, Any]] = {}
    for column, model in models.items():
        timed = _timed(model, made.x, rounds)
        if timed is None:
            return []
        for op, _, ms in timed:
            row = found.setdefault(_kind_of_product(op), {})
            count, total = row.get(column, (0, 0.0))
            row[column] = (count + 1, round(total + ms, 4))
    order = sorted(found.items(), key=lambda kv: -max(total for _, total in kv[1].values()))
    return [{"kind": kind, **columns} for kind, columns in order]


def _kind_of_product(op: Op) -> str:
    if op.kind != Kind.CONV:
        return _kind(op)
    size = {1: "1x1", 9: "3x3", 25: "5x5", 49: "7x7"}.get(op.taps, f"{op.taps} taps")
    groups = "dynamic" if op.dynamic else "grouped" if op.heads > 1 else "static"
    return f"conv {size}, {groups}" + (", over outputs" if op.lanes else "")


def _timed(model: nn.Module, x: torch.Tensor, rounds: int) -> list[tuple[Op, str, float]] | None:
    """Each operation of the plan, its module and its best milliseconds."""
    plan, loaded = NativeModule(model).plan_for(x[:1]), library.load()
    if plan is None or loaded is None:
        return None
    seconds = np.zeros((rounds, len(plan.ops)))
    for row in seconds:
        plan.run(x[:1], loaded, 1, row)
    # The least and no median: one thread alone takes no less
    # than its work, and what it takes more was somebody else's.
    best = seconds.min(axis=0) * 1e3
    return list(zip(plan.ops, plan.paths, map(float, best), strict=True))


def _kind(op: Op) -> str:
    kind = Kind(op.kind)
    if kind == Kind.CONV and op.dynamic and op.lanes:
        return "conv over outputs"
    return "Winograd" if kind == Kind.WINO else kind.name.lower()


def rows(made: Case, factor: float) -> list[dict[str, Any]]:
    """One for each convolution: MACs and milliseconds before and after, how it is computed and why
    it was or was not converted; one for all the rest. Empty without native plans.
    """
    one = made.converted[factor]
    dense, after = parts(made.dense, made.x), parts(one.model, made.x)
    if dense is None or after is None:
        return []
    names = {layer.name for layer in one.report.layers}
    found = [_row(layer, dense, after) for layer in one.report.layers]
    rest = [_sum(p for n, p in side.items() if n not in names) for side in (dense, after)]
    others = dict.fromkeys(k for n, p in after.items() if n not in names for k in p.kinds)
    last = {
        "layer": "all the rest",
        "macs_dense": None,
        "macs": None,
        "ms_dense": rest[0],
        "ms": rest[1],
        "how": ", ".join(others),
        "why": "",
    }
    return [*found, last]


def _row(
    layer: LayerReport, dense: dict[str, ModuleTime], after: dict[str, ModuleTime]
) -> dict[str, Any]:
    before, now = dense.get(layer.name), after.get(layer.name)
    return {
        "layer": layer.name,
        "macs_dense": layer.dense,
        "macs": layer.promised if layer.converted else layer.dense,
        "ms_dense": None if before is None else round(before.ms, 4),
        "ms": None if now is None else round(now.ms, 4),
        "how": ", ".join(now.kinds) if now else "part of another operation",
        "why": ("converted" + (f", {layer.why}" if layer.why else ""))
        if layer.converted
        else layer.why,
    }


def _sum(found: Iterable[ModuleTime]) -> float:
    return round(sum(part.ms for part in found), 4)
