"""A network as a small graph of the operations that the kernels know, read off the module by
torch.fx.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dgc.infer.conv_params import Conv
from dgc.layers import DynamicGroupConv2d


class UnknownError(Exception):
    """The network does something the plan has no operation for;
    it then runs as the module it was.
    """


@dataclass(eq=False)
class Node:
    """kind: input, conv, affine, add, cat, pool, mean, flatten, linear. `relu` comes last in every
    one of them.

    conv: inputs [x] or [x, residual]; affine: y = x * scale + shift, both may be None.
    """

    kind: str
    inputs: list[Node] = field(default_factory=list)
    conv: Conv | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    relu: bool = False
    pool: tuple[str, int, int, int] = ("max", 1, 1, 0)  # kind, kernel, stride, padding
    weight: Tensor | None = None  # linear
    bias: Tensor | None = None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DynamicGroupConv2d) or super().is_leaf_module(m, module_qualified_name)

    def create_arg(self, a: Any) -> Any:
        """A module handed to a module (`before` of DynamicGroupConv2d) becomes a node that names
        it.
        """
        if isinstance(a, nn.Module):
            return self.create_node("get_attr", self.path_of_module(a), (), {})
        return super().create_arg(a)


def read(model: nn.Module) -> Node:
    """The output node of a model with one image batch in and one tensor out.

    Raises UnknownError, quoting what it met, where the model does something else.
    """
    if isinstance(model, DynamicGroupConv2d):
        return _module(model, [Node("input")])
    try:
        graph = _Tracer().trace(model)
    except Exception as e:
        raise UnknownError(f"{type(model).__name__} cannot be traced: {e}") from e
    nodes: dict[fx.Node, Node] = {}
    for n in graph.nodes:
        if n.op == "output":
            return _known(nodes, n.args[0])
        nodes[n] = _translate(n, nodes, model)
        if _changes_its_input(n, model):
            _changed(nodes[n.args[0]], nodes[n], nodes)
    raise UnknownError("no output")


def _changes_its_input(n: fx.Node, model: nn.Module) -> bool:
    if n.op == "call_module":
        return bool(getattr(model.get_submodule(str(n.target)), "inplace", False))
    return n.target in _IN_PLACE or bool(n.kwargs.get("inplace"))


def _changed(old: Node, new: Node, nodes: dict[fx.Node, Node]) -> None:
    """Whoever reads `old` behind an operation that changes it in place reads `new`, under whatever
    name.
    """
    if old is new:  # Dropout at evaluation
        return
    if old.kind in ("input", "flatten") or any(
        old in n.inputs for n in nodes.values() if n.kind == "flatten"
    ):
        raise UnknownError(f"{old.kind} changed in place")
    for name, node in nodes.items():
        if node is old:
            nodes[name] = new


def _known(nodes: dict[fx.Node, Node], value: object) -> Node:
    if not isinstance(value, fx.Node) or value not in nodes:
        raise UnknownError(f"{value!r} is no tensor of the network")
    return nodes[value]


def _translate(n: fx.Node, nodes: dict[fx.Node, Node], model: nn.Module) -> Node:
    if n.op == "placeholder":
        if nodes or n.args:
            raise UnknownError(f"more than one input: {n.name}")
        return Node("input")
    if n.op == "call_module":
        inputs = [_known(nodes, a) for a in n.args]
        input_norm = n.kwargs.get("input_norm")
        if isinstance(input_norm, fx.Node):
            norm = _module(model.get_submodule(str(input_norm.target)), inputs)
            inputs = [Node("affine", [norm], relu=True)]
        if set(n.kwargs) - {"input_norm"}:
            raise UnknownError(f"{n.name} with {n.kwargs}")
        return _module(model.get_submodule(str(n.target)), inputs)
    if n.op == "get_attr":
        return Node("module")
    if n.op in ("call_function", "call_method"):
        reader = (
            _FUNCTIONS.get(n.target) if n.op == "call_function" else _METHODS.get(str(n.target))
        )
        if reader is not None:
            return reader(n, nodes)
    raise UnknownError(f"{n.op} {n.target}")


def _module(m: nn.Module, inputs: list[Node]) -> Node:
    if m.training and not isinstance(
        m, nn.ReLU | nn.Flatten | nn.Identity | nn.Conv2d | nn.Linear | nn.AvgPool2d
    ):
        raise UnknownError(f"{type(m).__name__} is in training mode; call model.eval() first")
    reader = _MODULES.get(type(m))
    if reader is None or len(inputs) != 1:
        raise UnknownError(type(m).__name__)
    if m._forward_hooks or m._forward_pre_hooks:
        raise UnknownError(f"{type(m).__name__} with hooks, which may change what goes in or out")
    return reader(m, inputs[0])


def _float(t: Tensor) -> Tensor:
    if t.dtype != torch.float32 or t.device.type != "cpu":
        raise UnknownError(f"{t.dtype} on {t.device}; the kernels know float32 on the CPU")
    return t.detach().clone()


def batch_norm(m: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Evaluation BatchNorm as (scale, shift), computed in float64."""
    if m.running_mean is None or m.running_var is None:
        raise UnknownError("BatchNorm without running statistics")
    _float(m.running_mean)
    scale = (m.running_var.double() + m.eps).rsqrt()
    if m.weight is not None:
        scale = scale * m.weight.detach().double()
    shift = -m.running_mean.double() * scale
    if m.bias is not None:
        shift = shift + m.bias.detach().double()
    return scale.float(), shift.float()


