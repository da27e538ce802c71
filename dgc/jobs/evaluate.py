"""`python -m dgc.jobs.evaluate (--run-dir RUN [--step N|best|last] | --weights FILE | --pretrained
NAME) --json OUT`.

Measures a network on its recipe's evaluation images, each counted once, on one process or under
torchrun. OUT = {top1_error, top5_error, loss, samples, images_per_s, engine, device, memory_format,
chunk, macs, macs_at_end_of_schedule, parameters, data, expected, not_judged, precision},
on request `per_class`; `against_float32` {top1_error, changed, became_right, became_wrong,
logits_error} where precision is another; top5_error is left out where it means nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.data import ImageSet
from dgc.data.chunks import chunk_size
from dgc.errors import DgcError, UsageError, system_error
from dgc.hub.load_weights import Opened, open_named
from dgc.hub.registry import ReleasedCheckpoint
from dgc.infer import check_choice, compile_for_inference
from dgc.jobs.labelled import (
    Labelled,
    as_the_weights_say,
    images_facts,
    open_labelled,
    why_not_judged,
)
from dgc.jobs.network_arguments import add_network
from dgc.jobs.paired import Paired
from dgc.kernels.cpu import available, describe
from dgc.recipe.load import Recipe
from dgc.run.files import write_json
from dgc.run.library_warnings import one_line_warnings
from dgc.run.paths import RunDir
from dgc.talk import run_program, say, say_error
from dgc.train import build, costs, seeding
from dgc.train.evaluation import Figures, evaluate
from dgc.train.memory_format import FORMATS, choose
from dgc.train.ranks import Ranks, join


def main(argv: list[str] | None = None) -> int:
    given = parse(argv)
    one_line_warnings(lambda text: say(f"warning: {text}"))
    try:
        with join(given.device) as ranks:
            answer = measure(given, ranks)
            if ranks.first:
                write_json(given.json, answer)
    except (DgcError, OSError) as error:
        told = system_error(error) if isinstance(error, OSError) else error
        # what all ranks raise is said by the first alone
        if os.environ.get("RANK", "0") == "0" or not getattr(error, "shared", False):
            say_error(told)
        return int(told.exit_code)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.evaluate")
    add_network(parser)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument(
        "--subset", action="store_true", help="--data-dir has only some of the network's classes"
    )
    parser.add_argument("--engine", choices=["eager", "compile", "native", "auto"], default="eager")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--limit", type=int, help="only so many images, spread over the set")
    parser.add_argument(
        "--check", action="store_true", help="measure only what is held against an expectation"
    )
    parser.add_argument("--per-class", action="store_true")
    parser.add_argument("--plot", type=Path, help="write the confusion matrix as a picture")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(argv)


def measure(given: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Open, run, count. Collective under torchrun."""
    opened = ranks.alone_first(lambda: open_named(given))
    found = (
        build.at_its_place(opened.recipe, RunDir(given.run_dir).data)
        if given.run_dir
        else opened.recipe
    )
    recipe = as_the_weights_say(found, opened)
    switches = recipe.train
    seeding.set_switches(
        # as in training: other switches give other last bits
        deterministic=switches.deterministic,
        threads=switches.threads,
        tf32=switches.tf32,
    )
    data = ranks.alone_first(
        lambda: open_labelled(opened, recipe, given.data_dir, given.limit, subset=given.subset)
    )
    if ranks.first:
        for line in data.notes:
            say(line)
    held = expectation(opened, data, given.limit, ranks)
    # before anything is measured: an evaluation may take hours
    if given.check:
        _check_is_judged(held)
    whole = data
    # all images: whether they are the ones that are expected is told by the digest of the whole set
    if given.limit is not None:
        whole = ranks.alone_first(
            lambda: open_labelled(opened, recipe, given.data_dir, None, subset=given.subset)
        )
    layout = choose(recipe, ranks.device, RunDir(given.run_dir) if given.run_dir else None)
    model = opened.model.to(ranks.device, build.DTYPES[recipe.train.dtype]).to(
        memory_format=FORMATS[layout]
    )
    build.apply_backend(model, recipe, ranks.device)
    engine, runner = choose_engine(given.engine, model, ranks.device, given.precision)
    confusion = Confusion(recipe.model.num_classes, ranks.device)
    figures, seconds, beside = in_precision(
        given.precision, (runner, model), data.images, recipe, ranks, confusion
    )
    answer = {
        **figures.asdict(),
        "images_per_s": figures.samples / seconds,
        "engine": engine,
        "device": str(ranks.device),
        "memory_format": layout,
        "chunk": chunk_size(ranks.device),
        "world_size": ranks.world,
        **costs.now_and_at_the_end(model, recipe.data.image_size),
        "data": ranks.from_first(lambda: images_facts(opened, whole, figures.samples)),
        **held,
        **beside,
    }
    return answer | _by_class(given, ranks, confusion, data.classes)


def _by_class(
    given: argparse.Namespace, ranks: Ranks, confusion: Confusion, names: tuple[str, ...]
) -> dict[str, Any]:
    """What was asked for of single classes. Collective."""
    counts_CC = ranks.sum_(confusion.counts_CC).cpu()
    found: dict[str, Any] = {}
    if given.per_class:
        found["per_class"] = per_class(counts_CC, names)
    if given.plot and ranks.first:
        try:
            plot(counts_CC, names, given.plot)
        except OSError as error:  # the figures are there all the same
            found["plot_error"] = f"{given.plot}: {(error.strerror or str(error)).lower()}"
    return found


def _check_is_judged(held: Mapping[str, Any]) -> None:
    """--check needs an expectation that holds for what is measured."""
    if held["expected"]:
        return
    why = (
        f"its expectation is not judged here: {held['not_judged']}"
        if held["not_judged"]
        else "nothing is expected"
    )
    raise UsageError(f"--check, but {why}: nothing was measured; leave --check out")


