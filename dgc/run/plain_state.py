"""States of a script (what `state_dict()` holds) as JSON and tensors, and back: nothing in a file
is ever executed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dgc.errors import ArgumentError


def pack(state: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """The state as JSON can say it, and its tensors by number. Raises ArgumentError for what is no
    plain data.
    """
    if state is not None and not isinstance(state, Mapping):
        raise ArgumentError(
            f"state is a {type(state).__name__}: give a mapping, e.g."
            ' {"optimizer": optimizer.state_dict()}'
        )
    tensors: dict[str, Any] = {}
    try:
        return _packed(dict(state or {}), tensors, "state"), tensors
    except RecursionError as error:
        raise ArgumentError("state holds itself: give plain data") from error


def _packed(value: Any, tensors: dict[str, Any], where: str) -> Any:
    """A mapping is a list of pairs, since the keys of an optimizer's state are numbers."""
    value = scalar(value)
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, Mapping):
        if odd := next((key for key in value if not isinstance(key, str | int)), None):
            raise ArgumentError(f"{where}: {odd!r} is no text and no whole number, as keys are")
        inner = [[key, _packed(item, tensors, f"{where}.{key}")] for key, item in value.items()]
        # MultiStepLR counts its milestones, and asks for more than a dict can do
        return {"counter" if isinstance(value, Counter) else "mapping": inner}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(item, tensors, f"{where}[{n}]") for n, item in enumerate(value)]}
    if hasattr(value, "detach"):
        name = str(len(tensors))
        tensors[name] = copy(value, where)
        return {"tensor": name}
    hint = " (torch.from_numpy makes it a tensor)" if type(value).__module__ == "numpy" else ""
    raise ArgumentError(
        f"{where} is a {type(value).__name__}: give tensors, numbers, texts, lists, and mappings"
        f" of them (what a state_dict() holds){hint}"
    )


def scalar(value: Any) -> Any:
    """A number of NumPy as one of Python; anything else as it is."""
    # by its module: NumPy need not be imported for those who have none of it
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def copy(tensor: Any, where: str) -> Any:
    """On the CPU, and of nobody else. Raises ArgumentError for what no file holds."""
    if tensor.layout.__str__() != "torch.strided" or tensor.is_meta or tensor.is_quantized:
        raise ArgumentError(
            f"{where} is a tensor that is sparse, quantized or without values: give a dense one"
        )
    return tensor.detach().cpu().contiguous().clone()


def unpack(packed: Any, tensors: Mapping[str, Any]) -> Any:
    """What was packed. Raises ValueError, KeyError or TypeError where it is no such thing."""
    ((kind, inner),) = packed.items()
    match kind:
        case "mapping":
            return {key: unpack(item, tensors) for key, item in inner}
        case "counter":
            return Counter({key: unpack(item, tensors) for key, item in inner})
        case "list":
            return [unpack(item, tensors) for item in inner]
        case "tuple":
            return tuple(unpack(item, tensors) for item in inner)
        case "tensor":
            return tensors[inner]
        case "value":
            return inner
    raise ValueError(f"{kind!r} is no kind of value")
