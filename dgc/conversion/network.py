"""`dgc.convert`: a network's convolutions become dynamic layers, in place;
it computes what it did.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dgc.conversion import rules, start
from dgc.conversion.report import ConversionReport, LayerReport
from dgc.conversion.rules import Place
from dgc.conversion.trial import Uses, compare, doubled, off, run, watch
from dgc.errors import ArgumentError, DgcError
from dgc.layers import DynamicGroupConv2d, iter_dgc

LEAST_GAIN = 0.05  # of a layer's MACs: less is not worth its gates


@dataclass(frozen=True)
class Numbers:
    """What a layer is converted with."""

    heads: int
    gate_factor: float
    squeeze_rate: int

    def checked(self, where: str = "") -> Numbers:
        """Itself, where they make a layer at all."""
        # a layer wide enough for any number of heads: only the numbers are in question
        wide = 1024 * max(1, self.heads) if isinstance(self.heads, int) else 1024
        try:
            with torch.device("meta"):
                DynamicGroupConv2d(
                    wide, wide, heads=self.heads, gate_factor=self.gate_factor,
                    squeeze_rate=self.squeeze_rate,
                )  # fmt: skip
        except ArgumentError as error:
            raise ArgumentError(f"{where}{error}") from None
        return self

    def changed(self, given: Mapping[str, Any]) -> Numbers:
        return Numbers(**{**vars(self), **given})


def convert(
    model: nn.Module,
    example: Any,
    *,
    heads: int = 4,
    gate_factor: float = 0.5,
    squeeze_rate: int = 16,
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    layers: Mapping[str, Mapping[str, Any]] | None = None,
) -> ConversionReport:
    """Put a DynamicGroupConv2d in the place of each convolution that gains by it, in place.

    The network computes the same as before (to rounding) until channels are switched off: train it
    with `dgc.set_progress`, or by a recipe. Load the weights of the original before: those of a
    converted network have other names (`heads_weight`) and another order.

    `example` is a batch as the network takes it, or a tuple (or dict) of its arguments. `include`
    and `exclude` are names of layers or of modules, in which `*` may stand; `layers` gives numbers
    of their own to those that a name means: `{"layer1.*": {"gate_factor": 0.75}}`. What each layer
    became, and why others were left alone, is in the report, which can be printed.

    Raises ArgumentError for numbers that do not fit, a name that means no convolution, and where
    nothing would be converted; the network is then as it was.
    """
    # everything is looked at before anything is replaced
    found = _places(model)
    numbers = Numbers(heads, gate_factor, squeeze_rate).checked()
    wanted = {
        "include": rules.patterns("include", include),
        "exclude": rules.patterns("exclude", exclude),
    }
    own = rules.per_layer(layers or {})
    rules.check_patterns(found, {**wanted, "layers": own})
    for pattern, given in own.items():
        numbers.changed(given).checked(f"layers: {pattern!r}: ")
    # one run of the original: which layers are called, with what, and what the network answers
    first, uses = watch(model, example, found)
    shared = rules.shared_weights(model)
    chosen = [
        _decide(place, uses[place.name], _numbers(place, numbers, own), wanted, shared)
        for place in found
    ]
    made = [(p, row) for p, row in zip(found, chosen, strict=True) if row.converted]
    if not made:
        raise ArgumentError(f"nothing to convert: {_reasons(chosen)}")
    replaced = [(place, _layer(place.conv, row)) for place, row in made]
    # all at once: the example is run once more, on what came of it
    swap(model, dict(replaced))
    try:
        difference, note = compare(
            model, example, first, replaced, lambda: _in_double(model, example, replaced)
        )
    # also where the comparison is interrupted: a network is converted whole, or as it was
    except BaseException:
        swap(model, {place: place.conv for place, _ in replaced})
        raise
    return ConversionReport(tuple(chosen), difference, note)


def _places(model: nn.Module) -> list[Place]:
    if any(True for _ in iter_dgc(model)):
        raise ArgumentError(
            f"{type(model).__name__} holds dynamic layers already: convert the original once, and"
            " use dgc.rebuild for a copy of the converted one"
        )
    found = rules.places(model)
    if not found:
        raise ArgumentError(f"{type(model).__name__} has no Conv2d: nothing to convert")
    if found[0].name == "":
        raise ArgumentError("the network is a single Conv2d: put it into an nn.Sequential first")
    return found


def _numbers(place: Place, default: Numbers, own: Mapping[str, Mapping[str, Any]]) -> Numbers:
    """Those of the layer: the last name that means it wins."""
    # in the order in which they were given, so that a general name may be followed by a special one
    for pattern, given in own.items():
        if _meant(place, (pattern,)):
            default = default.changed(given)
    return default


def _decide(
    place: Place,
    uses: Uses,
    numbers: Numbers,
    wanted: Mapping[str, Sequence[str]],
    shared: set[int],
) -> LayerReport:
    conv = place.conv
    dense = sum(_dense(conv, y) for _, y in uses)

    def left(why: str) -> LayerReport:
        return LayerReport(place.name, False, why, conv.in_channels, conv.out_channels,
                           _pair(conv.kernel_size), dense, dense, conv.weight.numel())  # fmt: skip

    if not _meant(place, wanted["include"]):
        return left("not in include")
    if _meant(place, wanted["exclude"]):
        return left("excluded")
    if not uses:
        return left("not called on the example")
    # before the costs: what no dynamic layer can be has none
    if why := rules.why_not(conv, numbers.heads, shared):
        return left(why)
    # a mean over one pixel is the pixel: gates would choose by the value that they gate
    if all(x[1:] == (1, 1) for x, _ in uses):
        return left("its input is a single pixel")
    rate = start.narrowed(conv, numbers.heads, numbers.squeeze_rate)
    with torch.device("meta"):
        layer = start.blank(conv, numbers.heads, numbers.gate_factor, rate)
    promised = sum(layer.cost(x, y).promised for x, y in uses)
    # by the authors' count at the end of the schedule: what the layer will cost when it is trained
    if promised > dense * (1 - LEAST_GAIN):
        return left("its gates would cost what it saves")
    gates = sum(p.numel() for p in (layer.fc1, layer.fc2, layer.fc2_bias))
    return LayerReport(
        place.name, True, _unusual(place, uses, conv, rate, numbers), conv.in_channels,
        conv.out_channels, _pair(conv.kernel_size), dense, promised, conv.weight.numel(), gates,
        numbers.heads, numbers.gate_factor, rate,
    )  # fmt: skip


def _unusual(place: Place, uses: Uses, conv: nn.Conv2d, rate: int, numbers: Numbers) -> str:
    said = []
    if rate != numbers.squeeze_rate:
        said.append(f"squeeze_rate {rate} to keep its gates small")
    if len(uses) > 1:
        said.append(f"called {len(uses)} times")
    if len(place.names) > 1:
        said.append(f"also {', '.join(place.names[1:])}")
    return "; ".join(said)


def _meant(place: Place, patterns: Sequence[str]) -> bool:
    return any(rules.matches(name, pattern) for name in place.names for pattern in patterns)


def _dense(conv: nn.Conv2d, y_OHW: tuple[int, ...]) -> float:
    pixels = y_OHW[1] * y_OHW[2]
    return pixels * (conv.weight.numel() + (0 if conv.bias is None else conv.out_channels))


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _reasons(rows: Sequence[LayerReport]) -> str:
    counts = Counter(row.why for row in rows).most_common(3)
    said = "; ".join(f"{count} x {why}" for why, count in counts)
    return f"of {len(rows)} convolutions {said}"


def _layer(conv: nn.Conv2d, row: LayerReport) -> DynamicGroupConv2d:
    assert row.heads is not None
    assert row.gate_factor is not None
    assert row.squeeze_rate is not None
    layer = start.blank(conv, row.heads, row.gate_factor, row.squeeze_rate)
    start.at_home(layer, conv)
    start.take_over(layer, conv)
    return layer


def _in_double(
    model: nn.Module, example: Any, replaced: Sequence[tuple[Place, DynamicGroupConv2d]]
) -> float:
    """How far a conversion in double precision is off; infinite where the network cannot run so."""
    twin, given = copy.deepcopy(model), doubled(example)
    convs = {place: copy.deepcopy(place.conv).double() for place, _ in replaced}
    swap(twin, convs)
    try:
        first = run(twin.double(), given)
        for place, old in replaced:
            conv = convs[place]
            numbers = (old.heads, old.gate_factor, old.squeeze_rate)
            layer = start.at_home(start.blank(conv, *numbers), conv)
            start.take_over(layer, conv)
            swap(twin, {place: layer})
        return off(run(twin, given), first)
    except (RuntimeError, TypeError):  # something in it is float32 whatever it is given
        return float("inf")


def swap(model: nn.Module, layers: Mapping[Place, nn.Module]) -> None:
    """Put each module under all names of its place."""
    for place, layer in layers.items():
        for name in place.names:
            # under each of its names: a module that is used twice is one object at two places
            parent, _, last = name.rpartition(".")
            holder = model.get_submodule(parent)
            if last not in holder._modules:
                raise DgcError(f"{name}: {type(holder).__name__} does not hold it as a module")
            holder._modules[last] = layer
