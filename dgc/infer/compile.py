"""The front of the engine: a module in, a module out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError, UsageError
from dgc.infer.fuse import fuse
from dgc.infer.graph import Node, UnknownError
from dgc.infer.lower import Lowering
from dgc.infer.lower_int8 import Int8Lowering
from dgc.infer.plan_cache import PlanCache
from dgc.infer.program import NativePlan
from dgc.infer.read import blockers, read
from dgc.kernels.cpu import library
from dgc.layers import DynamicGroupConv2d

Precision = Literal["float32", "int8"]
LOWERINGS: dict[Precision, type[Lowering]] = {"float32": Lowering, "int8": Int8Lowering}


class NativeModule(nn.Module):
    """A module that runs as a native plan, one for each image size, of which those that were used
    last are kept (dgc.infer.plan_cache); anything else it is given runs as `original`, whose parts
    are compiled as soon as an image size is met for which the whole has no plan.

    Holds a snapshot of the weights: what `original` learns afterwards is not seen. `strict`: raises
    UsageError where the whole has no plan.
    """

    def __init__(
        self,
        original: nn.Module,
        precision: Precision = "float32",
        *,
        strict: bool = False,
        outermost: bool = False,
        plans: PlanCache | None = None,
    ) -> None:
        super().__init__()
        self.original, self.precision = original, precision
        self.strict, self.outermost = strict, outermost
        self._plans = PlanCache() if plans is None else plans  # one for the whole and its parts
        # its key there: the cache keeps the object, so that no later module can have the same
        self._key = object()
        self._problem: UnknownError | None = None  # that nobody has been warned of
        self._warned = False

    def __getattr__(self, name: str) -> Any:
        """What a network reads off one of its parts (`self.conv.weight`) is still there when the
        part is compiled.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("original"), name)

    # a network may take a part of its own apart: for layer in self.layers, self.layers[0]
    def __getitem__(self, key: Any) -> Any:
        return self.original[key]  # type: ignore[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.original)  # type: ignore[call-overload, no-any-return]

    def __len__(self) -> int:
        return len(self.original)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        """True, as of every module: one that is no list has no length to be asked for."""
        return True

    def forward(self, x_BCHW: Tensor, *more: Any, **named: Any) -> Tensor:
        if more or named:  # a plan takes the image alone
            other: Tensor = self.original(x_BCHW, *more, **named)
            return other
        plan = None if torch.compiler.is_compiling() else self.plan_for(x_BCHW)
        loaded = library.load()
        if plan is None or loaded is None:
            y: Tensor = self.original(x_BCHW)
            if self._problem is not None:  # only now: what it cannot take, the network says itself
                self._warn(self._problem)
            return y
        return plan.run(x_BCHW.detach().contiguous(), loaded, torch.get_num_threads())

    @property
    def made(self) -> list[NativePlan | None]:
        """The plans that are kept, the least recently used first."""
        return self._plans.of(self._key)

    def plan_for(self, x_BCHW: Tensor) -> NativePlan | None:
        """The plan for images like these; None if they run through the original module."""
        if (
            not isinstance(x_BCHW, Tensor)
            or x_BCHW.dim() != 4
            or x_BCHW.dtype != torch.float32
            or x_BCHW.device.type != "cpu"
            or len(x_BCHW) == 0
        ):
            return None
        shape = (int(x_BCHW.shape[1]), int(x_BCHW.shape[2]), int(x_BCHW.shape[3]))
        return self._plans.get(self._key, shape, lambda: self._planned(shape))

    def _planned(self, shape: tuple[int, int, int]) -> NativePlan | None:
        try:
            nodes = graph(self.original, self.precision, shape)
            return LOWERINGS[self.precision](nodes, shape).plan()
        except UnknownError as error:
            if self.strict:
                raise UsageError(f"no native plan of the whole network: {error}") from error
            if self.outermost:
                self._problem = error
            compile_parts(self.original, self.precision, self._plans)
            return None

    def _warn(self, problem: UnknownError) -> None:
        """Once: why the network runs in parts."""
        self._problem = None
        if self._warned:
            return
        self._warned = True
        text = str(problem)
        text = text if len(text) <= 300 else text[:300] + " ..."
        warnings.warn(
            f"no plan of the whole network, so it runs in parts: {text}"
            " (dgc.explain_inference says all of it)",
            stacklevel=5,
        )


