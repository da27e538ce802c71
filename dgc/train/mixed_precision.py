"""What `train.amp` computes in on this machine. Mixed precision is asked for because it is faster:
where it is not, the network trains in float32, and the run says so.

On a GPU it is what was asked for. On a CPU it depends on the processor, which multiplies bfloat16
by itself or takes it apart, and on the network: the C++ kernels of dynamic and group convolutions
compute in float32, and beside them PyTorch's own operations in bfloat16 take longer. What is chosen
follows from what machine and network are, never from a timing, and a resumed run keeps it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from dgc.kernels.cpu import library, train_passes
from dgc.recipe.load import Recipe
from dgc.run.files import read_json
from dgc.run.paths import RunDir

Amp = Literal["off", "bf16", "fp16"]


class MixedPrecision(NamedTuple):
    """What autocast computes in (off: in float32), and why not in what the recipe asks for."""

    amp: Amp
    why: str = ""

    def notes(self, asked: str) -> list[tuple[str, str]]:
        """Level and line for the log; none where the recipe has what it asks for."""
        line = f"train.amp = {asked}: computed in float32, {self.why}"
        return [("info", line)] if self.why else []


def choose(recipe: Recipe, device: torch.device, run: RunDir | None = None) -> MixedPrecision:
    """For the recipe's network on a device. A run that has begun keeps what it has recorded; one
    from before it was recorded computed as its recipe says.
    """
    asked = recipe.train.amp
    if asked == "off" or device.type != "cpu":
        return MixedPrecision(asked)
    if run is not None and run.model.exists():
        recorded = read_json(run.model).get("amp", asked)
        return MixedPrecision(asked) if recorded == asked else MixedPrecision("off", "as it began")
    why = _slower(asked, recipe)
    return MixedPrecision("off", why) if why else MixedPrecision(asked)


def _slower(asked: Amp, recipe: Recipe) -> str:
    """Why float32 is faster on this CPU; empty where it is not."""
    if asked == "fp16":
        return "no processor was measured to be faster in fp16"
    if not multiplies_bfloat16():
        return "this processor has no instructions for bfloat16"
    # the dense twin is plain PyTorch; so is every form where the kernels are not used
    kernels = train_passes.available() and recipe.train.backend in ("auto", "native")
    if recipe.model.form != "dense" and kernels:
        return "which the C++ kernels compute in and is faster than PyTorch in bfloat16"
    return ""


def multiplies_bfloat16() -> bool:
    """Whether PyTorch's convolutions may use a processor's instructions for bfloat16 (AVX512_BF16
    or AMX). DGC_NATIVE_ISA counts: what is forced upon the kernels is meant for the machine.
    """
    features = library.facts().get("kernel_features")
    if isinstance(features, list):
        return "bf16" in features or "amx" in features
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
