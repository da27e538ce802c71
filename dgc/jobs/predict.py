"""`python -m dgc.jobs.predict`: what a network sees in images, and which channels each head chose
for each of them.

    python -m dgc.jobs.predict [--top 5] [--precision float32|int8] --json OUT IMAGE...
        (--pretrained NAME | --run-dir RUN [--step N|best|last] | --weights FILE [--recipe RECIPE])

OUT = {"title", "images": [{"path", "classes": [{"index", "name", "probability"}], "layers":
[{"name", "in_channels", "keeps", "heads": [[channel, ...], ...]}]}], "unreadable": [{"path",
"why"}]}; one image at a time, so that the choice is that image's own. In int8 `layers` is empty:
the plan keeps no lists.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.errors import DataError, DivergedError, UsageError
from dgc.hub.fetch import FetchOptions
from dgc.hub.load_weights import Opened, open_named
from dgc.hub.registry import ImageSteps
from dgc.infer import NativeModule, check_choice, compile_for_inference
from dgc.jobs.labelled import known_classes
from dgc.jobs.network_arguments import add_network
from dgc.jobs.reply import reply
from dgc.kernels.cpu import available, describe
from dgc.layers import iter_dgc, record_gates
from dgc.runtime import classify as without_torch
from dgc.runtime import plan
from dgc.talk import run_program, say


def predict(
    opened: Opened, names: Sequence[str], images: Sequence[Path], top: int = 5
) -> list[dict[str, Any]]:
    """One entry an image. Raises DataError naming an image
    that cannot be read, before any is run.
    """
    return _seen(opened, names, [(path, _prepared(opened, path)) for path in images], top)


def readable(
    opened: Opened,
    names: Sequence[str],
    images: Sequence[Path],
    top: int = 5,
    precision: str = "float32",
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The entries of the images that can be read; path and reason of the others."""
    prepared, bad = [], []
    for path in images:
        try:
            prepared.append((path, _prepared(opened, path)))
        except DataError as error:
            bad.append({"path": str(path), "why": str(error).removeprefix(f"{path}: ")})
    return _seen(opened, names, prepared, top, precision), bad


def _prepared(opened: Opened, path: Path) -> Tensor:
    return prepare(path, opened.preprocessing)


def _seen(
    opened: Opened,
    names: Sequence[str],
    prepared: Sequence[tuple[Path, Tensor]],
    top: int,
    precision: str = "float32",
) -> list[dict[str, Any]]:
    model = opened.model
    if precision != "float32":
        if not available():
            raise UsageError(f"--precision {precision}: {describe()['why_not']}")
        model = compile_for_inference(model, precision=check_choice(precision))
    return [{"path": str(path), **look(model, x_BCHW, names, top)} for path, x_BCHW in prepared]


def prepare(path: Path, how: ImageSteps) -> Tensor:
    """The network's input (1, 3, S, S) for an image file, exactly as evaluation makes it."""
    same = plan.Preprocessing(how.resize, how.image_size, how.mean, how.std, how.channels)
    return torch.from_numpy(without_torch.prepare(path, same))


def look(model: nn.Module, x_BCHW: Tensor, names: Sequence[str], top: int) -> dict[str, Any]:
    """The best classes of one image (1, 3, S, S)
    and the channels that each head of each layer chose for it.
    """
    dtype = next(model.parameters()).dtype
    plain = nn.Module() if isinstance(model, NativeModule) else model  # a plan keeps no lists
    with torch.no_grad(), record_gates(plain) as records:
        logits_C = model(x_BCHW.to(dtype)).double()[0]
    if not logits_C.isfinite().all():
        raise DivergedError("the network answers NaN or Inf: its weights are untrained or damaged")
    probabilities = logits_C.softmax(0)
    values, indices = probabilities.topk(min(top, len(probabilities)))
    return {
        "classes": [
            {"index": index, "name": _name(names, index), "probability": value}
            for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        ],
        "layers": [
            {
                "name": name,
                "in_channels": records[name].selected.shape[1],
                "keeps": records[name].selected.shape[1] - layer.n_inactive,
                "heads": [row.nonzero().flatten().tolist() for row in records[name].selected],
            }
            for name, layer in iter_dgc(plain)
        ],
    }


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.predict")
    add_network(parser)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("images", nargs="+", type=Path)
    given = parser.parse_args(arguments)

    def make() -> dict[str, Any]:
        if given.top < 1:
            raise UsageError(f"--top {given.top}: should be a number from 1")
        opened = open_named(given, FetchOptions(say=say))
        names = known_classes(opened)
        found, bad = readable(opened, names, given.images, given.top, given.precision)
        return {"title": opened.title, "images": found, "unreadable": bad}

    return reply(given.json, make)


if __name__ == "__main__":
    run_program(main)
