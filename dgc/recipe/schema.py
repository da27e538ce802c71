"""What a recipe may hold: its sections, keys, types, ranges and defaults (strict and frozen). No
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def plain_values(value: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a builder, as a recipe can write them: lists hold no mappings."""
    for key, item in value.items():
        if problem := _not_plain(key, item):
            raise PydanticCustomError(CLASH, "args: {problem}", {"problem": problem})
    return value


def _not_plain(key: str, value: Any, *, inside: bool = False) -> str:
    if isinstance(value, list | tuple):
        return next(filter(None, (_not_plain(key, item, inside=True) for item in value)), "")
    if isinstance(value, dict) and not inside:
        return next(filter(None, (_not_plain(f"{key}.{k}", v) for k, v in value.items())), "")
    if isinstance(value, dict):
        return f"{key} is a list with a mapping in it: give lists of numbers and texts"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{key} is {value}, which is no number"
    return ""


CLASH = "clash"  # the type of an error whose message is a sentence for the user

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(ge=0)]
Ints = Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
RGB = Annotated[tuple[float, float, float], BeforeValidator(_as_tuple)]

DATASET = (
    r"^(fashion_mnist|cifar10|cifar100|imagenet|image_folder"
    r"|python:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*)$"
)
DATASETS = (
    "fashion_mnist, cifar10, cifar100, imagenet, image_folder, or python:PACKAGE.MODULE:FUNCTION of"
    " your own"
)
Dataset = Annotated[str, Field(pattern=DATASET, description=DATASETS)]
Augment = Literal["none", "crop_flip", "resized_crop_flip"]


