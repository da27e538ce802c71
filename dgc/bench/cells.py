"""One cell of the table: a network at a batch size with a number of threads, all contenders
interleaved.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from dgc.bench.contenders import MAKERS
from dgc.bench.networks import NETWORKS
from dgc.bench.timing import interleaved


def measure(
    name: str, batch: int, threads: int, wanted: list[str], budget_s: float
) -> dict[str, object]:
    """Milliseconds per image of every wanted contender that is installed; why not, for the others."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    side = NETWORKS[name].image
    x = torch.randn(batch, 3, side, side)
    calls, missing = {}, {}
    for contender in wanted:
        try:
            calls[contender] = MAKERS[contender](name, x, threads)
        except ImportError as e:
            missing[contender] = f"{e.name} is not installed (pip install 'dgcctl[bench]')"
    samples = interleaved(calls, batch, budget_s)
    return {
        "network": name,
        "batch": batch,
        "threads": threads,
        "ms_per_image": {k: asdict(v) for k, v in samples.items()},
        "missing": missing,
    }
