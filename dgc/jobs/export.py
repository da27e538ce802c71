"""`python -m dgc.jobs.export`: a network with its weights as a file for other programs.

    python -m dgc.jobs.export --out FILE [--size HxW ...] [--licence TEXT]
        [--form plan|onnx|pt2] [--precision float32|int8] --json OUT
        (--pretrained NAME | --run-dir RUN [--step N|best|last] [--ema]
            | --weights FILE [--recipe RECIPE])

OUT = {"title", "file", "bytes", "images": [[C, H, W], ...], "classes"}. Classes, preprocessing and
origin go into the file.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import dgc
from dgc.errors import ResourceError, UsageError
from dgc.hub.cache import now
from dgc.hub.fetch import FetchOptions
from dgc.hub.load_weights import Opened, open_named
from dgc.hub.registry import ImageSteps
from dgc.infer import save_plan
from dgc.infer.onnx_file import save_onnx
from dgc.infer.operators import save_pt2
from dgc.jobs.labelled import known_classes
from dgc.jobs.network_arguments import add_network
from dgc.jobs.reply import reply
from dgc.run.checkpoint_store import EMA_FILE, MODEL_FILE, checkpoint_folder
from dgc.run.files import sha256_of
from dgc.run.paths import RunDir
from dgc.talk import run_program, say

CHANNELS = 3  # what every reader of images gives; a grey one is given three times
MOST = 1 << 16  # pixels of a side
_SIZE = re.compile(r"([0-9]{1,9})(?:x([0-9]{1,9}))?")


def sizes_of(words: Sequence[str], opened: Opened) -> list[tuple[int, int]]:
    """(height, width) of each `--size`; of none, the one that the weights were trained for."""
    own = opened.preprocessing.image_size
    found = [_SIZE.fullmatch(word) for word in words]
    for word, match in zip(words, found, strict=True):
        if match is None:
            raise UsageError(f"--size {word}: should be a number or HxW, e.g. {own} or {own}x{own}")
    sizes = [(int(m[1]), int(m[2] or m[1])) for m in found if m]
    for word, size in zip(words, sizes, strict=True):
        if not 1 <= min(size) <= max(size) <= MOST:
            raise UsageError(f"--size {word}: sides should be 1 to {MOST:,}")
    return sizes or [(own, own)]


def origin(given: argparse.Namespace, opened: Opened) -> dict[str, Any]:
    """Where the weights came from."""
    told: dict[str, Any] = {
        "dgcctl": dgc.__version__,
        "exported": now(),
        "model": opened.recipe.model.name,
        "recipe_digest": opened.recipe.digest(),
        "licence": given.licence or (opened.entry.licence if opened.entry else None),
        "precision": given.precision,
        "averaged": opened.averaged,  # weights of train.ema_decay
    }
    if given.run_dir:
        folder = checkpoint_folder(RunDir(given.run_dir), given.step)
        told["run"], told["checkpoint"] = RunDir(given.run_dir).id, folder.name
        told["weights_sha256"] = sha256_of(folder / (EMA_FILE if given.ema else MODEL_FILE))
    elif given.weights:
        told["weights_sha256"] = sha256_of(given.weights)
    elif opened.entry:
        told["released"], told["source"] = opened.entry.name, opened.entry.source
    return {key: value for key, value in told.items() if value is not None}


SAVERS = {"onnx": save_onnx, "pt2": save_pt2}


def steps_for(sizes: Sequence[tuple[int, int]], how: ImageSteps) -> ImageSteps | None:
    """How an image file becomes one of `sizes`: as in training, or else the first square one with
    the same share of the image in it; None where no size is square.
    """
    squares = [height for height, width in sizes if height == width]
    if how.image_size in squares:
        return how
    if not squares:
        say(
            "no --size is square, which an image file becomes: the file does not say how an image"
            " is prepared"
        )
        return None
    side = squares[0]
    say(f"image files become {side} x {side} pixels, in the training {how.image_size}")
    resize = how.resize and round(how.resize * side / how.image_size)
    return replace(how, image_size=side, resize=resize)


def export(given: argparse.Namespace) -> dict[str, Any]:
    opened = open_named(given, FetchOptions(say=say))
    sizes = sizes_of(given.size, opened)
    classes = known_classes(opened)
    if given.form != "plan" and given.precision != "float32":
        raise UsageError(f"--precision belongs to plan files: --{given.form} is float32")
    if given.form != "plan" and len(sizes) > 1:
        raise UsageError(f"--{given.form} takes one --size, and {len(sizes)} were given")
    with enough_memory(sizes):
        write(given, opened, sizes, classes)
    return {
        "title": opened.title,
        "file": str(given.out),
        "bytes": given.out.stat().st_size,
        "images": [[CHANNELS, *size] for size in sizes],
        "classes": len(classes),
    }


@contextmanager
def enough_memory(sizes: Sequence[tuple[int, int]]) -> Iterator[None]:
    """What is refused for want of memory becomes one line."""
    try:
        yield
    except (MemoryError, RuntimeError, UsageError) as error:
        if not any(map(_is_of_memory, _causes(error))):
            raise
        listed = ", ".join(f"{h} x {w}" for h, w in sizes)
        raise ResourceError(
            f"not enough memory to make a file for images of {listed}: ask for smaller ones"
            " (--size)"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: the engine says that it cannot follow a network, and why."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_of_memory(error: BaseException) -> bool:
    # PyTorch has no class of its own for it on a CPU
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def write(
    given: argparse.Namespace,
    opened: Opened,
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[str],
) -> None:
    # one zero, seen as many: only the sizes matter
    examples = [torch.zeros(()).expand(1, CHANNELS, *size) for size in sizes]
    how, told = steps_for(sizes, opened.preprocessing), origin(given, opened)
    if given.form == "plan":
        precision = given.precision
        save_plan(opened.model, examples, given.out, classes, how, told, precision=precision)
    else:
        SAVERS[given.form](opened.model, examples[0], given.out, classes, how, told)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.export")
    add_network(parser)
    parser.add_argument("--size", action="append", default=[])
    parser.add_argument("--licence")
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    parser.add_argument("--form", choices=("plan", *SAVERS), default="plan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    return reply(given.json, lambda: export(given))


if __name__ == "__main__":
    run_program(main)