class Section(BaseModel):
    """Base of all sections: unknown keys, wrong types,
    NaN and infinity are errors; nothing is converted.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


NETWORK = (
    r"^(dydensenet|dyresnet18|torchvision/[A-Za-z0-9_]+|timm/[A-Za-z0-9_][A-Za-z0-9_.-]*"
    r"|python:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*)$"
)
NETWORKS = (
    "dydensenet, dyresnet18, torchvision/NAME, timm/NAME, or python:PACKAGE.MODULE:FUNCTION of your"
    " own"
)
OURS = ("dydensenet", "dyresnet18")
# what only our own networks have, and what only others have
ONLY_OURS = (
    "stem", "squeeze_rate", "stages", "growth", "bottleneck", "group_3x3", "gate_factors",
)  # fmt: skip
ONLY_FOREIGN = ("args", "convert")
# what builders of torchvision and timm would load weights by
LOADING = (
    "weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
    "checkpoint_path", "cache_dir",
)  # fmt: skip
STARTING = ("init", "init_sha256", "reset")
# what a written recipe leaves out where it is not given
UNSAID = (*STARTING, "gate_factors")


class ConvertSection(Section):
    """Which layers of a network that is not ours become dynamic, see dgc.convert. `layers`: a name
    or pattern -> heads, gate_factor, squeeze_rate of the layers that it means.
    """

    include: Texts = ("*",)
    exclude: Texts = ()
    squeeze_rate: Positive = 16
    layers: dict[str, dict[str, int | float]] = Field(default_factory=dict)


class ModelSection(Section):
    """The network. Of ours, all keys but `name`
    and those about starting weights go to dgc.create_model as they are.
    """

    name: Annotated[str, Field(pattern=NETWORK, description=NETWORKS)]
    form: Literal["dgc", "dense", "sgc"] = "dgc"
    stem: Literal["cifar", "imagenet"] | None = None
    num_classes: Positive
    heads: Positive = 4
    squeeze_rate: Positive = 16
    gate_factor: Annotated[float, Field(gt=0, le=1)]
    stages: Ints | None = None
    growth: Ints | None = None
    bottleneck: Positive | None = None
    group_3x3: Positive | None = None
    gate_factors: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    args: Annotated[dict[str, Any], AfterValidator(plain_values)] = Field(default_factory=dict)
    init: str | None = None
    init_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    reset: Texts = ()
    convert: ConvertSection = ConvertSection()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return value
        if value["name"] == "dydensenet":
            given = {key: item for key, item in value.items() if item is not None}
            return {
                **value,
                "bottleneck": given.get("bottleneck", 4),
                "group_3x3": given.get("group_3x3", 4),
            }
        if value["name"] not in OURS and value.get("gate_factor") is None:
            return {**value, "gate_factor": 0.5}  # as dgc.convert
        return value

    @property
    def is_ours(self) -> bool:
        return self.name in OURS

    def kwargs(self) -> dict[str, Any]:
        """The arguments of dgc.create_model(self.name, **kwargs):
        those of a dydensenet only where it is one.
        """
        unsaid = {key for key in UNSAID if key in STARTING or not getattr(self, key)}
        values = self.model_dump(exclude={"name", *ONLY_FOREIGN, *unsaid}, exclude_none=True)
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
        }

    def lines(self) -> dict[str, Any]:
        """What a written recipe says of it:
        nothing that belongs to networks of the other kind, nor that none is started from.
        """
        values = self.model_dump()
        dropped = {*ONLY_FOREIGN} if self.is_ours else {*ONLY_OURS}
        dropped |= {key for key in UNSAID if not values[key]}
        if self.name != "dydensenet":
            dropped |= {key for key, value in values.items() if value is None}
        return {key: value for key, value in values.items() if key not in dropped}


class DataSection(Section):
    """The images. `dir` null means $DGCCTL_DATA_DIR/<name>, or ./data/<name>; `resize` is for
    evaluation. `rand_augment` operations of RandAugment a training image, at a magnitude of 0 to
    30; `random_erasing` is the probability that a box of it is erased.
    """

    name: Dataset
    args: Annotated[dict[str, Any], AfterValidator(plain_values)] = Field(default_factory=dict)
    dir: str | None = None
    augment: Augment
    image_size: Positive
    crop_padding: Annotated[int, Field(ge=0)] = 4
    rand_augment: Annotated[int, Field(ge=0, le=14)] = 0
    rand_augment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    random_erasing: Share = 0.0
    resize: Positive | None = None
    mean: RGB
    std: Annotated[
        tuple[
            Annotated[float, Field(gt=0)],
            Annotated[float, Field(gt=0)],
            Annotated[float, Field(gt=0)],
        ],
        BeforeValidator(_as_tuple),
    ]
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    limit_train: Positive | None = None
    limit_val: Positive | None = None
    download: bool = True
    quarantine: str | None = None


class OptimSection(Section):
    """The update rule (torch's own), its schedule, and the loss.

    `milestones` are counts of finished epochs. `gate_l1` weighs the sum of the gates' L1 in the
    loss. `betas` are of adamw, `alpha` of rmsprop, `eps` of both. The weight decay of gates, norms
    (their biases too) and other biases is `weight_decay` where none of their own is given. In the
    first `warmup_epochs` the learning rate rises in equal steps from `warmup_lr`; the schedule runs
    over what is left. `clip_grad_norm` is the largest norm of the whole gradient.
    """

    name: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        BeforeValidator(_as_tuple),
    ] = (0.9, 0.999)
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Number = 1e-4
    gate_weight_decay: Number | None = None
    norm_weight_decay: Number | None = None
    bias_weight_decay: Number | None = None
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup_epochs: Number = 0.0
    warmup_lr: Number = 0.0
    schedule: Literal["cosine", "multistep"] = "cosine"
    milestones: Ints = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    gate_l1: Number = 1e-5

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        return with_rule_defaults(value) if isinstance(value, dict) else value

    def lines(self) -> dict[str, Any]:
        """What a written recipe says of it: nothing that belongs to another rule."""
        others = set(ONLY_FOR) - {key for key, names in ONLY_FOR.items() if self.name in names}
        return {key: value for key, value in self.model_dump().items() if key not in others}


# keys of `optim` -> the rules that read them
ONLY_FOR = {
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "betas": ("adamw",),
    "alpha": ("rmsprop",),
    "eps": ("adamw", "rmsprop"),
}


def with_rule_defaults(optim: Mapping[str, Any]) -> dict[str, Any]:
    """The section `optim` of another rule than SGD: what that rule does not have is off unless
    somebody asks for it, and then it is told.
    """
    unasked: dict[str, Any] = {}
    # of another rule than SGD, whose defaults would be said of it
    if optim.get("name") in ("adamw", "rmsprop"):
        unasked["nesterov"] = False
    if optim.get("name") == "adamw":
        unasked["momentum"] = 0.0
    return {**unasked, **optim}


def _no_number(value: Any) -> Any:
    # 1 and True are equal, which is all that a Literal asks
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(value)
    return value


Compile = Annotated[Literal[True, False, "reduce-overhead"], BeforeValidator(_no_number)]


class TrainSection(Section):
    """The loop. `batch_size` is global: over all ranks and accumulation steps. `max_steps` ends a
    run early. `backend` is what dynamic layers compute with (dgc.set_backend). `tf32` lets a GPU
    round the inputs of float32 products to ten bits, in convolutions and matrices alike. `compile`:
    true is torch.compile, reduce-overhead a CUDA graph of the whole step.
    `mixup` and `cutmix` are the alpha of each one's Beta distribution, 0 is off; with both, each
    batch takes one of them. `ema_decay` keeps an average of the weights beside them. `teacher` is a
    file of weights (a checkpoint's, or an export) of a network that knows the answers; its word
    counts `teacher_weight`, softened by `teacher_temperature`.
    """

    epochs: Positive
    batch_size: Positive
    accumulate: Positive = 1
    max_steps: Positive | None = None
    mixup: Share = 0.0
    cutmix: Share = 0.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    teacher: str | None = None
    teacher_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    teacher_temperature: Annotated[float, Field(gt=0)] = 4.0
    teacher_weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    amp: Literal["off", "bf16", "fp16"] = "off"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    backend: Literal["auto", "native", "plain", "masked", "triton"] = "auto"
    tf32: bool = False
    compile: Compile = False
    sync_batchnorm: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    deterministic: bool = True
    threads: Positive | None = None
    log_every: Positive = 20
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _older_spelling(cls, value: Any) -> Any:
        return with_newer_names(value) if isinstance(value, dict) else value


def with_newer_names(train: Mapping[str, Any]) -> dict[str, Any]:
    """The section `train` in today's keys: `channels_last: true` was what memory_format is
    (false meant contiguous), and `method` what backend is. Raises where both names are given.
    """
    found = dict(train)
    if "channels_last" in found:
        given = found.pop("channels_last")
        if not isinstance(given, bool):
            raise PydanticCustomError(
                CLASH, "train.channels_last is no true or false: write train.memory_format"
            )
        meant = "channels_last" if given else "contiguous"
        _rename(found, "channels_last", "memory_format", meant)
    if "method" in found:
        _rename(found, "method", "backend", found.pop("method"))
    return found


# keys of `train` of before -> today's
OLDER_KEYS = {"channels_last": "memory_format", "method": "backend"}


def _rename(train: dict[str, Any], old: str, new: str, value: Any) -> None:
    if train.setdefault(new, value) != value:
        raise PydanticCustomError(
            CLASH,
            f"train.{old} is the older name of train.{new}, and both are given: remove it",
        )


class EvalSection(Section):
    batch_size: Positive
    every_epochs: Positive = 1


class CheckpointSection(Section):
    every_seconds: Annotated[float, Field(gt=0)] = 600
    every_steps: Positive | None = None
    keep_last: Positive = 2
    keep_best: bool = True


class Expectation(Section):
    """What the run should reach: an error in percent, met where it is at most value + tolerance."""

    metric: Literal["top1_error", "top5_error"]
    value: Annotated[float, Field(ge=0, le=100)]
    tolerance: Annotated[float, Field(ge=0, le=100)]
    source: str


class Sections(Section):
    """A whole recipe, field by field (dgc.recipe.load.Recipe adds the checks across fields)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    title: str
    source: Literal["paper", "ours"]
    tags: Texts = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSection
    data: DataSection
    optim: OptimSection
    train: TrainSection
    eval: EvalSection
    checkpoint: CheckpointSection = CheckpointSection()
    expect: Annotated[tuple[Expectation, ...], BeforeValidator(_as_tuple)] = ()
    origin: dict[str, str] = Field(default_factory=dict)


def default_of(key: str) -> Any:
    """The default of a dotted key, as a recipe's dump has it."""
    section, _, name = key.partition(".")
    holder = Sections.model_fields[section].annotation
    value = holder.model_fields[name].get_default(call_default_factory=True)  # type: ignore[union-attr]
    return value.model_dump() if isinstance(value, BaseModel) else value
