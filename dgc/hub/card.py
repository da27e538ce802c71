"""The card of a set of weights: what belongs to them and travels with them, in a checkpoint or an
exported file.

What label 3 is called and what an image must go through are facts of the weights; a recipe at hand
may say otherwise. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dgc.errors import IntegrityError
from dgc.hub.registry import Preprocessing
from dgc.recipe.load import Recipe

_GREY = ("fashion_mnist",)  # data sets of one channel
_CROP = "center"


@dataclass(frozen=True)
class Card:
    """`classes`: names by label, empty where nobody recorded them. `folders`: names of the class
    folders by label, where these are others. `data`: name and digest of the images they were
    evaluated on in training, if known.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        how = {**asdict(self.preprocessing), "crop": _CROP}
        return {
            "classes": list(self.classes),
            "folders": list(self.folders),
            "preprocessing": how,
            "data": self.data and dict(self.data),
        }


def card_of(recipe: Recipe, data_json: Mapping[str, Any] | None = None) -> Card:
    """The card of a network that was trained with `recipe` on what `data_json` (a run's data.json)
    describes.
    """
    data = recipe.data
    mean, std = ((x[0], x[1], x[2]) for x in (data.mean, data.std))
    channels = 1 if data.name in _GREY else 3
    card = Card(Preprocessing(data.resize, data.image_size, mean, std, channels))
    if not data_json:
        return card
    val = data_json.get("val")
    val = val if isinstance(val, Mapping) else {}  # runs of other programs say only how many
    facts = {
        "name": data_json.get("name"),
        "sha256": val.get("sha256"),
        "samples": val.get("samples"),
    }
    classes, folders = (tuple(map(str, data_json.get(key) or ())) for key in ("classes", "folders"))
    return replace(card, classes=classes, folders=folders, data=facts)


def read_card(document: Any, where: str) -> Card:
    """What `document` wrote. Raises IntegrityError where it is no such thing: it may come from a
    file of strangers.
    """
    try:
        how = document["preprocessing"]
        if how.get("crop", _CROP) != _CROP:
            raise ValueError(f"crop {how['crop']!r}")
        mean, std = (_three(how[key]) for key in ("mean", "std"))
        if not all(value > 0 for value in std):
            raise ValueError(f"std {std}")
        resize, size, channels = (
            how["resize"],
            _positive(how["image_size"]),
            _positive(how["channels"]),
        )
        preprocessing = Preprocessing(
            None if resize is None else _positive(resize), size, mean, std, channels
        )
        classes, folders = (_names(document.get(key) or []) for key in ("classes", "folders"))
        data = document.get("data")
        if data is not None and not isinstance(data, dict):
            raise TypeError("data is no mapping")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{where}: no usable record of classes and preprocessing ({error!r})"
        ) from error
    return Card(preprocessing, classes, folders, data)


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"{values!r} is not finite")
    return first, second, third


def _positive(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 1 << 16:
        raise ValueError(f"{value!r} is no size")
    return value


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names are a list of texts")
    return tuple(values)
