"""From a network to ONNX: standard operators alone, for engines that know nothing of dynamic
layers.

There every head convolves all channels, most of them multiplied by zero, so the time is that of a
wider dense network. Who wants the speed takes a plan file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgc.errors import UsageError
from dgc.infer.conv_params import Conv
from dgc.infer.graph import Node, ordered
from dgc.infer.plan_facts import checked_classes, checked_preprocessing, place_of
from dgc.infer.plan_file import graph_of, image_of
from dgc.infer.shapes import shapes
from dgc.kernels.cpu.structs import Act
from dgc.runtime import writer
from dgc.runtime.plan import Preprocessing

OPSET = 17  # ONNX 1.12, of 2022


class _Writer:
    """Nodes of ONNX as they come, by the names of their results."""

    def __init__(self, output: Node, in_shape: tuple[int, int, int]) -> None:
        import onnx

        self.onnx, self.nodes, self.constants = onnx, [], []  # type: ignore[var-annotated]
        self.order = ordered(output)
        self.channels, self.sizes = shapes(self.order)
        self.names: dict[Node, str] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        name = f"{kind.lower()}_{self.count}"
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [name], name, **attributes)
        )
        return name

    def constant(self, value: Tensor | NDArray[Any] | Sequence[int]) -> str:
        """Whole numbers are shapes and axes."""
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.count += 1
        name = f"constant_{self.count}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def affine(self, x: str, scale: Tensor | None, shift: Tensor | None, relu: bool) -> str:
        if scale is not None and shift is not None:
            x = self.op("Mul", x, self.constant(scale.float().reshape(1, -1, 1, 1)))
            x = self.op("Add", x, self.constant(shift.float().reshape(1, -1, 1, 1)))
        return self.op("Relu", x) if relu else x

    def convolution(self, x: str, conv: Conv, weight: Tensor) -> str:
        (top, left), d = conv.padding, conv.dilation
        return self.op(
            "Conv", x, self.constant(weight.float()), group=conv.groups, strides=[conv.stride] * 2,
            pads=[top, left, top, left], dilations=list(d), kernel_shape=list(weight.shape[2:]),
        )  # fmt: skip

    def dynamic(self, x: str, conv: Conv, size: tuple[int, int], out: tuple[int, int]) -> str:
        """Each head's gates times the image, then one grouped convolution, then the shuffle."""
        heads, outs, channels = conv.groups, int(conv.weight.shape[0]), int(conv.weight.shape[1])
        x = self.affine(x, conv.scale, conv.shift, conv.scale is not None)
        # Dynamic selection has no operator of its own; a zero gate gives the same numbers.
        gates = self.op("Unsqueeze", self.gates(x, conv), self.constant([3, 4]))
        planes = self.op("Mul", self.op("Unsqueeze", x, self.constant([1])), gates)
        planes = self.op("Reshape", planes, self.constant([0, heads * channels, *size]))
        y = self.convolution(planes, conv, conv.weight)
        y = self.op("Reshape", y, self.constant([0, heads, outs // heads, *out]))
        y = self.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", y, self.constant([0, outs, *out]))

    def gates(self, x: str, conv: Conv) -> str:
        """(B, heads, C): zero where a channel is not selected."""
        assert conv.fc1 is not None
        assert conv.fc2 is not None
        assert conv.fc2_bias is not None
        heads, hidden, channels = conv.fc1.shape
        means = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        first = self.constant(conv.fc1.reshape(heads * hidden, channels).t().float())
        h = self.op("Relu", self.op("MatMul", means, first))
        h = self.op("Reshape", h, self.constant([0, heads, 1, hidden]))
        second = self.constant(conv.fc2.transpose(1, 2)[None].float())
        g = self.op("Reshape", self.op("MatMul", h, second), self.constant([0, heads, channels]))
        g = self.op("Relu", self.op("Add", g, self.constant(conv.fc2_bias[None].float())))
        if conv.n_inactive == 0:
            return g
        # The n-th smallest, and only what is larger than it: ties are off, as in the layer.
        smallest, _ = self.two("TopK", g, self.constant([conv.n_inactive]), axis=-1, largest=0)
        last = self.constant([-1])
        # The last of the n smallest: TopK gives them in order.
        limit = self.op("Slice", smallest, last, self.constant([2**31 - 1]), last)
        chosen = self.op("Cast", self.op("Greater", g, limit), to=self.onnx.TensorProto.FLOAT)
        return self.op("Mul", g, chosen)

    def two(self, kind: str, *inputs: str, **attributes: Any) -> tuple[str, str]:
        self.count += 1
        names = [f"{kind.lower()}_{self.count}_{i}" for i in (0, 1)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0], names[1]

    def node(self, n: Node) -> str:
        kinds: dict[str, Callable[[Node], str]] = {
            "input": lambda n: "images",
            "conv": self._conv,
            "affine": self._affine,
            "add": lambda n: self._act(n, self.op("Add", *(self.names[i] for i in n.inputs))),
            "sub": lambda n: self._act(n, self.op("Sub", *(self.names[i] for i in n.inputs))),
            "mul": lambda n: self._act(n, self.op("Mul", *(self.names[i] for i in n.inputs))),
            "slice": self._taken,
            "gather": self._taken,
            "cat": lambda n: self.op("Concat", *(self.names[i] for i in n.inputs), axis=1),
            "pool": self._pool,
            "adaptive": self._adaptive,
            "mean": lambda n: self.op("GlobalAveragePool", self.names[n.inputs[0]]),
            "flatten": lambda n: self._vector(self.op("Flatten", self.names[n.inputs[0]], axis=1)),
            "linear": self._linear,
        }
        if n.kind not in kinds:
            raise UsageError(f"no ONNX can be made of this network: it has a part {n.kind!r}")
        return kinds[n.kind](n)

    def _vector(self, y: str) -> str:
        """(B, numbers) as images of one pixel: what every vector is here."""
        return self.op("Unsqueeze", y, self.constant([2, 3]))

    def _taken(self, n: Node) -> str:
        return self.op("Gather", self.names[n.inputs[0]], self.constant(list(n.index)), axis=1)

    def _affine(self, n: Node) -> str:
        return self._act(n, self.affine(self.names[n.inputs[0]], n.scale, n.shift, False))

    def _act(self, n: Node, y: str) -> str:
        plain = {
            Act.RELU: "Relu",
            Act.SIGMOID: "Sigmoid",
            Act.TANH: "Tanh",
            Act.HARDSWISH: "HardSwish",
        }
        if not n.act:
            return y
        if n.act in plain:
            return self.op(plain[n.act], y)
        if n.act == Act.RELU6:
            six = torch.tensor(6.0)
            return self.op("Clip", y, self.constant(torch.tensor(0.0)), self.constant(six))
        if n.act == Act.HARDSIGMOID:
            return self.op("HardSigmoid", y, alpha=1 / 6, beta=0.5)
        if n.act == Act.LEAKY:
            return self.op("LeakyRelu", y, alpha=n.slope)
        # Not an operator of its own in opset 17.
        if n.act == Act.SILU:
            return self.op("Mul", y, self.op("Sigmoid", y))
        raise UsageError(f"no ONNX can be made of this network: it has a part {n.act.name.lower()}")

    def _conv(self, n: Node) -> str:
        assert n.conv is not None
        x = self.names[n.inputs[0]]
        y = (
            self.dynamic(x, n.conv, self.sizes[n.inputs[0]], self.sizes[n])
            if n.conv.dynamic
            else self.convolution(x, n.conv, n.conv.weight)
        )
        if n.conv.bias is not None:
            y = self.op("Add", y, self.constant(n.conv.bias.float().reshape(1, -1, 1, 1)))
        if len(n.inputs) > 1:
            y = self.op("Add", y, self.names[n.inputs[1]])
        return self._act(n, y)

    def _pool(self, n: Node) -> str:
        assert n.pool is not None
        p, (top, left) = n.pool, n.pool.padding
        (h, w), size = n.shape[1:], self.sizes[n.inputs[0]]
        # rows and columns behind the image that the last window reaches
        behind = [
            max(0, (out - 1) * stride + kernel - before - length)
            for out, stride, kernel, before, length in zip(
                (h, w), p.stride, p.kernel, p.padding, size, strict=True
            )
        ]
        pads = [top, left, *behind]
        shape = {"kernel_shape": list(p.kernel), "strides": list(p.stride), "pads": pads}
        x = self.names[n.inputs[0]]
        if p.counts is None:
            return self.op("MaxPool", x, **shape)
        # Averages over whole windows, then each is scaled to what PyTorch divides by: ONNX has
        # other rules for windows that reach beyond the padding.
        sums = self.op("AveragePool", x, count_include_pad=1, **shape)
        whole = p.kernel[0] * p.kernel[1]
        share = (p.counts[0][:, None] * p.counts[1][None] * whole).reshape(1, 1, h, w)
        return sums if (share == 1).all() else self.op("Mul", sums, self.constant(share))

    def _adaptive(self, n: Node) -> str:
        """Means alone: a product on either side. ONNX has no such windows."""
        assert n.adaptive is not None
        if n.adaptive.kind != "average":
            raise UsageError(
                "no ONNX can be made of this network: it has adaptive max pooling in windows"
                " that are not alike"
            )
        height, width = self.sizes[n.inputs[0]]
        rows = self.constant(_shares(n.adaptive.rows, height))
        columns = self.constant(_shares(n.adaptive.columns, width).t())
        return self.op("MatMul", self.op("MatMul", rows, self.names[n.inputs[0]]), columns)

    def _linear(self, n: Node) -> str:
        assert n.weight is not None
        bias = [] if n.bias is None else [self.constant(n.bias.float())]
        weight = self.constant(n.weight.float())
        x = self.op("Flatten", self.names[n.inputs[0]], axis=1)
        return self._act(n, self._vector(self.op("Gemm", x, weight, *bias, transB=1)))

    def model(self, shape: tuple[int, int, int], answer: tuple[int, ...]) -> Any:
        for n in self.order:
            self.names[n] = self.node(n)
        h, f = self.onnx.helper, self.onnx.TensorProto.FLOAT
        form = self.constant([0, *answer])
        last = h.make_node("Reshape", [self.names[self.order[-1]], form], ["logits"])
        graph = h.make_graph(
            [*self.nodes, last], "dgcctl",
            [h.make_tensor_value_info("images", f, ["batch", *shape])],
            [h.make_tensor_value_info("logits", f, ["batch", *answer])],
            self.constants,
        )  # fmt: skip
        opset = [h.make_opsetid("", OPSET)]
        # of 2022, as the operators: later numbers are refused by engines of then
        return h.make_model(graph, opset_imports=opset, ir_version=8, producer_name="dgcctl")


def _shares(windows: Tensor, size: int) -> Tensor:
    """(windows, size): the share of each place in each window's mean."""
    begin, end = windows[0, :, None], windows[1, :, None]
    place = torch.arange(size)
    inside = ((place >= begin) & (place < end)).float()
    return inside / inside.sum(1, keepdim=True)


def metadata(
    names: Sequence[str], how: Preprocessing | None, origin: Mapping[str, Any] | None
) -> dict[str, str]:
    """What `metadata_props` of a model say, each value as JSON."""
    told: dict[str, Any] = {"classes": list(names)} if names else {}
    told |= {} if how is None else {**asdict(how), "crop": "center"}
    told |= {"origin": origin} if origin else {}
    return {key: writer.as_json(key, value) for key, value in told.items()}


def save_onnx(
    model: nn.Module,
    example: Tensor,
    file: str | os.PathLike[str],
    classes: Sequence[str] = (),
    preprocessing: Any = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` as ONNX (opset 17) for images of the size of `example`, any number at once.
    `classes`, `preprocessing` and `origin` as of `dgc.save_plan`: they stand in its metadata_props.
    """
    shape, path = image_of(example), place_of(file)
    how = checked_preprocessing(preprocessing, [shape])
    try:
        import onnx
    except ImportError as error:
        raise UsageError("ONNX needs the package onnx: pip install onnx") from error
    with torch.no_grad():
        answer = tuple(model.eval()(example[:1]).shape[1:])
    told = metadata(checked_classes(classes, answer), how, origin)
    made = _Writer(graph_of(model, shape), shape).model(shape, answer)
    onnx.helper.set_model_props(made, told)
    onnx.checker.check_model(made)
    writer.write(made.SerializeToString(), path)
    return path
