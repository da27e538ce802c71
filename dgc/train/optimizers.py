"""The update rules of a recipe (torch's own, as functions), made so that they change nothing once
a step has diverged.

Not torch.optim.Optimizer: making one imports torch._dynamo (a second on every start). What is here
is what torch.amp.GradScaler expects of an optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from dgc.errors import DgcError
from dgc.layers import DynamicGroupConv2d
from dgc.recipe.schema import OptimSection

State = dict[str, dict[str, Tensor]]  # kind of state -> name of a parameter -> its tensor


class Group(NamedTuple):
    """Parameters that have one weight decay."""

    names: list[str]
    parameters: list[Tensor]
    weight_decay: float


class GuardedOptimizer(ABC):
    """An update rule that changes neither parameters nor state once `tripped` is 1.

    The fused kernels skip an update whose `found_inf` is 1 (GradScaler's way); a flag on the device
    that never falls back therefore keeps the parameters of the last good step without the host
    looking at it. `state` starts at zero.
    """

    # GradScaler then sets `found_inf` and `grad_scale` for a step, reading no device
    _step_supports_amp_scaling = True
    kinds: tuple[str, ...] = ()  # of state, each of the parameter's shape

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        tripped: Tensor,
        *,
        weight_decay: float = 0.0,
        decays: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        """`decays`: the weight decay of single parameters, by name;
        all others have `weight_decay`.
        """
        parameters = dict(named)
        # what GradScaler walks over to look for infinities; groups by decay are our own
        self.param_groups = [{"params": list(parameters.values())}]
        self.state: State = {
            kind: {name: torch.zeros_like(value) for name, value in parameters.items()}
            for kind in self.kinds
        }
        self.tripped = tripped
        self.options = options
        self.lr: float | Tensor = 0.0
        # one call of a kernel for each decay, not one for each parameter
        by_decay: dict[float, dict[str, Tensor]] = {}
        for name, value in parameters.items():
            decay = (decays or {}).get(name, weight_decay)
            by_decay.setdefault(decay, {})[name] = value
        self.groups = [
            Group(list(members), list(members.values()), decay)
            for decay, members in by_decay.items()
        ]

    def step(self) -> None:
        # fp16's own verdict on this step falls back to 0, ours never does: either skips the update
        scaled: Tensor | None = getattr(self, "found_inf", None)
        found = self.tripped if scaled is None else torch.maximum(self.tripped, scaled)
        for group in self.groups:
            # a parameter without a gradient would silently keep its value
            gradients = [parameter.grad for parameter in group.parameters]
            if any(gradient is None for gradient in gradients):
                raise DgcError(
                    "a parameter has no gradient: the network has layers that its output does not"
                    " depend on"
                )
            self.update(group, cast("list[Tensor]", gradients), found)

    def of(self, kind: str, group: Group) -> list[Tensor]:
        """The state of a group's parameters."""
        return [self.state[kind][name] for name in group.names]

    @property
    def scale(self) -> Tensor | None:
        """What the gradients were multiplied by, in fp16."""
        return getattr(self, "grad_scale", None)

    @abstractmethod
    def update(self, group: Group, gradients: list[Tensor], found: Tensor) -> None:
        """Change a group's parameters and state, unless `found` (on the device) is 1."""


class GuardedSGD(GuardedOptimizer):
    """SGD with momentum. It starts at zero, which gives the first step of the released code."""

    kinds = ("momentum",)

    def update(self, group: Group, gradients: list[Tensor], found: Tensor) -> None:
        sgd(
            group.parameters,
            gradients,
            cast("list[Tensor | None]", self.of("momentum", group)),
            fused=True,
            grad_scale=self.scale,
            found_inf=found,
            lr=self.lr,
            dampening=0.0,
            maximize=False,
            weight_decay=group.weight_decay,
            **self.options,
        )


class GuardedAdamW(GuardedOptimizer):
    """AdamW (Loshchilov and Hutter 2019): weight decay apart from the gradient."""

    kinds = ("exp_avg", "exp_avg_sq", "step")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state["step"] = _counts(self.state["step"])

    def update(self, group: Group, gradients: list[Tensor], found: Tensor) -> None:
        adamw(
            group.parameters,
            gradients,
            self.of("exp_avg", group),
            self.of("exp_avg_sq", group),
            [],
            self.of("step", group),
            fused=True,
            grad_scale=self.scale,
            found_inf=found.view(()),  # a scalar: it is taken off the counts
            amsgrad=False,
            lr=self.lr,
            weight_decay=group.weight_decay,
            maximize=False,
            **self.options,
        )


class GuardedRMSprop(GuardedOptimizer):
    """RMSprop with momentum, as PyTorch has it (the root outside of the mean, then eps)."""

    kinds = ("square_avg", "momentum", "step")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state["step"] = _counts(self.state["step"])

    def update(self, group: Group, gradients: list[Tensor], found: Tensor) -> None:
        if self.scale is not None:
            torch._foreach_div_(gradients, self.scale)
        moving = [*group.parameters, *(t for kind in self.kinds for t in self.of(kind, group))]
        # there is no fused kernel that skips an update, so it is made and taken back
        with torch.no_grad():
            before = [value.clone() for value in moving]
            rmsprop(
                group.parameters,
                gradients,
                self.of("square_avg", group),
                [],
                self.of("momentum", group),
                self.of("step", group),
                capturable=group.parameters[0].is_cuda,  # counts on the device stay there
                foreach=True,
                lr=self.lr,
                centered=False,
                maximize=False,
                weight_decay=group.weight_decay,
                **self.options,
            )
            skipped = found.view(()).bool()
            for value, old in zip(moving, before, strict=True):
                value.copy_(torch.where(skipped, old, value))


def _counts(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A counter of updates for each parameter, on its device: the kernels want one each."""
    return {
        name: torch.zeros((), dtype=torch.float32, device=value.device)
        for name, value in like.items()
    }


def make_optimizer(optim: OptimSection, module: nn.Module, tripped: Tensor) -> GuardedOptimizer:
    """The recipe's update rule for the parameters of `module`."""
    common: dict[str, Any] = {
        "weight_decay": optim.weight_decay,
        "decays": own_decays(optim, module),
    }
    named = module.named_parameters()
    if optim.name == "adamw":
        first, second = optim.betas
        return GuardedAdamW(named, tripped, beta1=first, beta2=second, eps=optim.eps, **common)
    if optim.name == "rmsprop":
        return GuardedRMSprop(
            named, tripped, alpha=optim.alpha, eps=optim.eps, momentum=optim.momentum, **common
        )
    nesterov = optim.nesterov and optim.momentum > 0
    return GuardedSGD(named, tripped, momentum=optim.momentum, nesterov=nesterov, **common)


def own_decays(optim: OptimSection, module: nn.Module) -> dict[str, float]:
    """The weight decay of the parameters that the recipe treats apart: of gates, norms, biases."""
    wanted = {
        "gate": optim.gate_weight_decay,
        "norm": optim.norm_weight_decay,
        "bias": optim.bias_weight_decay,
    }
    found = {}
    for path, owner in module.named_modules():
        for name, _ in owner.named_parameters(recurse=False):
            decay = wanted.get(kind_of(owner, name))
            if decay is not None:
                found[f"{path}.{name}" if path else name] = decay
    return found


_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_GATES = ("fc1", "fc2", "fc2_bias")


def kind_of(owner: nn.Module, name: str) -> str:
    """What a parameter is: a gate's, a norm's (its bias too), a bias, or a weight."""
    if isinstance(owner, DynamicGroupConv2d) and name in _GATES:
        return "gate"
    if isinstance(owner, _NORMS):
        return "norm"
    return "bias" if name.endswith("bias") else "weight"  # in_proj_bias, q_bias, ...