def _dynamic(m: DynamicGroupConv2d, x: Node) -> Node:
    scale, shift = (None, None) if m.norm is None else _norm_inside(m.norm)
    bias = None if m.bias is None else _float(m.bias)
    conv = Conv(
        _float(m.weight), bias, m.stride, (m.padding,) * 2, (m.dilation,) * 2, m.heads,
        _float(m.fc1), _float(m.fc2), _float(m.fc2_bias), m.n_inactive, scale, shift,
    )  # fmt: skip
    return Node("conv", [x], conv)


def _norm_inside(norm: nn.Module) -> tuple[Tensor, Tensor]:
    if type(norm) is not nn.BatchNorm2d or norm.training:
        raise UnknownError(f"{type(norm).__name__} inside a DynamicGroupConv2d, or training mode")
    return batch_norm(norm)


def _conv(m: nn.Conv2d, x: Node) -> Node:
    if m.padding_mode != "zeros" or isinstance(m.padding, str) or m.stride[0] != m.stride[1]:
        raise UnknownError(
            f"convolution with padding {m.padding_mode} {m.padding}, stride {m.stride}"
        )
    bias = None if m.bias is None else _float(m.bias)
    padding, dilation = (m.padding[0], m.padding[1]), (m.dilation[0], m.dilation[1])
    return Node("conv", [x], Conv(_float(m.weight), bias, m.stride[0], padding, dilation, m.groups))


def _norm(m: nn.BatchNorm2d, x: Node) -> Node:
    scale, shift = batch_norm(m)
    return Node("affine", [x], scale=scale, shift=shift)


def _same(value: Any) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise UnknownError(f"pooling that is not square: {value}")
    return int(value[0])


def _max_pool(m: nn.MaxPool2d, x: Node) -> Node:
    if _same(m.dilation) != 1 or m.ceil_mode or m.return_indices:
        raise UnknownError("max pooling with dilation, ceil_mode or indices")
    return Node("pool", [x], pool=("max", _same(m.kernel_size), _same(m.stride), _same(m.padding)))


def _avg_pool(m: nn.AvgPool2d, x: Node) -> Node:
    if _same(m.padding) or m.ceil_mode or m.divisor_override:
        raise UnknownError("average pooling with padding, ceil_mode or divisor")
    return Node("pool", [x], pool=("average", _same(m.kernel_size), _same(m.stride), 0))


