"""Knowledge distillation (Hinton, Vinyals and Dean 2015): a trained network, the teacher, says what
the network that is trained should answer.

loss = (1 - weight) * cross entropy + weight * T^2 * KL(teacher || student), both softened by the
temperature T. The teacher sees the very images that the network sees, augmented and mixed alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgc.data import Images
from dgc.errors import DataError, IntegrityError, UsageError
from dgc.hub.load_weights import Opened, UnnamedNetworkError, open_file, open_unnamed
from dgc.recipe.load import Recipe
from dgc.run.files import is_file, sha256_of
from dgc.train import build


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode, on the device, and how much its word counts."""

    module: nn.Module
    temperature: float
    weight: float
    facts: dict[str, str]  # for the record: file, sha256, title

    def taught(self, cross_entropy: Tensor, logits_BC: Tensor, images_BCHW: Tensor) -> Tensor:
        """The loss of a batch. `cross_entropy` is a scalar, as the result."""
        with torch.no_grad():
            wanted_BC = F.log_softmax(self.module(images_BCHW).float() / self.temperature, 1)
        said_BC = F.log_softmax(logits_BC / self.temperature, 1)
        # T^2 keeps the gradient as large at any temperature (section 2 of the paper)
        distance = F.kl_div(said_BC, wanted_BC, reduction="batchmean", log_target=True)
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * distance


KEY = "train.teacher"


class TeacherFile(NamedTuple):
    path: Path
    sha256: str

    @property
    def named(self) -> str:
        return f"{KEY} = {self.path}"


def find_teacher(recipe: Recipe) -> TeacherFile | None:
    """The file of the recipe's teacher; None where it has none. Asked before any data is touched.

    Raises DataError where it is not there, IntegrityError where it is another one than the recipe
    was made for.
    """
    if recipe.train.teacher is None:
        return None
    path = Path(recipe.train.teacher).expanduser()
    if not is_file(path):
        raise DataError(
            f"train.teacher = {path}: no such file: name a checkpoint's model.safetensors or an"
            " export"
        )
    found = TeacherFile(path, sha256_of(path))
    if recipe.train.teacher_sha256 not in (None, found.sha256):
        raise IntegrityError(
            f"{found.named}: SHA-256 was {str(recipe.train.teacher_sha256)[:12]}, is"
            f" {found.sha256[:12]}: this is another teacher than the recipe was made for"
        )
    return found


def open_teacher(
    file: TeacherFile | None, recipe: Recipe, images: Images, device: torch.device
) -> Teacher | None:
    """The teacher, on the device. Draws random numbers (a network is built).

    Raises DataError where it knows other classes or other colours.
    """
    if file is None:
        return None
    try:
        opened = open_file(file.path)
    except UnnamedNetworkError:
        opened = _of_the_recipe(file, recipe)
    except UsageError as error:
        raise UsageError(f"{file.named}: {error}") from error
    _check(file.named, opened, recipe, images)
    for parameter in opened.model.parameters():
        parameter.requires_grad_(False)
    train = recipe.train
    module = opened.model.to(device=device, dtype=build.DTYPES[train.dtype]).eval()
    facts = {
        "file": str(file.path.absolute()),
        "sha256": file.sha256,
        "network": opened.recipe.model.name,
    }
    return Teacher(module, train.teacher_temperature, train.teacher_weight, facts)


def _of_the_recipe(file: TeacherFile, recipe: Recipe) -> Opened:
    """Weights that name no network are of the one that they teach: dense, or as it is trained."""
    section = recipe.model.model_copy(update={"form": "dense"})
    try:
        return open_unnamed(file.path, recipe.model_copy(update={"model": section}), KEY)
    except IntegrityError:
        # of any other network the dense one is all that can be told from weights
        if not recipe.model.is_ours or recipe.model.form == "dense":
            raise
        return open_unnamed(file.path, recipe, KEY)


def _check(where: str, opened: Opened, recipe: Recipe, images: Images) -> None:
    # nobody recorded the names of bare weights: the number of answers is known by the recipe
    classes = opened.card.classes or images.classes[: opened.recipe.model.num_classes]
    if len(classes) != len(images.classes):
        raise DataError(
            f"{where}: knows {len(classes)} classes, and the images have {len(images.classes)}"
        )
    if tuple(classes) != tuple(images.classes):
        odd = next(pair for pair in zip(classes, images.classes, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{where}: was trained for other classes: {odd[0]!r} stands where these images have"
            f" {odd[1]!r}"
        )
    seen, data = opened.preprocessing, recipe.data
    if (tuple(seen.mean), tuple(seen.std)) != (data.mean, data.std):
        raise DataError(
            f"{where}: was trained with data.mean = {list(seen.mean)} and data.std ="
            f" {list(seen.std)}: the network that it teaches must see the same, set them so"
        )
