"""How networks that people use run after conversion: natively as a whole, in parts, or not, and
whether the answers are right.

Called by benchmarks.convert_models for each network. A freshly converted network selects the same
channels for every image, so its gates are first made to depend on the image. Then the engine's
answers for IMAGES images stand against PyTorch's own, in the same float32. A network in which
rounding grows (the original differs from itself in float64 by more than the bar) is held against
float64, where the engine may be off twice as far as PyTorch is.

An image whose answer differs is a near tie where some head's last selected and first unselected
gates are less than GAP apart; any other is wrong.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

import dgc
from dgc.infer import NativeModule
from dgc.layers import DynamicGroupConv2d, iter_dgc
from dgc.layers.gating import hidden

IMAGES = 4
BAR, GAP = 1e-4, 1e-5


@torch.no_grad()
def make_gates_look(model: nn.Module, x_BCHW: Tensor) -> None:
    """Gates that depend on the image: a standard deviation of a half for the image whose hidden
    layer says most; unchanged where it says nothing.
    """
    random = torch.Generator().manual_seed(5)

    def fill(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        most_G = hidden(inputs[0].mean((2, 3)), layer.fc1).norm(dim=-1).amax(0)
        share_G = torch.where(most_G > 1e-6, 0.5 / most_G, 0.0)
        layer.fc2.copy_(torch.randn(layer.fc2.shape, generator=random) * share_G[:, None, None])

    handles = [layer.register_forward_pre_hook(fill) for _, layer in iter_dgc(model)]
    model.eval()(x_BCHW)
    for handle in handles:
        handle.remove()


@torch.no_grad()
def smallest_gaps(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    """For each image, how near any head of any layer is to another choice."""
    gaps = torch.full((len(x_BCHW),), float("inf"))

    def look(layer: DynamicGroupConv2d, inputs: tuple[Tensor, ...]) -> None:
        if layer.n_inactive:
            order = layer.gates(inputs[0]).sort(dim=-1).values
            gap = order[..., layer.n_inactive] - order[..., layer.n_inactive - 1]
            torch.minimum(gaps, gap.flatten(1).amin(1), out=gaps)

    handles = [layer.register_forward_pre_hook(look) for _, layer in iter_dgc(model)]
    model(x_BCHW)
    for handle in handles:
        handle.remove()
    return gaps


def _off(found: Tensor, wanted: Tensor) -> Tensor:
    """Of each image, as a share of its largest number."""
    apart = (found.double() - wanted.double()).abs().flatten(1).amax(1)
    return apart / wanted.double().abs().flatten(1).amax(1).clamp(min=1e-30)


def _how(model: nn.Module, engine: NativeModule, x_BCHW: Tensor) -> dict[str, Any]:
    """One plan, parts or none, and why."""
    plan, layers = engine.plan_for(x_BCHW), sum(1 for _ in iter_dgc(model))
    if plan is not None:
        return {
            "plan": "whole", "native_layers": layers, "dynamic_layers": layers,
            "operations": len(plan.ops), "parts": 1, "blockers": [],
        }  # fmt: skip
    said = dgc.explain_inference(model, x_BCHW)
    return {
        "plan": said.plan,
        "native_layers": said.native,
        "dynamic_layers": said.layers,
        "operations": sum(part.operations for part in said.parts),
        "parts": len(said.parts),
        "blockers": [
            f"{b.operation} ({b.module or 'the network itself'}, {b.count})" for b in said.blockers
        ],
    }


@torch.inference_mode()
def native(model: nn.Module, x_BCHW: Tensor) -> dict[str, Any]:
    """Plan, share and answers of a converted network at the end of its schedule."""
    dgc.set_progress(model, 1.0)
    make_gates_look(model, x_BCHW)
    wanted = model.eval()(x_BCHW)
    engine = cast("NativeModule", dgc.compile_for_inference(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says it
        found = engine(x_BCHW)
    off, bar, exact = _off(found, wanted), torch.full((len(x_BCHW),), BAR), None
    if not bool((off <= BAR).all()):
        exact = copy.deepcopy(model).double()(x_BCHW.double())
        off, bar = _off(found, exact), torch.maximum(bar, 2 * _off(wanted, exact))
    apart = ~(off <= bar)  # what is not a number is wrong
    ties = apart & (smallest_gaps(model, x_BCHW) < GAP)
    return {
        **_how(model, engine, x_BCHW[:1]),
        "images": len(x_BCHW),
        "native_off": float(off[~ties].max()) if bool((~ties).any()) else None,
        "against_float64": exact is not None,
        "near_ties": int(ties.sum()),
        "wrong": int((apart & ~ties).sum()),
    }  # fmt: skip