def graph(model: nn.Module, precision: Precision, shape: tuple[int, int, int]) -> Node:
    """What the plan of `model`, in evaluation mode, is made of. Raises UnknownError, which
    names all
    that stands in the way.
    """
    nodes = read(without_plans(model), shape)
    found = blockers(nodes)
    if found:
        raise UnknownError("; ".join(map(str, found)))
    return fuse(nodes, relu_alone=precision != "float32")


def without_plans(model: nn.Module) -> nn.Module:
    """The network, whose parts may have become plans for images of another size."""
    if not any(isinstance(m, NativeModule) for m in model.modules()):
        return model
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            while isinstance(child, NativeModule):
                child = child.original
                setattr(module, name, child)
    return model


def compile_for_inference(
    model: nn.Module,
    *,
    precision: Precision = "float32",
    strict: bool = False,
    image_sizes: Sequence[int | Sequence[int]] = (),
) -> nn.Module:
    """`model` (in evaluation mode, float32, on the CPU) for fast inference: the same logits up to
    rounding.

    `precision="int8"`: convolutions in bytes and classifier in 16 bits, so the logits are near
    those in float32; they have the same bits on every machine, for any number of threads and
    any batch. `dgc.compare_precisions` says how near.

    A network made of operations that the kernels know becomes one program, when it meets its first
    image of a size. In any other, the largest parts that hold DynamicGroupConv2d layers do, and the
    rest runs as it was: then there is one warning, which names what stands in the way, and with
    `strict` a UsageError. The given model is left as it is; without the native library it is
    returned, with one warning that says why.

    `image_sizes`: sizes to compile for now, so that no image waits: a side, (height, width), or
    (channels, height, width); three channels where none are given. Sizes that are met later are
    compiled then, and those that were used last are kept, up to 256 sizes and 1 GiB. Several
    threads may call the result at once.
    """
    if isinstance(image_sizes, int):
        raise ArgumentError(f"image_sizes={image_sizes}: write a list of sizes: [{image_sizes}]")
    shapes = [image_shape(size) for size in image_sizes]
    if library.load() is None:
        why = f"no native kernels: {library.describe()['why_not']}"
        if strict:
            raise UsageError(why)
        warnings.warn(why, stacklevel=2)
        return model
    copied = copy.deepcopy(model).eval()
    compiled = NativeModule(copied, check_choice(precision), strict=strict, outermost=True)
    # run, not only compiled: where there is no plan of the whole, its parts meet their sizes so
    with torch.no_grad():
        for shape in shapes:
            compiled(torch.zeros(1, *shape))
    return compiled


def image_shape(size: int | Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) of a size as a user gives it. Raises ArgumentError."""
    given = (size, size) if isinstance(size, int) else tuple(size)
    shape = (3, *given) if len(given) == 2 else given
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ArgumentError(
            f"image size {size!r}: write a side, (height, width) or (channels, height, width)"
        )
    return shape[0], shape[1], shape[2]


def check_choice(precision: str) -> Precision:
    """Raises ArgumentError for a precision that there is not."""
    for known in LOWERINGS:
        if precision == known:
            return known
    why = " (why no bfloat16: docs/int8.md)" if precision in ("bfloat16", "bf16") else ""
    raise ArgumentError(f"precision {precision!r}: there are {' and '.join(LOWERINGS)}{why}")


def compile_parts(module: nn.Module, precision: Precision, plans: PlanCache) -> None:
    """Put compiled ones in the place of the children that hold dynamic layers, where that is not
    done yet. Their plans are kept in `plans`.
    """
    for name, child in module.named_children():
        if not isinstance(child, NativeModule) and any(
            isinstance(m, DynamicGroupConv2d) for m in child.modules()
        ):
            if isinstance(child, nn.ModuleList | nn.ModuleDict):  # nobody calls those
                compile_parts(child, precision, plans)
            else:
                setattr(module, name, NativeModule(child, precision, plans=plans))
