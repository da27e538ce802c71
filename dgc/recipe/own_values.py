"""What of a recipe no longer holds once its data set or its network is changed by an override. No
torch.

`train demo data.name=image_folder data.dir=photos model.num_classes=3` takes the demo's way of
training and leaves its data. What the file says of that data and that network must not stay as if
it were said of the new ones: the expected error, the title, the data set's tag, the mean and the
standard deviation of its pixels. Each change is noted in `origin`, so that it stands in the run's
own recipe.yaml, and `notes` gives the lines to say at the start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dgc.recipe.schema import DataSection, ModelSection, Section

_SECTIONS: Mapping[str, type[Section]] = {"model": ModelSection, "data": DataSection}
_PIXELS = ("mean", "std")
_GIVEN_ON_A_DYDENSENET = 4  # bottleneck and group_3x3, see dgc.recipe.schema

_Statistics = tuple[list[float], list[float], str]
_IMAGENET: _Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "ImageNet's")
# mean, standard deviation (of the pixels / 255, per channel), whose they are; the figures of the
# shipped recipes
_STATISTICS: Mapping[str, _Statistics] = {
    "fashion_mnist": ([0.286] * 3, [0.353] * 3, "Fashion-MNIST's"),
    "cifar10": ([0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616], "CIFAR-10's"),
    "cifar100": ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761], "CIFAR-100's"),
    "imagenet": _IMAGENET,
    "image_folder": _IMAGENET,
}
_LEFT_OUT = "left out: "
_BORROWED = "not known for these images: "


def adapt(before: Mapping[str, Any], tree: dict[str, Any], given: Mapping[str, str]) -> None:
    """Take from `tree` (a recipe with its overrides)
    what was only true of `before` (the same without them).

    `given`: the keys that were overridden; what somebody gives is never replaced.
    """
    changes = sorted(
        # the data set first: it says best what the expectation was made for
        _changes(before, tree, given),
        key=lambda change: not change[0].startswith("data."),
    )
    if not changes:
        return
    _leave_out_expectation(tree, given, changes)
    _rename(before, tree, given, changes)
    if _value(before, "data.name") != _value(tree, "data.name"):
        _replace_statistics(tree, given)


def notes(origin: Mapping[str, str]) -> list[str]:
    """What a start should say of a recipe that was adapted, one line each; empty for any other."""
    said = []
    if origin.get("expect", "").startswith(_LEFT_OUT):
        said.append(
            f"expectation {origin['expect']}; give expect=[...] to judge by one of your own"
        )
    for key in _PIXELS:
        if _BORROWED in origin.get(f"data.{key}", ""):
            said.append(f"data.{key}: {origin[f'data.{key}']}")
    return said


def _changes(
    before: Mapping[str, Any], tree: Mapping[str, Any], given: Mapping[str, str]
) -> Iterator[tuple[str, Any, Any]]:
    """(key, value in the file, value now)
    of the overridden keys that say what is learnt, and by which network.
    """
    for key in given:
        section, _, name = key.partition(".")
        if section in _SECTIONS and not name:  # a whole section as one value
            names = [f"{section}.{inner}" for inner in _SECTIONS[section].model_fields]
        else:
            names = [key]
        for one in names:
            old, new = _value(before, one), _value(tree, one)
            if _says_what(one, old, tree) and not _same(one, old, new):
                yield one, old, new


def _says_what(key: str, old: Any, tree: Mapping[str, Any]) -> bool:
    """A folder says what is learnt only where the file names one
    of an image folder; else it is a place.
    """
    if key == "data.dir":
        return old is not None and _value(tree, "data.name") == "image_folder"
    return key in ("data.name", "data.image_size") or key.startswith("model.")


def _same(key: str, old: Any, new: Any) -> bool:
    if key == "data.dir" and isinstance(old, str) and isinstance(new, str):
        return os.path.abspath(os.path.expanduser(old)) == os.path.abspath(os.path.expanduser(new))
    return (list(old) if isinstance(old, tuple) else old) == (
        list(new) if isinstance(new, tuple) else new
    )


def _value(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a key with its default, or None."""
    section, _, name = key.partition(".")
    values = tree.get(section)
    if isinstance(values, dict) and values.get(name) is not None:
        return values[name]
    if (
        name in ("bottleneck", "group_3x3")
        and isinstance(values, dict)
        and values.get("name") == "dydensenet"
    ):
        return _GIVEN_ON_A_DYDENSENET
    field = _SECTIONS[section].model_fields.get(name) if section in _SECTIONS else None
    return None if field is None or field.is_required() else field.default


def _leave_out_expectation(
    tree: dict[str, Any], given: Mapping[str, str], changes: list[tuple[str, Any, Any]]
) -> None:
    # What somebody expects of a changed recipe is theirs to say; only what the file said is taken
    # back.
    if not tree.get("expect") or "expect" in given:
        return
    key, old, new = changes[0]
    tree["expect"] = []
    _note(
        tree,
        "expect",
        f"{_LEFT_OUT}it was made for {key} = {_word(old)}, and this run has {_word(new)}",
    )


def _rename(
    before: Mapping[str, Any],
    tree: dict[str, Any],
    given: Mapping[str, str],
    changes: list[tuple[str, Any, Any]],
) -> None:
    """A title that names what changed, and no tag of a data set that is no longer used."""
    changed = ", ".join(f"{key} = {_word(new)}" for key, _, new in changes)
    other_data = any(key in ("data.name", "data.dir") for key, _, _ in changes)
    if "title" not in given and isinstance(tree.get("title"), str):
        tree["title"] = f"{tree.get('name') if other_data else tree['title']}, changed: {changed}"
    old = _value(before, "data.name")
    if (
        "tags" not in given
        and isinstance(tree.get("tags"), list | tuple)
        and old != _value(tree, "data.name")
    ):
        tree["tags"] = [tag for tag in tree["tags"] if tag != old]


def _replace_statistics(tree: dict[str, Any], given: Mapping[str, str]) -> None:
    found = _STATISTICS.get(str(_value(tree, "data.name")))
    data = tree.get("data")
    if found is None or not isinstance(data, dict) or "data" in given:
        return
    whose = found[2]
    for key, value in zip(_PIXELS, found, strict=False):
        if f"data.{key}" in given:
            continue
        data[key] = list(value)
        borrowed = data.get("name") == "image_folder"
        text = (
            f"{_BORROWED}{whose} {_word(value)} is used; data.{key}=[...] gives another"
            if borrowed
            else whose
        )
        _note(tree, f"data.{key}", text)


def _note(tree: dict[str, Any], key: str, text: str) -> None:
    origin = tree.setdefault("origin", {})
    if isinstance(origin, dict):
        origin[key] = text


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_word(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value)