def _global_pool(m: nn.AdaptiveAvgPool2d, x: Node) -> Node:
    size = m.output_size if isinstance(m.output_size, tuple) else (m.output_size,)
    if set(size) != {1}:
        raise UnknownError(f"adaptive pooling to {m.output_size}")
    return Node("mean", [x])


def _linear(m: nn.Linear, x: Node) -> Node:
    return Node(
        "linear", [x], weight=_float(m.weight), bias=None if m.bias is None else _float(m.bias)
    )


def _flatten_module(m: nn.Flatten, x: Node) -> Node:
    if (m.start_dim, m.end_dim) != (1, -1):
        raise UnknownError(f"flatten {m.start_dim} to {m.end_dim}")
    return Node("flatten", [x])


_MODULES: dict[type, Callable[[Any, Node], Node]] = {
    DynamicGroupConv2d: _dynamic,
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda m, x: Node("affine", [x], relu=True),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.Linear: _linear,
    nn.Flatten: _flatten_module,
    nn.Identity: lambda m, x: x,
    nn.Dropout: lambda m, x: x,
    nn.Dropout2d: lambda m, x: x,
}


def _relu(n: fx.Node, nodes: dict[fx.Node, Node]) -> Node:
    _plain(n, "inplace")
    return Node("affine", [_known(nodes, n.args[0])], relu=True)


def _plain(n: fx.Node, *names: str) -> None:
    """The tensor comes first and by position, and of other arguments by name there are at most
    these.
    """
    if not n.args or set(n.kwargs) - set(names):
        raise UnknownError(f"{n.name} with {n.kwargs}")


def _add(n: fx.Node, nodes: dict[fx.Node, Node]) -> Node:
    if n.kwargs or len(n.args) != 2:
        raise UnknownError(f"{n.name} with {n.kwargs}")
    return Node("add", [_known(nodes, a) for a in n.args])


def _cat(n: fx.Node, nodes: dict[fx.Node, Node]) -> Node:
    _plain(n, "dim")
    dim = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim", 0)
    parts = n.args[0]
    if dim != 1 or not isinstance(parts, list | tuple):
        raise UnknownError(f"concatenation along {dim}")
    return Node("cat", [_known(nodes, a) for a in parts])


def _flatten(n: fx.Node, nodes: dict[fx.Node, Node]) -> Node:
    _plain(n, "start_dim")
    start = n.args[1] if len(n.args) > 1 else n.kwargs.get("start_dim", 0)
    if start != 1 or len(n.args) > 2:
        raise UnknownError(f"flatten from {start}")
    return Node("flatten", [_known(nodes, n.args[0])])


_Reader = Callable[[fx.Node, dict[fx.Node, Node]], Node]
_FUNCTIONS: dict[Any, _Reader] = {
    torch.relu: _relu, F.relu: _relu, torch.relu_: _relu, operator.add: _add, operator.iadd: _add,
    torch.add: _add,
    torch.cat: _cat, torch.concat: _cat, torch.flatten: _flatten,
}  # fmt: skip
_IN_PLACE = {torch.relu_, operator.iadd, "relu_", "add_"}
_METHODS: dict[str, _Reader] = {
    "relu": _relu,
    "relu_": _relu,
    "add": _add,
    "add_": _add,
    "flatten": _flatten,
}


def ordered(output: Node) -> list[Node]:
    """Every node after its inputs."""
    done: dict[Node, None] = {}

    def visit(n: Node) -> None:
        for i in n.inputs:
            if i not in done:
                visit(i)
        done[n] = None

    visit(output)
    return list(done)


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for n in nodes:
        for i in n.inputs:
            found.setdefault(i, []).append(n)
    return found


__all__ = ["Conv", "Node", "UnknownError", "ordered", "read", "users"]
