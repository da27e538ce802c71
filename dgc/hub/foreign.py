"""Networks that are not ours: torchvision's, timm's, and those of a user's own package. Random
weights, and nothing is downloaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from torch import nn

from dgc.errors import UsageError
from dgc.recipe.schema import LOADING
from dgc.run import trusted_code

TORCHVISION, TIMM = "torchvision/", "timm/"


def is_foreign(name: str) -> bool:
    """Whether a network's name means another library or the user's own code."""
    return name.startswith((TORCHVISION, TIMM)) or trusted_code.is_own(name)


def check_name(name: str) -> None:
    """Raises UsageError where there is no such network,
    UnsafeFileError where its code is not trusted; nothing is built.
    """
    if is_foreign(name):
        _builder(name)


def build(name: str, num_classes: int, args: Mapping[str, Any] | None = None) -> nn.Module:
    """The network as its library makes it, with random weights and in training mode.

    Raises UsageError for an unknown name or arguments that it does not take.
    """
    make, given = _builder(name), dict(args or {})
    # refused by the argument's name: a library asks the network without another word
    if not trusted_code.is_own(name) and (loads := next((k for k in LOADING if k in given), None)):
        raise UsageError(f"model.name = {name}: {loads} would fetch or open weights: refused")
    try:
        model = make(num_classes=num_classes, **given)
    # whatever a library raises here is about what the recipe says
    except Exception as error:
        raise UsageError(
            f"model.name = {name}: cannot be built with num_classes={num_classes}"
            f"{''.join(f', {key}={value!r}' for key, value in given.items())}: {fault(name, error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model.name = {name}: gave a {type(model).__name__}, and should give an nn.Module"
        )
    return model.train()


def library(name: str) -> dict[str, str]:
    """The library of a network and its version; {} where it is ours or the user's own code."""
    # ours and the user's own names have no slash
    package, slash, _ = name.partition("/")
    return {package: metadata.version(package)} if slash else {}


def _builder(name: str) -> Callable[..., Any]:
    if name.startswith(TORCHVISION):
        return _torchvision(name)
    if name.startswith(TIMM):
        return _timm(name)
    return trusted_code.load("model.name", name)


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import models

    wanted, known = name.removeprefix(TORCHVISION), models.list_models(module=models)
    if wanted not in known:
        raise UsageError(f"model.name = {name}: torchvision has {_near(wanted, known)}")
    # weights=None whatever the library's default is: nothing is downloaded
    return lambda **given: models.get_model(wanted, weights=None, **given)


def _timm(name: str) -> Callable[..., Any]:
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f"model.name = {name}: timm is not installed: `pip install 'dgcctl[timm]'`"
        ) from error
    wanted = name.removeprefix(TIMM)
    if not timm.is_model(wanted):
        raise UsageError(f"model.name = {name}: timm has {_near(wanted, timm.list_models())}")
    return lambda **given: timm.create_model(wanted, pretrained=False, **given)


def _near(wanted: str, known: list[str]) -> str:
    # three near ones: a library knows a thousand
    near = difflib.get_close_matches(wanted, known, 3, 0.5)
    return f"no {wanted}; near it are {', '.join(near)}" if near else f"no {wanted}"


def fault(name: str, error: BaseException) -> str:
    """What went wrong in a network, in one line; in the user's own code with its place."""
    if trusted_code.is_own(name):
        return trusted_code.fault(name, error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
