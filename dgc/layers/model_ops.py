"""What is done to all DGC layers of a model from outside: the schedule in, the gate L1 and the
counts of their choices out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.layers.dynamic import DynamicGroupConv2d
from dgc.layers.gate_record import GateRecord
from dgc.layers.gating import gate_l1_of_all
from dgc.schedule import PRUNING_END, PRUNING_START, inactive_channels

# a compiled training graph is specialised at most this often on the way to the final n
TRACED_STAGES = 4


def iter_dgc(model: nn.Module) -> Iterator[tuple[str, DynamicGroupConv2d]]:
    """(name, layer) of every DynamicGroupConv2d in the model, each once, in registration order."""
    for name, module in model.named_modules():
        if isinstance(module, DynamicGroupConv2d):
            yield name, module


def set_progress(model: nn.Module, p: float) -> None:
    """Set the number of inactive channels of every DGC layer
    for training progress p in [0, 1] (see dgc.schedule).
    """
    if not 0 <= p <= 1:
        raise ArgumentError(f"p={p!r}: progress is a number from 0 (start) to 1 (end of training)")
    stage = _stage_start(p)
    # all layers from the same p: a stage of compiled graphs then begins in all of them at once
    for _, layer in iter_dgc(model):
        n, traced = (inactive_channels(q, layer.in_channels, layer.gate_factor) for q in (p, stage))
        layer.set_inactive(n, traced)


def _stage_start(p: float) -> float:
    """The last of a few common points of the schedule before p,
    so that all compiled layers change together.
    """
    # all that are to go are off, and stay off: the last graph may count on every one of them
    if p >= PRUNING_END:
        return p
    width = (PRUNING_END - PRUNING_START) / TRACED_STAGES
    return max(0.0, PRUNING_START + width * ((p - PRUNING_START) // width))


def gate_l1(model: nn.Module) -> Tensor:
    """Sum over layers and heads of the mean gate
    of the last forward (a scalar with a graph); 0 without DGC layers.

    A layer that is used more than once in a forward counts with its last use.
    """
    layers = [layer for _, layer in iter_dgc(model)]
    gates = [t for t in (layer._last_gate_l1 for layer in layers) if t is not None and t.dim() == 3]
    if gates and len(gates) == len(layers) and len({t.device for t in gates}) == 1:
        return gate_l1_of_all(gates)
    terms = [layer.gate_l1 for layer in layers]
    if terms:
        return torch.stack(terms).sum()
    # made where the network is: a copy from the host would wait for the device
    return torch.zeros((), device=next((p.device for p in model.parameters()), None))


@contextmanager
def counted_on_device(model: nn.Module) -> Iterator[None]:
    """Inside, every DGC layer takes its number of inactive channels from its buffer, as compiled
    networks do: what is captured then (a CUDA graph) holds for each n of the same stage.
    """
    layers = [layer for _, layer in iter_dgc(model)]
    try:
        for layer in layers:
            layer.n_from_buffer = True
        yield
    finally:
        for layer in layers:
            layer.n_from_buffer = False


@contextmanager
def record_gates(model: nn.Module) -> Iterator[dict[str, GateRecord]]:
    """While open, every DGC layer of `model` counts its choices;
    yields {layer name: GateRecord}.
    """
    layers = dict(iter_dgc(model))
    records = {name: _start(layer) for name, layer in layers.items()}
    try:
        yield records
    finally:
        # also after an error: a layer that goes on counting is slower and holds memory
        for layer in layers.values():
            layer.gate_record = None


def count_only(model: nn.Module, real: int | None) -> None:
    """Let records that are open count the first `real` samples
    of the batches to come (None: all of them).
    """
    for _, layer in iter_dgc(model):
        if layer.gate_record is not None:
            layer.gate_record.real = real


def _start(layer: DynamicGroupConv2d) -> GateRecord:
    shape, device = layer.fc2_bias.shape, layer.fc2_bias.device
    layer.gate_record = GateRecord(torch.zeros(shape, dtype=torch.int64, device=device))
    return layer.gate_record
