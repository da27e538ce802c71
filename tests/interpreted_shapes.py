"""Many small layers by the Triton kernels, in Triton's interpreter or on a GPU, against the oracle in
float64, and mutants of the kernels, each of which one of them has to catch; as
tests/interpreted_kernels.py.

    TRITON_INTERPRET=1 python -m tests.interpreted_shapes many [FIRST LAST] | mutants
"""

from __future__ import annotations

import copy
import importlib.util
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

from dgc.kernels import gpu
from dgc.kernels.gpu import around_conv, dynamic_conv, passes
from dgc.layers import DynamicGroupConv2d
from tests.against_oracle import outcome, worst
from tests.interpreted_kernels import TOLERANCE, well_conditioned

# of each sum in them there are six values: in none of 1000 draws is every one far from 0
CANCELLING = (19, 53)
COUNT = 60 + len(CANCELLING)
Shape = tuple[int, ...]
Made = tuple[DynamicGroupConv2d, torch.Tensor, list[torch.Tensor]]
# what a drawing might leave out: (C, O, kernel, stride, padding, dilation, heads, n, height, width)
EDGES: list[Shape] = [
    (16, 32, 1, 1, 0, 1, 4, 0, 7, 7),  # 49 pixels, nothing off
    (17, 8, 1, 1, 0, 1, 1, 16, 2, 3),  # one channel on, no multiple of a block
    (33, 128, 1, 1, 0, 1, 1, 7, 2, 2),  # 128 outputs of a head
    (4, 160, 1, 1, 0, 1, 1, 2, 1, 2),  # more outputs than a tile of any kernel has
    (8, 128, 1, 2, 0, 1, 2, 3, 3, 3),
    (64, 16, 1, 1, 0, 1, 2, 40, 1, 2),
    (6, 6, 3, 1, 1, 1, 2, 4, 1, 4),  # a plane of one row, all taps outside but three
    (6, 8, 3, 2, 1, 2, 2, 2, 6, 5),
    (4, 4, 5, 2, 2, 1, 2, 1, 4, 4),
]


def shapes() -> list[Shape]:
    """The same on every machine."""
    drawn, chance = list(EDGES), random.Random(13)
    while len(drawn) < COUNT:
        kernel = chance.choice([1, 1, 1, 3, 3, 5])
        heads, c = chance.choice([1, 2, 3, 4]), chance.randint(3, 40 if kernel == 1 else 12)
        c += -c % heads
        outs = chance.choice([1, 2, 3, 5, 8, 16] if kernel == 1 else [1, 2, 3, 4])
        h, w = chance.randint(2, 6), chance.randint(2, 6)
        dilation = chance.choice([1, 1, 2])
        reach = dilation * (kernel - 1)
        padding = chance.randint(0, kernel // 2 * dilation)
        if min(h, w) + 2 * padding - reach < 1:
            continue
        drawn.append(
            (c, heads * outs, kernel, chance.choice([1, 1, 2]), padding, dilation, heads,
             chance.randint(0, c - 1), h, w)
        )  # fmt: skip
    return drawn


def drawn_well(shape: Shape, number: int) -> Made:
    return well_conditioned(shape, number, batch=3, share=6, coarse=True)


def error(shape: Shape, number: int, dtype: torch.dtype, made: Made | None = None) -> float:
    """The largest of output and all gradients."""
    layer, x, expected = made or drawn_well(shape, number)
    device = "cpu" if gpu.interpreted() else "cuda"
    ours = copy.deepcopy(layer).float().to(device)
    ours.backend = "triton"
    given = x.float().to(device)
    if number % 3 == 0:
        given = given.contiguous(memory_format=torch.channels_last)
    return worst(outcome(ours, given, dtype), expected)


def many(first: int, last: int) -> None:
    largest = dict.fromkeys(TOLERANCE, 0.0)
    for number, shape in list(enumerate(shapes()))[first:last]:
        if number in CANCELLING:
            continue
        made = drawn_well(shape, number)
        for dtype, tolerance in TOLERANCE.items():
            found = error(shape, number, dtype, made)
            largest[dtype] = max(largest[dtype], found)
            assert found <= tolerance, (shape, dtype, found)
        print(number, shape, flush=True)
    print({str(dtype)[6:]: f"{value:.1e}" for dtype, value in largest.items()})


# --- mutants --------------------------------------------------------------------------------------

# module, what stands there, what a slip would make of it
MUTANTS = [
    (dynamic_conv, "in_k = k < count\n", "in_k = k + 1 < count\n"),  # the last channel is lost
    (dynamic_conv, "a = a * tl.load(gates + row + c", "a = a * tl.load(gates + b * G * C + c"),
    (dynamic_conv, "out = y + b.to(tl.int64) * y_step + (j * G + g)",
     "out = y + b.to(tl.int64) * y_step + (g * J + j)"),  # the shuffle is left out
    (dynamic_conv, "total = tl.where((before > 0) & inside, total, 0.0)",
     "total = tl.where(inside, total, 0.0)"),  # the ReLU's backward
    (dynamic_conv, "total += own * gate[:, None]", "total += own"),  # the gate in the weights'
    (around_conv, "slope = -factor * inverse * inverse * sum_gx / count",
     "slope = -factor * inverse * sum_gx / count"),  # BatchNorm's variance
    (around_conv, "~(gate <= threshold)", "~(gate < threshold)"),  # ties stay on
    (dynamic_conv, "left = p % W + PAD", "left = p % W - PAD"),  # a window's other side
]  # fmt: skip
# a layer of two taps at least, with something off, a tie at the bound, and two heads
CATCHES: Shape = (10, 12, 3, 1, 1, 1, 2, 5, 3, 4)


def mutants() -> None:
    made = well_conditioned(CATCHES, 3, batch=3)
    made[0].train()
    made = (made[0], made[1], _expected(made))
    assert error(CATCHES, 1, torch.float32, made) <= TOLERANCE[torch.float32]
    with tempfile.TemporaryDirectory() as folder:
        for number, (module, text, slip) in enumerate(MUTANTS):
            name = str(module.__name__).rpartition(".")[2]
            original = getattr(passes, name)
            setattr(passes, name, mutant(Path(folder) / f"mutant_{number}.py", module, text, slip))
            try:
                found = error(CATCHES, 1, torch.float32, made)
            finally:
                setattr(passes, name, original)
            print(f"mutant {number} ({slip.strip()}): error {found:.1e}", flush=True)
            assert found > TOLERANCE[torch.float32], f"not caught: {slip}"


def _expected(made: Made) -> list[torch.Tensor]:
    oracle = copy.deepcopy(made[0])
    oracle.backend = "masked"
    return outcome(oracle, made[1], torch.float64)


def mutant(path: Path, module: ModuleType, text: str, slip: str) -> ModuleType:
    """The module with a slip in it; from a file, for Triton reads a kernel's source."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    assert text in source, text
    path.write_text(source.replace(text, slip))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "many":
        many(*map(int, sys.argv[2:4] or (0, COUNT)))
    else:
        mutants()
