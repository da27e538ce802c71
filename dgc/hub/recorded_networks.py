"""The network that a recipe names: fresh, with the weights it starts from, or as it was recorded.

A recorded network is built from its structure (structure.json of a checkpoint): which builder with
which arguments, and the numbers of each converted layer. The rule that chooses layers is never run
again for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn

from dgc.conversion import ConversionReport, convert, rebuild, structure
from dgc.errors import ArgumentError, IntegrityError, UsageError
from dgc.hub import foreign, initial
from dgc.hub.initial import Start
from dgc.models import create_model
from dgc.recipe.load import Recipe


@dataclass(frozen=True)
class Fresh:
    """A new network; `start`: the weights that it began with, `report`:
    what became of its convolutions.
    """

    model: nn.Module
    start: Start | None = None
    report: ConversionReport | None = None


def fresh(recipe: Recipe, *, weights: bool = True) -> Fresh:
    """The recipe's network, initialised from torch's generator, with the weights of `model.init`
    where it names some (`weights`), and converted where it says so.

    Order matters: dense weights go into the dense network, and then it is converted. Weights of a
    converted network bring their layers with them.
    """
    network = recipe.model
    # counted or rebuilt networks need no weights, and must not need their file
    start = initial.read(recipe) if weights and network.init else None
    if not foreign.is_foreign(network.name):
        model = create_model(network.name, **network.kwargs())
        if start is not None:
            initial.load(model, start, network.reset)
        return Fresh(model, start)
    model = foreign.build(network.name, network.num_classes, network.args)
    check_answers(model, recipe)
    if start is not None and start.layers:
        check_same_numbers(start, recipe)
        # `keys` of the structure is of the whole network that
        # was saved; a new head of other shape is allowed here
        try:
            rebuild(model, {**start.structure, "keys": None})
        except IntegrityError as error:
            raise IntegrityError(f"{start.named}: {error}") from error
        initial.load(model, start, network.reset)
        return Fresh(model, start)
    if start is not None:
        initial.load(model, start, network.reset)
    if network.form != "dgc":
        return Fresh(model, start)
    return Fresh(model, start, _converted(model, recipe))


def _converted(model: nn.Module, recipe: Recipe) -> ConversionReport:
    network, chosen = recipe.model, recipe.model.convert
    try:
        return convert(
            model,
            example(recipe),
            heads=network.heads,
            gate_factor=network.gate_factor,
            squeeze_rate=chosen.squeeze_rate,
            include=chosen.include,
            exclude=chosen.exclude,
            layers=chosen.layers,
        )
    except ArgumentError as error:
        raise UsageError(f"model.convert: {error}") from error


def example(recipe: Recipe, count: int = 1) -> torch.Tensor:
    """Images of the recipe's size; always the same, and torch's generator is left alone."""
    # a generator of its own: the seed's numbers are for weights, and stay what they were
    generator = torch.Generator().manual_seed(0)
    size = recipe.data.image_size
    return torch.randn(count, 3, size, size, generator=generator)


def check_answers(model: nn.Module, recipe: Recipe) -> None:
    """Raise UsageError where a network does not answer (images, classes), in training too."""
    name, classes = recipe.model.name, recipe.model.num_classes
    for training in (False, True):
        # a copy: statistics of BatchNorm move in training,
        # and the real network has seen nothing yet
        twin = copy.deepcopy(model).train(training)
        try:
            # dropout would draw from the generator that the training goes on with
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                answer = twin(example(recipe, 2))
        except Exception as error:
            what = foreign.fault(name, error)
            raise UsageError(
                f"model.name = {name}: does not take images of data.image_size ="
                f" {recipe.data.image_size}: {what}"
            ) from error
        shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        if shape != (2, classes):
            mode = "in training" if training else "for two images"
            hint = "; model.args: {aux_logits: false} may help" if training else ""
            raise UsageError(
                f"model.name = {name}: answers {shape} {mode}, and should answer (2, {classes}):"
                f" one tensor of model.num_classes for each image{hint}"
            )


def check_same_numbers(start: Start, recipe: Recipe) -> None:
    """Weights of a converted network keep its layers: what the recipe says of them must be that."""
    network, where = recipe.model, f"model.init = {start.path}"
    if network.form != "dgc":
        raise UsageError(
            f"{where}: are weights of a converted network, and model.form = {network.form}: start"
            " from the dense one, or take form: dgc"
        )
    # the default section says nothing; any other says something that would be passed over
    if network.convert != type(network.convert)():
        raise UsageError(
            f"{where}: are weights of a converted network, which brings its layers with it: leave"
            " model.convert out"
        )
    for key in ("gate_factor", "heads"):
        usual = start.usual(key)
        if getattr(network, key) != usual:
            raise UsageError(
                f"{where}: was converted with {key} {usual}, and model.{key} ="
                f" {getattr(network, key)}: set it to that, or start from the dense network"
            )


def how_made(made: Fresh | None) -> dict[str, Any]:
    """For model.json: the weights that it started from, and what became of its convolutions."""
    if made is None:
        return {}
    found: dict[str, Any] = {}
    if made.start is not None:
        found["init"] = {"file": str(made.start.path.absolute()), "sha256": made.start.sha256}
    if made.report is not None:
        found["conversion"] = made.report.as_dict()
    return found


def told(made: Mapping[str, Any]) -> list[str]:
    """The same in a sentence each, for the log."""
    said = []
    if start := made.get("init"):
        said.append(f"starts from {start['file']} (SHA-256 {start['sha256'][:12]})")
    if teacher := made.get("teacher"):
        said.append(
            f"taught by {teacher['network']}, {teacher['file']} (SHA-256 {teacher['sha256'][:12]})"
        )
    if report := made.get("conversion"):
        total = report["converted"] + report["left_alone"]
        said.append(
            f"{report['converted']} of {total} convolutions converted, with"
            f" {report['share']:.0%} of their MACs; why the others were not stands in model.json"
        )
    return said


# --- recorded -------------------------------------------------------------------------------------


def document(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """structure.json: the builder with its arguments, the libraries, the converted layers, and a
    digest of all keys and shapes.
    """
    network = recipe.model
    arguments = (
        {"num_classes": network.num_classes, **network.args}
        if foreign.is_foreign(network.name)
        else network.kwargs()
    )
    libraries = {"torch": metadata.version("torch"), **foreign.library(network.name)}
    return {
        **structure(model),
        "builder": {"name": network.name, "arguments": arguments},
        "libraries": libraries,
    }


def recorded(recipe: Recipe, found: Mapping[str, Any] | None) -> nn.Module:
    """The network of a checkpoint from its structure alone, without weights; of a checkpoint that
    has none (older ones), what its recipe builds.

    Raises IntegrityError where its library makes another network now.
    """
    if found is None:
        # which layers were converted cannot be told from names and shapes with certainty
        if foreign.is_foreign(recipe.model.name) and recipe.model.form == "dgc":
            raise IntegrityError(
                f"{recipe.model.name}: weights alone do not say which layers were converted:"
                " structure.json is missing"
            )
        return fresh(recipe, weights=False).model
    name, arguments = found["builder"]["name"], dict(found["builder"]["arguments"])
    if not foreign.is_foreign(name):
        return create_model(name, **arguments)
    model = foreign.build(name, arguments.pop("num_classes"), arguments)
    try:
        return rebuild(model, found)
    except IntegrityError as error:
        # another version of the library is the likeliest cause, so it is named
        raise IntegrityError(f"{name}: {error}{_versions(found)}") from error


def of_weights(recipe: Recipe, start: Start) -> nn.Module:
    """The recipe's network with weights that do not say which network they are of; converted as
    the structure beside them says, where there is one.

    Raises IntegrityError where they do not fit it.
    """
    if start.layers:
        model = foreign.build(recipe.model.name, recipe.model.num_classes, recipe.model.args)
        try:
            rebuild(model, start.structure)
        except IntegrityError as error:
            raise IntegrityError(f"{start.named}: {error}") from error
    else:
        model = recorded(recipe, None)
    initial.load(model, start, ())
    return model


def _versions(found: Mapping[str, Any]) -> str:
    """Which libraries are others than those that it was recorded with."""
    said = []
    for package, version in dict(found.get("libraries") or {}).items():
        try:
            now = metadata.version(str(package))
        except metadata.PackageNotFoundError:
            now = "not installed"
        if now != version:
            said.append(f"{package} was {version}, is {now}")
    return f" ({'; '.join(said)})" if said else ""
