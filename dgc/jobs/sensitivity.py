"""`python -m dgc.jobs.sensitivity --run-dir RUN [--step N|best|last] --json OUT`.

One layer of a run's network at a time keeps another share of its channels: OUT = {samples, shares,
now {top1_error, loss, macs}, layers [{name, channels, share, macs, at [{share, top1_error, loss,
macs}]}]}. MACs are those of the whole network for one image. The images are the recipe's for
evaluation, read once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.choice.one_layer import by_layer, check_shares, share_now
from dgc.errors import UsageError
from dgc.hub.load_weights import open_named
from dgc.jobs.labelled import as_the_weights_say, open_labelled
from dgc.jobs.reply import reply
from dgc.layers import iter_dgc, macs
from dgc.recipe.load import Recipe
from dgc.run.paths import RunDir
from dgc.talk import run_program, say
from dgc.train import build, seeding
from dgc.train.evaluation import evaluate
from dgc.train.ranks import Ranks, join


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.sensitivity")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--step", default="last")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--shares", default="0.125,0.25,0.5,0.75")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments, argparse.Namespace(pretrained=None, weights=None))
    return reply(given.json, lambda: measure(given))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Open the run, read its images once, go through its layers."""
    shares = _shares(given.shares)
    opened = open_named(given)
    if not any(True for _ in iter_dgc(opened.model)):
        raise UsageError(
            f"{opened.title}: its network has no dynamic layers (model.form ="
            f" {opened.recipe.model.form}): nothing is chosen in it"
        )
    recipe = as_the_weights_say(
        build.at_its_place(opened.recipe, RunDir(given.run_dir).data), opened
    )
    train = recipe.train
    seeding.set_switches(deterministic=train.deterministic, threads=train.threads, tf32=train.tf32)
    with join("auto") as ranks:
        data = open_labelled(opened, recipe, None, given.limit)
        for line in data.notes:
            say(line)
        model = opened.model.to(ranks.device, build.DTYPES[train.dtype])
        build.apply_backend(model, recipe, ranks.device)
        batches = list(_batches(recipe, data.images, ranks.device))
        return _through(model, batches, shares, recipe, ranks)


def _shares(text: str) -> list[float]:
    try:
        return check_shares([float(word) for word in text.split(",")])
    except ValueError as error:
        raise UsageError(
            f"--shares {text}: give numbers with commas between them, each more than 0 and at most"
            " 1, as 0.25,0.5"
        ) from error


def _batches(recipe: Recipe, images: Any, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    loader = build.eval_batches(recipe, images, device)
    return ((batch.images, batch.labels) for batch in loader.epoch())


def _through(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    shares: list[float],
    recipe: Recipe,
    ranks: Ranks,
) -> dict[str, Any]:
    samples, layers = sum(len(labels) for _, labels in batches), dict(iter_dgc(model))

    def look() -> dict[str, Any]:
        figures = evaluate(model, batches, samples, ranks)
        executed = macs.count(model, recipe.data.image_size).executed
        return {"top1_error": figures.top1_error, "loss": figures.loss, "macs": executed}

    now = look()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in layers}
    for name, share, figures in by_layer(model, shares, look):
        found[name].append({"share": share, **figures})
        if share == shares[-1]:
            say(f"{len([rows for rows in found.values() if rows])} of {len(layers)} layers: {name}")
    rows = [
        {"name": name, "channels": layer.in_channels, "share": share_now(layer), "at": found[name]}
        for name, layer in layers.items()
    ]
    return {"samples": samples, "shares": shares, "now": now, "layers": rows}


if __name__ == "__main__":
    run_program(main)
