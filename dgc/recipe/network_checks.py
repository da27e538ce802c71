"""What must fit together in the section `model` of a recipe: see dgc.recipe.checks, which asks. No
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dgc.recipe.schema import LOADING, OURS, ConvertSection

Check = Callable[..., str | None]

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
        f"model.stages has {len(stages)} entries {listed(stages)} and model.growth has"
        f" {len(growth)}"
        f" {listed(growth)}: they must have the same length, one entry a stage"
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


def _gate_factors(name: str, form: str, factors: Mapping[str, Any]) -> str | None:
    if not factors:
        return None
    if name not in OURS:
        return (
            f"model.gate_factors belongs to {' and '.join(OURS)}, and model.name is {name}: write"
            " model.convert.layers: {LAYER: {gate_factor: ...}}"
        )
    if form != "sgc":
        return None
    return "model.gate_factors is there for form dgc: static groups are the same in every layer"


def _stem(name: str, stem: str | None) -> str | None:
    if name not in OURS or stem is not None:
        return None
    return f"model.stem must be given for a {name}: cifar (small images) or imagenet"


def _only_ours(name: str, *values: object) -> str | None:
    """The opposite of _only_foreign; `squeeze_rate` has a default,
    so only another value is seen.
    """
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


CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (_stages_and_growth, ("model.name", "model.stages", "model.growth")),
    (_only_dydensenet, ("model.name", *(f"model.{key}" for key in _ONLY_DYDENSENET))),
    (_gate_factors, ("model.name", "model.form", "model.gate_factors")),
    (_stem, ("model.name", "model.stem")),
    (_only_ours, ("model.name", "model.stem", "model.squeeze_rate")),
    (_only_foreign, ("model.name", "model.args", "model.convert")),
    (_foreign_form, ("model.name", "model.form")),
    (_foreign_args, ("model.name", "model.args")),
    (_reset_without_init, ("model.init", "model.reset")),
    (_digest_without_init, ("model.init", "model.init_sha256")),
    (_address, ("model.init",)),
    (_heads_divide_channels, ("model.name", "model.heads", "model.growth")),
    (_groups_divide_growth, ("model.name", "model.group_3x3", "model.growth")),
)


def listed(values: Sequence[int]) -> str:
    """As it stands in a recipe."""
    return f"[{', '.join(map(str, values))}]"
