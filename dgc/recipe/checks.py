"""What must fit together across the fields of a recipe: checked before any data or device is
touched. No torch.

Each check names the keys that it reads and gets their values; it returns what is wrong, both fields
named, or None. It runs only where all of its keys are valid by themselves, so one pass reports
everything that can be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dgc.recipe import network_checks
from dgc.recipe.network_checks import Check, listed
from dgc.recipe.schema import ONLY_FOR, default_of, with_rule_defaults

_CLASSES = {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000}


def _own_data_args(dataset: str, args: Mapping[str, Any]) -> str | None:
    if not args or dataset.startswith("python:"):
        return None
    return f"data.args belongs to data of your own, and data.name = {dataset}: remove it"


def _classes(dataset: str, classes: int) -> str | None:
    expected = _CLASSES.get(dataset, classes)
    if expected == classes:
        return None
    hint = "; for a subset use data.name = image_folder" if dataset == "imagenet" else ""
    return f"model.num_classes = {classes}, but data.name = {dataset} has {expected} classes{hint}"


def _no_folder(folder: str | None, dataset: str) -> str | None:
    if dataset != "fashion_mnist" or folder is None:
        return None
    return no_folder(folder)


def no_folder(folder: object) -> str:
    """What is said of a folder that was given for the embedded data set, which has none."""
    return (
        f"data.dir = {folder} (or --data-dir), but data.name = fashion_mnist comes with the package"
        " and has no folder: did you mean data.name=image_folder?"
    )


def _no_quarantine(file: str | None, dataset: str) -> str | None:
    if file is None or dataset in ("imagenet", "image_folder"):
        return None
    return (
        f"data.quarantine = {file} lists files of an image folder, and data.name = {dataset} is"
        " none: remove it"
    )


def _fashion_size(dataset: str, size: int) -> str | None:
    if dataset != "fashion_mnist" or size == 32:
        return None
    return (
        f"data.image_size = {size}, but data.name = {dataset} gives 32 x 32 images: set"
        " data.image_size = 32"
    )


def _in_memory_augment(dataset: str, augment: str) -> str | None:
    if augment != "resized_crop_flip" or dataset not in ("fashion_mnist", "cifar10", "cifar100"):
        return None
    return (
        f"data.augment = {augment} is for image folders, and data.name = {dataset}: take none or"
        " crop_flip"
    )


def _resize_covers(resize: int | None, size: int) -> str | None:
    if resize is None or resize >= size:
        return None
    return (
        f"data.resize = {resize} is smaller than data.image_size = {size}: the centre crop would"
        " not fit"
    )


def _crop_padding(augment: str, padding: int, size: int) -> str | None:
    if augment != "crop_flip" or padding < size:
        return None
    return f"data.crop_padding = {padding} must be smaller than data.image_size = {size}"


def _milestones(schedule: str, milestones: Sequence[int], epochs: int) -> str | None:
    # with cosine nothing reads them: a list that changes nothing is a misunderstanding
    if schedule == "cosine":
        return (
            "optim.milestones is given, but optim.schedule is cosine: use multistep or remove it"
            if milestones
            else None
        )
    if not milestones:
        return "optim.schedule = multistep needs optim.milestones, e.g. [150, 225]"
    if any(first >= second for first, second in pairwise(milestones)) or milestones[-1] >= epochs:
        return (
            f"optim.milestones = {listed(milestones)} must rise and stay below train.epochs ="
            f" {epochs}"
        )
    return None


def _nesterov(nesterov: bool, momentum: float) -> str | None:
    if nesterov and momentum == 0:
        return "optim.nesterov = true needs optim.momentum > 0: set optim.nesterov = false"
    return None


def _rule(name: str, *values: object) -> str | None:
    """Keys of another update rule, where they say something."""
    # what a rule leaves at its default is nobody's wish
    defaults = {key: default_of(f"optim.{key}") for key in ONLY_FOR} | with_rule_defaults(
        {"name": name}
    )
    for (key, rules), value in zip(ONLY_FOR.items(), values, strict=True):
        if name not in rules and value != defaults[key]:
            return (
                f"optim.{key} = {_told(value)} belongs to {' and '.join(rules)}, and optim.name ="
                f" {name}: remove it, or set optim.{key}={_told(defaults[key])}"
            )
    return None


def _told(value: object) -> object:
    return list(value) if isinstance(value, tuple) else str(value).lower()


def _warmup(warmup: float, start: float, lr: float, epochs: int) -> str | None:
    if warmup >= epochs:
        return f"optim.warmup_epochs = {warmup} must be smaller than train.epochs = {epochs}"
    if start and not warmup:
        return f"optim.warmup_lr = {start} needs optim.warmup_epochs > 0"
    if start > lr:
        return f"optim.warmup_lr = {start} is larger than optim.lr = {lr}: the warm-up rises"
    return None


def _mixing(mixup: float, cutmix: float, batch: int) -> str | None:
    if (mixup or cutmix) and batch % 2:
        key = "mixup" if mixup else "cutmix"
        return (
            f"train.{key} mixes images two by two, and train.batch_size = {batch} is odd: take an"
            " even one"
        )
    return None


def _teacher(teacher: str | None, *values: object) -> str | None:
    keys = ("teacher_sha256", "teacher_temperature", "teacher_weight")
    for key, value in zip(keys, values, strict=True):
        if teacher is None and value != default_of(f"train.{key}"):
            return f"train.{key} = {value} says something of train.teacher, and none is given"
    return None


def _magnitude(operations: int, magnitude: int) -> str | None:
    if operations or magnitude == default_of("data.rand_augment_magnitude"):
        return None
    return (
        f"data.rand_augment_magnitude = {magnitude} needs data.rand_augment > 0 (operations an"
        " image)"
    )


def _accumulate(batch: int, parts: int) -> str | None:
    if batch % parts == 0:
        return None
    return f"train.batch_size = {batch} is not a multiple of train.accumulate = {parts}"


def _batch_within_limit(batch: int, limit: int | None) -> str | None:
    if limit is None or batch <= limit:
        return None
    return (
        f"train.batch_size = {batch} is larger than data.limit_train = {limit}: not one whole batch"
    )


def _amp(amp: str, dtype: str) -> str | None:
    if amp != "off" and dtype == "float64":
        return (
            f"train.amp = {amp} and train.dtype = {dtype} exclude each other: set train.amp = off"
        )
    return None


def _native(
    backend: str, device: str, dtype: str, amp: str, layout: str, compiled: bool | str
) -> str | None:
    """The C++ kernels work on the CPU, in float32, on contiguous images, and no compiler sees into
    them; 'auto' takes plain PyTorch elsewhere.
    """
    if backend != "native":
        return None
    wrong = {
        f"train.device = {device}": device == "cuda",
        f"train.dtype = {dtype}": dtype != "float32",
        f"train.amp = {amp}": amp != "off",
        f"train.memory_format = {layout}": layout == "channels_last",
        f"train.compile = {_told(compiled)}": bool(compiled),
    }
    found = next((text for text, is_wrong in wrong.items() if is_wrong), None)
    return found and f"train.backend = native and {found} exclude each other: set backend = auto"


def _graph(compiled: bool | str, device: str) -> str | None:
    if compiled != "reduce-overhead" or device != "cpu":
        return None
    return (
        f"train.compile = {compiled} and train.device = {device} exclude each other: a CUDA graph"
        " needs a GPU"
    )


def _expected_top5(classes: int, expect: Sequence[Mapping[str, Any]]) -> str | None:
    if classes <= 5 and any(_metric(item) == "top5_error" for item in expect):
        return f"expect names top5_error, but model.num_classes = {classes}: it is always 0"
    return None


def _metric(item: Any) -> Any:
    return item.get("metric") if isinstance(item, dict) else getattr(item, "metric", None)


CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    *network_checks.CHECKS,
    (_own_data_args, ("data.name", "data.args")),
    (_classes, ("data.name", "model.num_classes")),
    (_no_folder, ("data.dir", "data.name")),
    (_no_quarantine, ("data.quarantine", "data.name")),
    (_fashion_size, ("data.name", "data.image_size")),
    (_in_memory_augment, ("data.name", "data.augment")),
    (_resize_covers, ("data.resize", "data.image_size")),
    (_crop_padding, ("data.augment", "data.crop_padding", "data.image_size")),
    (_milestones, ("optim.schedule", "optim.milestones", "train.epochs")),
    (_nesterov, ("optim.nesterov", "optim.momentum")),
    (_rule, ("optim.name", *(f"optim.{key}" for key in ONLY_FOR))),
    (_warmup, ("optim.warmup_epochs", "optim.warmup_lr", "optim.lr", "train.epochs")),
    (_mixing, ("train.mixup", "train.cutmix", "train.batch_size")),
    (
        _teacher,
        (
            "train.teacher",
            "train.teacher_sha256",
            "train.teacher_temperature",
            "train.teacher_weight",
        ),
    ),
    (_magnitude, ("data.rand_augment", "data.rand_augment_magnitude")),
    (_accumulate, ("train.batch_size", "train.accumulate")),
    (_batch_within_limit, ("train.batch_size", "data.limit_train")),
    (_amp, ("train.amp", "train.dtype")),
    (
        _native,
        (
            "train.backend",
            "train.device",
            "train.dtype",
            "train.amp",
            "train.memory_format",
            "train.compile",
        ),
    ),
    (_graph, ("train.compile", "train.device")),
    (_expected_top5, ("model.num_classes", "expect")),
)


def run_checks(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (a key of the problem, what is wrong).
    `values` holds the valid fields by dotted key.
    """
    # where a field is wrong by itself, what it should fit cannot be said
    for check, keys in CHECKS:
        if all(key in values for key in keys) and (
            problem := check(*(values[key] for key in keys))
        ):
            yield next((key for key in keys if key in problem), keys[0]), problem
