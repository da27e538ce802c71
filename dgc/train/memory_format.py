"""In which order the numbers of images and weights lie in memory: plane after plane, or pixel after
pixel.

The result is the same up to rounding, the speed is not. `auto` takes what was measured faster, from
the table below: a timing made at run time would choose otherwise from run to run, and with it the
last bits.
"""

from __future__ import annotations

from typing import Literal

import torch

from dgc.recipe.load import Recipe
from dgc.run.files import read_json
from dgc.run.paths import RunDir

Format = Literal["contiguous", "channels_last"]
FORMATS: dict[Format, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

# (device, form, network) -> what is faster in float32 and bf16, not compiled. What is not here
# stays contiguous: it was not measured (as all of cuda), or the difference was lost in noise.
# Behind a row: seconds of a step as a share of the contiguous one's (AVX-512, PyTorch 2.14;
# benchmarks/training.py measures the dense twin both ways).
FASTER: dict[tuple[str, str, str], Format] = {
    ("cpu", "dense", "dydensenet"): "channels_last",  # 0.55 on 32x32 images, 0.72 on 224x224
    ("cpu", "dense", "dyresnet18"): "channels_last",  # 0.80
    ("cpu", "sgc", "dydensenet"): "channels_last",  # 0.81 on 32x32, 0.98 on 128x128
    ("cpu", "dgc", "dydensenet"): "contiguous",  # what the kernels take
    ("cpu", "dgc", "dyresnet18"): "contiguous",
}


def choose(recipe: Recipe, device: torch.device, run: RunDir | None = None) -> Format:
    """The format of the recipe's network on a device.
    A run that has begun keeps the one that it has recorded.
    """
    wanted = recipe.train.memory_format
    if wanted != "auto":
        return wanted
    known = _recorded(run)
    if known is not None:
        return known
    if recipe.train.compile or recipe.train.dtype != "float32":
        return "contiguous"  # not measured
    return FASTER.get((device.type, recipe.model.form, recipe.model.name), "contiguous")


def _recorded(run: RunDir | None) -> Format | None:
    """What model.json of the run says, where it says it."""
    if run is None or not run.model.exists():
        return None
    name = read_json(run.model).get("memory_format")
    return next((known for known in FORMATS if known == name), None)
