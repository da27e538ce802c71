"""One dynamic layer in 8 bits and in float32, one thread, at the shapes of resnet18 and condensenet:
microseconds a sample, the best of many. `python -m benchmarks.int8_layers`

The float32 column is the convolution and packing of the plan that inference uses (Winograd's tiles
where they apply), with the same share of channels kept; means, gates and selection are left out of
both. The 8-bit layer reads and writes float32 images.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from dgc.infer.compile import NativeModule
from dgc.kernels.cpu import library
from dgc.kernels.cpu.int8 import Convolution, kept_of
from dgc.kernels.cpu.isa import Choice
from dgc.kernels.cpu.layout import Window
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Int8Pass, Kind
from dgc.layers import DynamicGroupConv2d, set_progress

# name, channels, outputs, side, kernel, share of channels that are off
SHAPES = (
    ("3x3, 64 ch, 56x56", 64, 64, 56, 3, 0.55),
    ("3x3, 128 ch, 28x28", 128, 128, 28, 3, 0.55),
    ("3x3, 256 ch, 14x14", 256, 256, 14, 3, 0.55),
    ("3x3, 512 ch, 7x7", 512, 512, 7, 3, 0.55),
    ("1x1, 128 to 64 ch, 56x56", 128, 64, 56, 1, 0.75),
    ("1x1, 512 to 256 ch, 14x14", 512, 256, 14, 1, 0.75),
    ("1x1, 1024 to 512 ch, 7x7", 1024, 512, 7, 1, 0.75),
)
HEADS, ROUNDS = 4, 60
TIMED = (Kind.CONV, Kind.WINO, Kind.PACK)


def float_s(loaded: Library, module: DynamicGroupConv2d, x: torch.Tensor) -> float:
    plan = NativeModule(module).plan_for(x)
    assert plan is not None
    found = np.zeros((ROUNDS, len(plan.ops)))
    for seconds in found:
        plan.run(x, loaded, 1, seconds)
    best = found.min(axis=0)
    return float(sum(t for op, t in zip(plan.ops, best, strict=True) if op.kind in TIMED))


def int8_s(
    loaded: Library, module: DynamicGroupConv2d, x: torch.Tensor, kept: torch.Tensor
) -> float:
    k = int(module.weight.shape[2])
    size = (int(x.shape[2]), int(x.shape[3]))
    window = Window((k, k), 1, (k // 2, k // 2), (1, 1))
    layer = Convolution(module.weight.detach(), HEADS, window, size)
    call = layer.prepare(loaded, x, kept)
    call.result()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call.do(Int8Pass.INT8_CONVOLVE)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    loaded = library.load()
    assert loaded is not None, "the kernels were not built"
    torch.manual_seed(0)
    choices = [Choice(loaded.isa, loaded.choice.features)]
    if "vnni" in loaded.choice.features:
        choices.append(Choice(loaded.isa, ()))
    if loaded.handle.dgc_supports(1) and loaded.isa > 1:
        choices += [
            Choice(1, f) for f in [("vnni",), ()] if not f or loaded.handle.dgc_features(1) & 1
        ]
    names = [f"{c.level}{'+vnni' if 'vnni' in c.features else ''}" for c in choices]
    print("| layer | float32 us |", " | ".join(f"int8 {n} us" for n in names), "| GMAC/s | ratio |")
    print("|---|--:" + "|--:" * (len(names) + 2) + "|")
    for name, c, o, side, k, off in SHAPES:
        module = DynamicGroupConv2d(
            c, o, k, padding=k // 2, heads=HEADS, gate_factor=off, norm=False
        )
        set_progress(module, 1.0)
        module.eval()
        x = torch.rand(1, c, side, side)
        n = round(c * (1 - off))
        gates = torch.zeros(1, HEADS, c)
        for g in range(HEADS):
            gates[0, g, torch.randperm(c)[:n]] = torch.rand(n) + 0.1
        kept = kept_of(gates)
        f = float_s(loaded, module, x) * 1e6
        us = [
            int8_s(Library(loaded.handle, loaded.path, choice), module, x, kept) * 1e6
            for choice in choices
        ]
        rate = n * k * k * o * side * side / us[0] / 1e3
        figures = " | ".join(f"{t:.1f}" for t in us)
        print(f"| {name} | {f:.1f} | {figures} | {rate:.0f} | {f / us[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
