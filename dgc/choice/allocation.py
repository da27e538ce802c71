"""`dgc.allocate`: a budget of MACs or of measured milliseconds, shared among a network's layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgc.choice import knapsack, milliseconds
from dgc.choice.knapsack import Option
from dgc.choice.one_layer import by_layer, check_shares, inactive
from dgc.errors import ArgumentError
from dgc.layers import DynamicGroupConv2d, iter_dgc, macs

SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
Unit = Literal["macs", "ms"]
BATCH = 64
TRIES = 4  # of bringing the measured time of the whole network under the budget
UNITS: tuple[Unit, ...] = ("macs", "ms")
Calls = Mapping[str, Sequence[tuple[Tensor, tuple[int, ...]]]]


@dataclass(frozen=True)
class LayerShare:
    """One layer: the share that it got, and what each share that was tried costs and does. `damage`
    is how far the network's answers move, or, with labels, how much its loss grows.
    """

    name: str
    share: float
    tried: tuple[float, ...]
    costs: tuple[float, ...]
    damages: tuple[float, ...]


@dataclass(frozen=True)
class Allocation:
    """`cost` of the whole network with these shares, in `unit` ("ms": measured); `one_for_all`: the
    largest of the tried shares that fits the budget in every layer, None where none does.
    `damage` and `damage_one_for_all` are sums over the layers, each measured alone.
    """

    unit: Unit
    budget: float
    cost: float
    damage: float
    one_for_all: float | None
    damage_one_for_all: float | None
    layers: tuple[LayerShare, ...]

    @property
    def gate_factors(self) -> dict[str, float]:
        """Layer -> share: for dgc.set_gate_factors, and for `model.gate_factors` of a recipe."""
        return {layer.name: layer.share for layer in self.layers}

    @property
    def convert_layers(self) -> dict[str, dict[str, float]]:
        """The same for dgc.convert(layers=...), and for `model.convert.layers` of a recipe."""
        return {name: {"gate_factor": share} for name, share in self.gate_factors.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        rows = [f"{layer.name:<{width}}  {layer.share:6.1%}" for layer in self.layers]
        said = f"{self.cost:,.4g} of {self.budget:,.4g} {self.unit}, damage {self.damage:.4g}"
        if self.one_for_all is not None:
            said += f" ({self.damage_one_for_all:.4g} with {self.one_for_all:.1%} in every layer)"
        return "\n".join([said, *rows])


def allocate(
    model: nn.Module,
    images: Tensor,
    budget: float,
    *,
    unit: Unit = "macs",
    labels: Tensor | None = None,
    shares: Sequence[float] = SHARES,
) -> Allocation:
    """Choose for each dynamic layer how many of its channels it keeps, so that the network costs at
    most `budget` for one image: MACs, or milliseconds as measured here (`unit="ms"`: a plan, one
    image at a time, with PyTorch's number of threads).

    `images` (N, C, H, W) are as the network takes them; some hundreds of those it is trained on do.
    One layer at a time is given each of `shares`, and the change of the network's answers (the
    Kullback-Leibler divergence), or with `labels` (N) of its loss, is its damage. The sum of the
    damages is then made small. The model stays as it is: `dgc.set_gate_factors` gives it the shares
    that were found, and training gets it used to them.

    Raises ArgumentError where the budget is less than the smallest share in every layer costs.
    """
    _check(model, images, budget, unit, labels)
    tried = check_shares(shares)
    # a copy: shares are tried on it, and the caller's network is as it was also after an error
    given = copy.deepcopy(model).eval()
    damages = _damages(given, images, labels, tried)
    calls = _calls(given, images[:1])
    # a layer that these images do not reach would be given the smallest share, unseen
    unused = [name for name in damages if not calls.get(name)]
    if unused:
        raise ArgumentError(f"{unused[0]} is not called on these images: what it keeps is open")
    costs = (_macs if unit == "macs" else _milliseconds)(given, calls, tried)
    whole = _Whole(given, images[:1], unit, costs, tried)
    items = [
        [Option(*pair) for pair in zip(costs[name], damages[name], strict=True)] for name in damages
    ]
    taken, cost = _fit(items, budget, whole)
    return _result(unit, budget, cost, taken, tried, items, whole)


def _check(
    model: nn.Module, images: Tensor, budget: float, unit: str, labels: Tensor | None
) -> None:
    if unit not in UNITS:
        raise ArgumentError(f"unit={unit!r}: one of {', '.join(UNITS)}")
    if unit == "ms":
        milliseconds.require_kernels(images)
    if images.dim() != 4 or len(images) == 0:
        raise ArgumentError(f"images have shape {tuple(images.shape)}, and must be (N, C, H, W)")
    if labels is not None and labels.shape != images.shape[:1]:
        raise ArgumentError(f"{len(images)} images and labels of shape {tuple(labels.shape)}")
    if not budget > 0:
        raise ArgumentError(f"budget={budget!r} must be more than 0")
    if not any(True for _ in iter_dgc(model)):
        raise ArgumentError(
            f"{type(model).__name__} has no dynamic layers: convert it first (dgc.convert)"
        )


# --- what it does to the network ------------------------------------------------------------------


@torch.inference_mode()
def _damages(
    model: nn.Module, images: Tensor, labels: Tensor | None, shares: Sequence[float]
) -> dict[str, list[float]]:
    """Layer -> its damage at each share."""
    starts = range(0, len(images), BATCH)

    def answers() -> Iterator[tuple[int, Tensor]]:
        return ((at, F.log_softmax(model(images[at : at + BATCH]), 1)) for at in starts)

    wanted = dict(answers())

    def measure() -> float:
        total = 0.0
        for at, found in answers():
            if labels is None:
                total += F.kl_div(found, wanted[at], reduction="sum", log_target=True).item()
            else:
                total += F.nll_loss(found, labels[at : at + BATCH], reduction="sum").item()
        return total / len(images)

    # with labels the damage is what is added to the loss that the network has now
    first = 0.0 if labels is None else measure()
    found: dict[str, list[float]] = {}
    for name, _, value in by_layer(model, shares, measure):
        found.setdefault(name, []).append(value - first)
    return found


# --- what it costs --------------------------------------------------------------------------------


@torch.inference_mode()
def _calls(model: nn.Module, image: Tensor) -> Calls:
    """What each dynamic layer is given for one image, and the shape of what it answers."""
    found: dict[str, list[tuple[Tensor, tuple[int, ...]]]] = {}

    def noting(name: str) -> Any:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # a clone: what is given may be overwritten in place by what comes next
            found.setdefault(name, []).append((inputs[0].clone(), tuple(output.shape[1:])))

        return note

    handles = [layer.register_forward_hook(noting(name)) for name, layer in iter_dgc(model)]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _macs(model: nn.Module, calls: Calls, shares: Sequence[float]) -> dict[str, list[float]]:
    return {
        name: [_layer_macs(layer, calls[name], share) for share in shares]
        for name, layer in iter_dgc(model)
    }


def _layer_macs(
    layer: DynamicGroupConv2d, calls: Sequence[tuple[Tensor, tuple[int, ...]]], share: float
) -> float:
    # counted by the layer itself, at the end of its schedule with this share
    before, layer.gate_factor = layer.gate_factor, share
    try:
        return sum(layer.cost(tuple(x.shape[1:]), y).promised for x, y in calls)
    finally:
        layer.gate_factor = before


def _milliseconds(
    model: nn.Module, calls: Calls, shares: Sequence[float]
) -> dict[str, list[float]]:
    return {
        name: milliseconds.layer(layer, [x for x, _ in calls[name]], shares)
        for name, layer in iter_dgc(model)
    }


class _Whole:
    """The cost of the whole network with a share for each layer."""

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        unit: Unit,
        costs: Mapping[str, Sequence[float]],
        shares: Sequence[float],
    ) -> None:
        self.model, self.image, self.unit, self.shares = model, image, unit, shares
        self.costs = list(costs.values())
        # any share would do: what is left of the whole without the layers is the same
        middle = [len(shares) // 2] * len(costs)
        # what is no dynamic layer costs the same whatever they keep
        self.rest = self._alone(middle) - self._sum(middle)

    def of(self, taken: Sequence[int]) -> float:
        """MACs counted, milliseconds measured."""
        return self.rest + self._sum(taken) if self.unit == "macs" else self._alone(taken)

    def _sum(self, taken: Sequence[int]) -> float:
        return sum(costs[option] for costs, option in zip(self.costs, taken, strict=True))

    def _alone(self, taken: Sequence[int]) -> float:
        with _shared(self.model, [self.shares[option] for option in taken]):
            if self.unit == "ms":
                return milliseconds.network(self.model, self.image)
            channels, height, width = self.image.shape[1:]
            return macs.count(self.model, (height, width), channels).promised


@contextmanager
def _shared(model: nn.Module, shares: Sequence[float]) -> Iterator[None]:
    """Within the block each layer keeps its share."""
    layers = [layer for _, layer in iter_dgc(model)]
    # all three: a schedule may stand anywhere, and is put back where it stood
    before = [(layer.gate_factor, layer.n_inactive, layer.n_traced) for layer in layers]
    try:
        for layer, share in zip(layers, shares, strict=True):
            layer.gate_factor = share
            layer.set_inactive(inactive(layer, share))
        yield
    finally:
        for layer, (factor, n, traced) in zip(layers, before, strict=True):
            layer.gate_factor = factor
            layer.set_inactive(n, traced)


def _fit(
    items: Sequence[Sequence[Option]], budget: float, whole: _Whole
) -> tuple[list[int], float]:
    """The options taken, and what the network costs with them. Layers cost a little else together
    than alone: where the whole is over the budget, it is shared again with less.
    """
    inner = budget - whole.rest
    for _ in range(TRIES):
        taken = knapsack.choose(items, inner)
        if taken is None:
            break
        cost = whole.of(taken)
        if cost <= budget:
            return taken, cost
        # by as much as it was over: layers together cost a little else than the sum of each alone
        inner -= cost - budget
    # measured once more: the smallest shares may fit though no other choice did
    least = whole.of([0] * len(items))
    if least <= budget:
        return [0] * len(items), least
    raise ArgumentError(
        f"budget={budget:,.4g} {whole.unit}: with {whole.shares[0]:.1%} kept in every layer the"
        f" network takes {least:,.4g} already"
    )


def _result(
    unit: Unit,
    budget: float,
    cost: float,
    taken: Sequence[int],
    tried: Sequence[float],
    items: Sequence[Sequence[Option]],
    whole: _Whole,
) -> Allocation:
    names = [name for name, _ in iter_dgc(whole.model)]
    layers = tuple(
        LayerShare(
            name,
            tried[option],
            tuple(tried),
            tuple(each.cost for each in options),
            tuple(each.damage for each in options),
        )
        for name, option, options in zip(names, taken, items, strict=True)
    )
    # measured or counted whole, as the chosen shares were: both figures are of one kind
    fitting = [at for at in range(len(tried)) if whole.of([at] * len(items)) <= budget]
    one = max(fitting, default=None)
    return Allocation(
        unit,
        budget,
        cost,
        sum(options[option].damage for options, option in zip(items, taken, strict=True)),
        None if one is None else tried[one],
        None if one is None else sum(options[one].damage for options in items),
        layers,
    )