def in_precision(
    precision: str,
    networks: tuple[nn.Module, nn.Module],
    images: ImageSet,
    recipe: Recipe,
    ranks: Ranks,
    confusion: Confusion,
) -> tuple[Figures, float, dict[str, Any]]:
    """Figures and seconds of the first network; where it is not in float32, also what differs from
    the second, which is and goes over the same images.
    """
    runner, model = networks
    if precision == "float32":
        return *timed(runner, images, recipe, ranks, confusion.add), {"precision": precision}
    paired = Paired()

    def watch(logits_BC: Tensor, labels_B: Tensor) -> None:
        confusion.add(logits_BC, labels_B)
        paired.keep(logits_BC, labels_B)

    figures, seconds = timed(runner, images, recipe, ranks, watch)
    # in float32 by the same engine: what differs is then the precision alone
    _, exact = choose_engine("native", model, ranks.device)
    other, _ = timed(exact, images, recipe, ranks, paired.compare)
    beside = {"against_float32": paired.facts(other.top1_error, ranks)}
    return figures, seconds, {"precision": precision, **beside}


def choose_engine(
    wanted: str, model: nn.Module, device: torch.device, precision: str = "float32"
) -> tuple[str, nn.Module]:
    """(name, network) of the way to run it;
    `auto` is native on a CPU that has it. Raises UsageError.
    """
    if precision != "float32" and wanted in ("eager", "compile"):
        raise UsageError(
            f"--precision {precision}: only the native engine has it: leave out --engine {wanted}"
        )
    fits = device.type == "cpu" and next(model.parameters()).dtype == torch.float32
    native = fits and wanted in ("native", "auto") and available()
    if wanted == "native" and not native:
        why = describe().get("why_not") or "it runs float32 networks on the CPU only"
        raise UsageError(f"--engine native: not available here ({why}): use --engine eager")
    if precision != "float32" and not native:
        why = describe().get("why_not") or "it runs float32 networks on the CPU only"
        raise UsageError(
            f"--precision {precision}: the native engine is not available here ({why})"
        )
    if native:
        return "native", compile_for_inference(model, precision=check_choice(precision))
    return ("compile", build.compile_model(model)) if wanted == "compile" else ("eager", model)


def timed(
    model: nn.Module,
    images: ImageSet,
    recipe: Recipe,
    ranks: Ranks,
    watch: Callable[[Tensor, Tensor], None],
) -> tuple[Figures, float]:
    """Figures of the evaluation, and how long it took with reading the images."""
    loader = build.eval_batches(recipe, images, ranks.device, ranks.rank, ranks.world)
    if hasattr(model, "_orig_mod"):  # of torch.compile, whose class takes a second to import
        compile_now(model, recipe, ranks.device)
    batches = ((batch.images, batch.labels) for batch in loader.epoch())
    began = time.monotonic()
    figures = evaluate(model, batches, len(images), ranks, watch=watch)
    return figures, time.monotonic() - began


@torch.no_grad()
def compile_now(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Have torch.compile meet the batches that will come:
    that takes minutes and is no part of the speed.
    """
    size = recipe.data.image_size
    model(
        torch.zeros(
            chunk_size(device), 3, size, size, device=device, dtype=build.DTYPES[recipe.train.dtype]
        )
    )


class Confusion:
    """counts_CC[true, answered], on the device."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.counts_CC = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        classes = len(self.counts_CC)
        # each pair of labels is one number, so that one count does for the whole matrix
        places_B = labels_B * classes + logits_BC.argmax(1)
        self.counts_CC += torch.bincount(places_B, minlength=classes * classes).view(
            classes, classes
        )


def expectation(opened: Opened, data: Labelled, limit: int | None, ranks: Ranks) -> dict[str, Any]:
    """`expected`: what these figures can be held against;
    `not_judged`: why nothing, where something was expected.
    """
    # published and recorded figures are of certain images: on others they say nothing
    rows = published(opened.entry) if opened.entry else wished(opened.recipe)
    why = ranks.from_first(lambda: why_not_judged(opened, data, limit)) if rows else ""
    return {"expected": [] if why else rows, "not_judged": why or None}


def wished(recipe: Recipe) -> list[dict[str, Any]]:
    """What a recipe expects of its network."""
    return [
        {
            "metric": row.metric,
            "expected": row.value,
            "tolerance": row.tolerance,
            "source": row.source,
        }
        for row in recipe.expect
    ]


def published(entry: ReleasedCheckpoint) -> list[dict[str, Any]]:
    """What the authors report for a released network; met where the last published digit is."""
    # half of the last digit that was published
    values = {"top1_error": entry.top1_error, "top5_error": entry.top5_error}
    return [
        {"metric": metric, "expected": value, "tolerance": 0.005, "source": entry.source}
        for metric, value in values.items()
        if value is not None
    ]


def per_class(counts_CC: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Error of each class, in percent; None where no image of it was seen."""
    rows = []
    for label, row in enumerate(counts_CC.tolist()):
        samples = sum(row)
        error = 100 * (samples - row[label]) / samples if samples else None
        rows.append({"class": label, "name": names[label], "samples": samples, "top1_error": error})
    return rows


def plot(counts_CC: Tensor, names: tuple[str, ...], path: Path) -> None:
    """The confusion matrix as a picture (the format follows the file's ending)."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # set for the whole process, which draws this one picture
    mpl.rcParams["text.parse_math"] = False  # a $ in a class name is a letter
    shares_CC = counts_CC.double() / counts_CC.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares_CC.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set(
        xlabel="answered",
        ylabel="true",
        title=f"{int(counts_CC.sum()):,} images, share of each true class",
    )
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_program(main)
