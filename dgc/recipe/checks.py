"""What must fit together across the fields of a recipe: checked before any data or device is
touched. No torch.

Each check names the keys that it reads and gets their values; it returns what is wrong, both fields
named, or None. It runs only where all of its keys are valid by themselves, so one pass reports
everything that can be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dgc.recipe.schema import LOADING, OURS, ConvertSection

Check = Callable[..., str | None]

_CLASSES = {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000}
_ONLY_DYDENSENET = ("stages", "growth", "bottleneck", "group_3x3")
_RESNET_WIDTH = 64


def _stages_and_growth(
    name: str, stages: Sequence[int] | None, growth: Sequence[int] | None
) -> str | None:
    if name != "dydensenet":
        return None
    if not stages or not growth:
        return (
            "model.stages and model.growth must be given for a dydensenet, as two lists of the same"
            " length"
        )
    if len(stages) == len(growth):
        return None
    return (
        f"model.stages has {len(stages)} entries {_list(stages)} and model.growth has {len(growth)}"
        f" {_list(growth)}: they must have the same length, one entry a stage"
    )


def _only_dydensenet(name: str, *values: object) -> str | None:
    given = [
        f"model.{key}"
        for key, value in zip(_ONLY_DYDENSENET, values, strict=True)
        if value is not None
    ]
    if name == "dydensenet" or not given:
        return None
    return f"{', '.join(given)} belong to dydensenet, and model.name is {name}: remove them"


def _heads_divide_channels(name: str, heads: int, growth: Sequence[int] | None) -> str | None:
    if name == "dyresnet18":
        if _RESNET_WIDTH % heads:
            return (
                f"model.heads = {heads} does not divide the {_RESNET_WIDTH} channels of dyresnet18:"
                " take 1, 2, 4, 8, 16"
            )
        return None
    if name != "dydensenet":
        return None
    for stage, rate in enumerate(growth or ()):
        # the input channels are sums of growths, the output channels are multiples of them
        if rate % heads:
            return (
                f"model.heads = {heads} does not divide model.growth[{stage}] = {rate}: take a"
                " divisor of every growth"
            )
    return None


def _stem(name: str, stem: str | None) -> str | None:
    if name not in OURS or stem is not None:
        return None
    return f"model.stem must be given for a {name}: cifar (small images) or imagenet"


def _only_ours(name: str, *values: object) -> str | None:
    """The opposite of _only_foreign; `squeeze_rate` has a default, so only another value is seen."""
    if name in OURS:
        return None
    stem, squeeze_rate = values
    if stem is not None:
        return f"model.stem belongs to {' and '.join(OURS)}, and model.name is {name}: remove it"
    if squeeze_rate != 16:
        return (
            f"model.squeeze_rate belongs to {' and '.join(OURS)}, and model.name is {name}: write"
            " model.convert.squeeze_rate"
        )
    return None


def _only_foreign(name: str, args: Mapping[str, Any], convert: Any) -> str | None:
    if name not in OURS:
        return None
    if args:
        return (
            f"model.args belongs to networks that are not ours, and model.name is {name}: remove it"
        )
    convert = convert if isinstance(convert, Mapping) else convert.model_dump()
    if any(
        convert.get(key, value) != value for key, value in ConvertSection().model_dump().items()
    ):
        return (
            f"model.convert belongs to networks that are not ours, and model.name is {name}: remove"
            " it"
        )
    return None


def _foreign_form(name: str, form: str) -> str | None:
    if name in OURS or form != "sgc":
        return None
    return f"model.form = sgc is there for {' and '.join(OURS)} alone: take dense or dgc"


def _foreign_args(name: str, args: Mapping[str, Any]) -> str | None:
    if name in OURS:
        return None
    if "num_classes" in args:
        return "model.args.num_classes: write model.num_classes"
    loads = next((key for key in LOADING if key in args), None)
    if loads is None or name.startswith("python:"):
        return None
    return f"model.args.{loads} would fetch or open weights: name a file with model.init"


def _own_data_args(dataset: str, args: Mapping[str, Any]) -> str | None:
    if not args or dataset.startswith("python:"):
        return None
    return f"data.args belongs to data of your own, and data.name = {dataset}: remove it"


def _reset_without_init(init: str | None, reset: Sequence[str]) -> str | None:
    if not reset or init is not None:
        return None
    return "model.reset says what of model.init may differ, and model.init is not given"


def _digest_without_init(init: str | None, digest: str | None) -> str | None:
    if digest is None or init is not None:
        return None
    return "model.init_sha256 is the digest of model.init, and model.init is not given"


def _address(init: str | None) -> str | None:
    if init is None or not init.startswith(("http://", "https://", "hf://", "s3://", "hf_hub:")):
        return None
    return f"model.init = {init} is an address: download it, and name the file"


def _groups_divide_growth(
    name: str, groups: int | None, growth: Sequence[int] | None
) -> str | None:
    if name != "dydensenet":
        return None
    groups = groups or 4  # the default, see dgc.recipe.schema
    for stage, rate in enumerate(growth or ()):
        if rate % groups:
            return (
                f"model.group_3x3 = {groups} does not divide model.growth[{stage}] = {rate}: take a"
                " divisor"
            )
    return None


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
            f"optim.milestones = {_list(milestones)} must rise and stay below train.epochs ="
            f" {epochs}"
        )
    return None


def _nesterov(nesterov: bool, momentum: float) -> str | None:
    if nesterov and momentum == 0:
        return "optim.nesterov = true needs optim.momentum > 0: set optim.nesterov = false"
    return None


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
    backend: str, device: str, dtype: str, amp: str, layout: str, compiled: bool
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
        "train.compile = true": compiled,
    }
    found = next((text for text, is_wrong in wrong.items() if is_wrong), None)
    return found and f"train.backend = native and {found} exclude each other: set backend = auto"


def _expected_top5(classes: int, expect: Sequence[Mapping[str, Any]]) -> str | None:
    if classes <= 5 and any(_metric(item) == "top5_error" for item in expect):
        return f"expect names top5_error, but model.num_classes = {classes}: it is always 0"
    return None


def _metric(item: Any) -> Any:
    return item.get("metric") if isinstance(item, dict) else getattr(item, "metric", None)


CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (_stages_and_growth, ("model.name", "model.stages", "model.growth")),
    (_only_dydensenet, ("model.name", *(f"model.{key}" for key in _ONLY_DYDENSENET))),
    (_stem, ("model.name", "model.stem")),
    (_only_ours, ("model.name", "model.stem", "model.squeeze_rate")),
    (_only_foreign, ("model.name", "model.args", "model.convert")),
    (_foreign_form, ("model.name", "model.form")),
    (_foreign_args, ("model.name", "model.args")),
    (_own_data_args, ("data.name", "data.args")),
    (_reset_without_init, ("model.init", "model.reset")),
    (_digest_without_init, ("model.init", "model.init_sha256")),
    (_address, ("model.init",)),
    (_heads_divide_channels, ("model.name", "model.heads", "model.growth")),
    (_groups_divide_growth, ("model.name", "model.group_3x3", "model.growth")),
    (_classes, ("data.name", "model.num_classes")),
    (_no_folder, ("data.dir", "data.name")),
    (_no_quarantine, ("data.quarantine", "data.name")),
    (_fashion_size, ("data.name", "data.image_size")),
    (_in_memory_augment, ("data.name", "data.augment")),
    (_resize_covers, ("data.resize", "data.image_size")),
    (_crop_padding, ("data.augment", "data.crop_padding", "data.image_size")),
    (_milestones, ("optim.schedule", "optim.milestones", "train.epochs")),
    (_nesterov, ("optim.nesterov", "optim.momentum")),
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
    (_expected_top5, ("model.num_classes", "expect")),
)


def run_checks(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (a key of the problem, what is wrong). `values` holds the valid fields by dotted key."""
    for check, keys in CHECKS:
        if all(key in values for key in keys) and (
            problem := check(*(values[key] for key in keys))
        ):
            yield next((key for key in keys if key in problem), keys[0]), problem


def _list(values: Sequence[int]) -> str:
    return f"[{', '.join(map(str, values))}]"
