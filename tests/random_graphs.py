"""Random networks of all operations that the engine knows, each written down in a few lines that
can be read and rerun.

`tests/graph_check.py` holds the engine against them.

A graph is a list of steps; step i makes value i + 1 from earlier values, and value 0 is the image
batch. The last value is the result. Every step has a seed of its own for its weights, so that a
graph keeps its numbers when others are taken out, which is how a failing one is made small.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgc
from dgc.layers import DynamicGroupConv2d

UNKNOWN = ("softplus", "cumsum", "two_outputs")  # for these the network runs in parts


@dataclass(frozen=True)
class Step:
    """What is done to which values; `args` are the layer's arguments."""

    op: str
    reads: tuple[int, ...]
    args: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __str__(self) -> str:
        args = ", ".join(f"{k}={v}" for k, v in self.args.items() if k != "inner")
        inner = (
            "".join(f"\n      {line}" for line in str(self.args["inner"]).splitlines())
            if "inner" in self.args
            else ""
        )
        return (
            f"{self.op}({', '.join(f'v{i}' for i in self.reads)}{'; ' if args else ''}{args})"
            f" #{self.seed}{inner}"
        )


@dataclass(frozen=True)
class Graph:
    """A network, the images it is given and how far its pruning has come."""

    seed: int
    shape: tuple[int, int, int]
    batch: int
    progress: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        head = f"graph {self.seed}: {self.batch} images {self.shape}, progress {self.progress}"
        return "\n".join([head, *(f"  v{i} = {step}" for i, step in enumerate(self.steps, 1))])

    @property
    def known(self) -> bool:
        """Whether the engine has an operation for every step."""
        inner = (s.args["inner"] for s in self.steps if "inner" in s.args)
        return not any(s.op in UNKNOWN for s in self.steps) and all(g.known for g in inner)


# --- from a graph to a network --------------------------------------------------------------------


class Net(nn.Module):
    """The network of a graph. Layers are children named after the value they make."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.steps = graph.steps
        for i, step in enumerate(graph.steps, 1):
            torch.manual_seed(step.seed)
            if step.op in _LAYERS:
                self.add_module(f"v{i}", _LAYERS[step.op](**step.args))
            if step.op == "block":
                self.add_module(f"v{i}", Net(step.args["inner"]))

    def forward(self, x: Tensor) -> Any:
        values: list[Any] = [x]
        for i, step in enumerate(self.steps, 1):
            inputs = [values[r] for r in step.reads]
            layer = getattr(self, f"v{step.args['layer']}" if step.op == "again" else f"v{i}", None)
            values.append(_CALLS[step.op](*inputs) if layer is None else layer(*inputs))
        return values[-1]


def _dgc(
    cin: int,
    cout: int,
    k: int,
    stride: int,
    pad: int,
    dil: int,
    heads: int,
    keep: float,
    norm: bool,
    bias: bool = False,
) -> nn.Module:
    return DynamicGroupConv2d(
        cin, cout, k, stride, pad, dil, heads, gate_factor=keep, norm=norm, bias=bias
    )


class Squeeze(nn.Module):
    """Squeeze and excitation, as one of the ways in which networks write it."""

    def __init__(self, channels: int, hidden: int, gate: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.gate = getattr(F, gate)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.first(x.mean((2, 3), keepdim=True)))
        return x * self.gate(self.second(y))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels of the groups in turn."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


_LAYERS: dict[str, Any] = {
    "conv": lambda cin, cout, k, stride, pad, dil, groups, bias: nn.Conv2d(
        cin, cout, k, stride, pad, dil, groups, bias
    ),
    "dgc": _dgc,
    "norm": nn.BatchNorm2d,
    "relu_layer": lambda inplace: nn.ReLU(inplace),
    "max_pool": lambda k, stride, pad: nn.MaxPool2d(k, stride, pad),
    "avg_pool": lambda k, stride: nn.AvgPool2d(k, stride),
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
    "dropout": lambda: nn.Dropout(0.3),
    "linear": nn.Linear,
    "act": lambda name, inplace: getattr(nn, name)(inplace=inplace),
    "squeeze": lambda channels, hidden, gate: Squeeze(channels, hidden, gate),
    "pool": lambda kind, **args: getattr(nn, kind)(**args),
    "upsample": lambda size, mode: nn.Upsample(size, mode=mode),
}

_CALLS: dict[str, Any] = {
    "relu": torch.relu,
    "relu_": torch.relu_,
    "relu_f": lambda x: F.relu(x, inplace=True),
    "add": lambda a, b: a + b,
    "add_": lambda a, b: a.add_(b),
    "cat": lambda *parts: torch.cat(parts, 1),
    "flatten": lambda x: torch.flatten(x, 1),
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "half": lambda x: x * 0.5 + 0.25,
    "shuffle": lambda x: shuffled(x, 2),
    "first": lambda x: x.chunk(2, 1)[0],
    "second": lambda x: x[:, x.shape[1] // 2 :],
    "every_second": lambda x: x[:, :, ::2, ::2],
    "pad": lambda x: F.pad(x, (1, 0, 2, 1)),
    "softplus": F.softplus,
    "cumsum": lambda x: torch.cumsum(x, 1),
    "two_outputs": lambda a, b: (a, {"also": b}),
}


def network(graph: Graph) -> nn.Module:
    """In evaluation mode, with BatchNorm statistics and affine parameters that are not those of a
    fresh network.
    """
    net = Net(graph)
    torch.manual_seed(graph.seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
        # equal biases are equal gates wherever no hidden unit is active
        if isinstance(m, DynamicGroupConv2d):
            nn.init.uniform_(m.fc2_bias, 0.5, 1.5)
            if m.bias is not None:
                nn.init.uniform_(m.bias, -0.3, 0.3)
    dgc.set_progress(net, graph.progress)
    with torch.no_grad():
        for _ in range(2):
            net.train()(torch.randn(4, *graph.shape))
    return net.eval()


# --- drawing graphs -------------------------------------------------------------------------------

Shape = tuple[int, ...]  # (channels, height, width), or (numbers,) of a vector


class _Drawing:
    """A graph in the making."""

    def __init__(self, seed: int, shape: tuple[int, int, int], steps: int, depth: int = 0) -> None:
        self.random = random.Random(f"{seed} {depth}")
        self.seed, self.depth = seed, depth
        self.shapes: list[Shape] = [shape]
        self.steps: list[Step] = []
        self.given = {0}  # values that are the caller's own batch: not to be changed in place
        for _ in range(steps):
            self._image_step()

    def push(self, op: str, reads: tuple[int, ...], shape: Shape, **args: Any) -> int:
        self.steps.append(Step(op, reads, args, self.random.randrange(10**6)))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def images(self) -> list[int]:
        return [i for i, s in enumerate(self.shapes) if len(s) == 3]

    def _image_step(self) -> None:
        """Late values are read more often, but every one may have several readers."""
        images, read = self.images(), {r for s in self.steps for r in s.reads}
        unread = [i for i in images if i not in read] or images
        at = self.random.choice(unread if self.random.random() < 0.8 else images)
        kinds = (
            ["conv"] * 5
            + ["dgc"] * 7
            + ["join"] * 6
            + ["norm"] * 2
            + ["relu"] * 2
            + ["pool"] * 2
            + ["dropout"]
            + ["new"] * 6
        )
        kind = self.random.choice(kinds + ["block"] * (self.depth == 0))
        getattr(self, f"_{kind}")(at)

    def _window(self, size: Shape) -> tuple[int, int, int, int, tuple[int, int]]:
        """Kernel, stride, padding, dilation, and the image that comes out."""
        k = self.random.choice([1, 1, 3, 3, 3, 3, 5, 7])
        stride = self.random.choice([1, 1, 1, 2, 2, 3, 4])
        dil = self.random.choice([1, 1, 1, 1, 2]) if k > 1 else 1
        same = dil * (k - 1) // 2
        pad = same if self.random.random() < 0.8 else self.random.choice([0, 1, 2, same + 1])
        out = tuple((n + 2 * pad - dil * (k - 1) - 1) // stride + 1 for n in size)
        if min(out) < 1 or min(n + 2 * pad - dil * (k - 1) - 1 for n in size) < 0:
            return 1, 1, 0, 1, (size[0], size[1])
        return k, stride, pad, dil, (out[0], out[1])

    def _width(self) -> int:
        return self.random.choice([4, 8, 12, 16, 16, 24, 32, 32, 48, 64])

    def _conv(self, at: int) -> None:
        c, *size = self.shapes[at]
        alike = [
            i for i, s in enumerate(self.steps, 1) if s.op in ("conv", "dgc") and s.args["cin"] == c
        ]
        if alike and self.random.random() < 0.1:
            return self._again(at, self.random.choice(alike))
        k, stride, pad, dil, out = self._window(tuple(size))
        wide = self._width()
        groups = self.random.choice([g for g in (1, 1, 1, 2, 4, 8, c) if c % g == 0])
        wide = -(-wide // groups) * groups
        bias = self.random.random() < 0.5
        self.push(
            "conv", (at,), (wide, *out), cin=c, cout=wide, k=k, stride=stride, pad=pad, dil=dil, groups=groups,
            bias=bias,
        )  # fmt: skip
        return None

    def _again(self, at: int, layer: int) -> None:
        """A layer that has been used before, on another image."""
        a = self.steps[layer - 1].args
        reach = a["dil"] * (a["k"] - 1) + 1
        size = tuple(n + 2 * a["pad"] - reach for n in self.shapes[at][1:])
        if min(size) >= 0:
            self.push(
                "again", (at,), (a["cout"], *(n // a["stride"] + 1 for n in size)), layer=layer
            )

    def _dgc(self, at: int) -> None:
        c, *size = self.shapes[at]
        k, stride, pad, dil, out = self._window(tuple(size))
        heads = self.random.choice([g for g in (1, 2, 3, 4, 8) if c % g == 0 and c >= 8] or [0])
        if heads == 0:
            return self._conv(at)
        wide = heads * self.random.choice([1, 2, 4, 7, 8, 8, 16, 16, 32])
        keep = self.random.choice(
            [keep for keep in (1 / 16, 0.25, 0.25, 0.45, 0.75, 1.0) if c * keep >= 1]
        )
        norm = self.random.random() < 0.7
        self.push(
            "dgc", (at,), (wide, *out), cin=c, cout=wide, k=k, stride=stride, pad=pad, dil=dil, heads=heads, keep=keep,
            norm=norm, bias=k > 1 and not norm,
        )  # fmt: skip
        return None

    def _norm(self, at: int) -> None:
        self.push("norm", (at,), self.shapes[at], num_features=self.shapes[at][0])

    def _relu(self, at: int) -> None:
        op = self.random.choice(["relu", "relu", "relu_layer", "relu_layer", "relu_", "relu_f"])
        own = at not in self.given
        if op in ("relu_", "relu_f") and not own:
            op = "relu"
        args = {"inplace": own and self.random.random() < 0.5} if op == "relu_layer" else {}
        self.push(op, (at,), self.shapes[at], **args)

    def _dropout(self, at: int) -> None:
        made = self.push("dropout", (at,), self.shapes[at])
        if at in self.given:
            self.given.add(made)

    def _pool(self, at: int) -> None:
        c, h, w = self.shapes[at]
        k, stride = self.random.choice([(2, 2), (3, 2), (3, 1), (2, 1), (3, 3), (5, 4)])
        pad = self.random.choice([0, k // 2])
        kind = self.random.choice(["max_pool", "max_pool", "avg_pool"])
        pad = 0 if kind == "avg_pool" else pad
        out = tuple((n + 2 * pad - k) // stride + 1 for n in (h, w))
        if min(h, w) + 2 * pad < k:
            return
        args = {"k": k, "stride": stride} | ({"pad": pad} if kind == "max_pool" else {})
        self.push(kind, (at,), (c, *out), **args)

    def _new(self, at: int) -> None:
        """What networks have beside convolutions."""
        kinds = ("act", "squeeze", "windows", "channels", "pixels", "depthwise", "scaled")
        getattr(self, f"_{self.random.choice(kinds)}")(at)

    def _act(self, at: int) -> None:
        names = ["SiLU", "Hardswish", "ReLU6", "Hardsigmoid", "LeakyReLU", "ELU", "Mish"]
        own = at not in self.given and self.random.random() < 0.3
        self.push("act", (at,), self.shapes[at], name=self.random.choice(names), inplace=own)

    def _squeeze(self, at: int) -> None:
        gate = self.random.choice(["sigmoid", "hardsigmoid"])
        c = self.shapes[at][0]
        self.push("squeeze", (at,), self.shapes[at], channels=c, hidden=max(1, c // 4), gate=gate)

    def _windows(self, at: int) -> None:
        """Pooling with windows that reach over the image."""
        c, h, w = self.shapes[at]
        k, stride = self.random.choice([(2, 2), (3, 2), (3, 1)])
        pad = self.random.choice([0, k // 2])
        kind = self.random.choice(["MaxPool2d", "AvgPool2d"])
        args: dict[str, Any] = {
            "kernel_size": k,
            "stride": stride,
            "padding": pad,
            "ceil_mode": True,
        }
        if kind == "AvgPool2d":
            args["count_include_pad"] = self.random.random() < 0.5
        if min(h, w) + 2 * pad < k:
            return
        # now and then windows that are not alike: half as many steps, one more
        if self.random.random() < 0.3:
            kind = kind.replace("Max", "AdaptiveMax").replace("Avg", "AdaptiveAvg")
            args = {"output_size": (h // 2 + 1, w // 2 + 1)}
        out = getattr(nn, kind)(**args)(torch.zeros(1, 1, h, w)).shape[2:]
        self.push("pool", (at,), (c, *out), kind=kind, **args)

    def _channels(self, at: int) -> None:
        c, *size = self.shapes[at]
        if c % 2:
            return
        op = self.random.choice(["shuffle", "first", "second"])
        self.push(op, (at,), (c if op == "shuffle" else c // 2, *size))
        self.given.add(len(self.shapes) - 1)  # a view: nobody changes it in place
        self.given.add(at)

    def _pixels(self, at: int) -> None:
        c, h, w = self.shapes[at]
        op = self.random.choice(["every_second", "pad", "upsample"])
        if op == "upsample":
            mode = self.random.choice(["nearest", "bilinear"])
            size = (h + self.random.randint(0, 5), w + self.random.randint(0, 5))
            self.push(op, (at,), (c, *size), size=size, mode=mode)
        elif op == "pad":
            self.push(op, (at,), (c, h + 3, w + 1))
        else:
            self.push(op, (at,), (c, -(-h // 2), -(-w // 2)))
            self.given.update((at, len(self.shapes) - 1))

    def _depthwise(self, at: int) -> None:
        c, h, w = self.shapes[at]
        k, stride = self.random.choice([3, 5]), self.random.choice([1, 2])
        out = ((h - 1) // stride + 1, (w - 1) // stride + 1)
        self.push(
            "conv", (at,), (c, *out), cin=c, cout=c, k=k, stride=stride, pad=k // 2, dil=1, groups=c,
            bias=self.random.random() < 0.5,
        )  # fmt: skip

    def _scaled(self, at: int) -> None:
        mates = [i for i in self.images() if self.shapes[i] == self.shapes[at]]
        op = self.random.choice(["half", "mul", "sub"])
        reads = (at,) if op == "half" else (at, self.random.choice(mates))
        self.push(op, reads, self.shapes[at])

    def _join(self, at: int) -> None:
        """A sum or a concatenation; where there is no second image of that size, one is made beside
        the first.
        """
        size = self.shapes[at][1:]
        mates = [i for i in self.images() if self.shapes[i][1:] == size and i != at]
        if not mates or self.random.random() < 0.3:
            mates.append(self._beside(at))
        parts = [at, *self.random.sample(mates, min(len(mates), self.random.choice([1, 1, 2])))]
        self.random.shuffle(parts)
        if self.random.random() < 0.1:
            parts.append(parts[0])
        alike = [i for i in self.images() if self.shapes[i] == self.shapes[at] and i != at]
        if alike and self.random.random() < 0.6:
            a, b = self.random.choice(((at, alike[-1]), (alike[-1], at)))
            op = "add_" if a not in self.given and self.random.random() < 0.2 else "add"
            self.push(op, (a, b), self.shapes[at])
        elif sum(self.shapes[i][0] for i in parts) <= 160:
            self.push("cat", tuple(parts), (sum(self.shapes[i][0] for i in parts), *size))

    def _beside(self, at: int) -> int:
        """A layer that leaves the image's size alone."""
        c, *size = self.shapes[at]
        k = self.random.choice([1, 3, 3, 3, 5])
        shape = (self.random.choice([c, 16, 32]), *size)
        heads = self.random.choice([g for g in (1, 2, 4) if c % g == 0 and shape[0] % g == 0])
        if c < 8:
            return self.push(
                "conv", (at,), shape, cin=c, cout=shape[0], k=k, stride=1, pad=k // 2, dil=1, groups=1, bias=True
            )  # fmt: skip
        return self.push(
            "dgc", (at,), shape, cin=c, cout=shape[0], k=k, stride=1, pad=k // 2, dil=1, heads=heads, keep=0.25,
            norm=True,
        )  # fmt: skip

    def _block(self, at: int) -> None:
        """A network within the network; where the whole is not known, it becomes a part."""
        inner = _Drawing(
            self.random.randrange(10**6), self.shapes[at], self.random.randint(2, 5), 1
        )
        graph = Graph(inner.seed, self.shapes[at], 1, 0.0, tuple(inner.steps))
        if graph.steps and len(inner.shapes[-1]) == 3:
            self.push("block", (at,), inner.shapes[-1], inner=graph)

    def head(self) -> None:
        """What the network ends with: an image, or a vector behind a global pool."""
        at = self.images()[-1]
        if self.random.random() < 0.35:
            return
        c, h, w = self.shapes[at]
        if (h, w) != (1, 1) or self.random.random() < 0.5:
            at = self.push("mean", (at,), (c, 1, 1))
            if self.random.random() < 0.2:
                return
        at = self.push("flatten", (at,), (c,))
        if self.random.random() < 0.3:
            at = self.push("linear", (at,), (20,), in_features=c, out_features=20)
            at, c = self.push("relu", (at,), (20,)), 20
        if self.random.random() < 0.9:
            self.push("linear", (at,), (10,), in_features=c, out_features=10)

    def unknown(self) -> None:
        """Something that the engine has no operation for, so that it works in parts."""
        at = self.images()[-1]
        if self.random.random() < 0.5:
            self.push(self.random.choice(["softplus", "cumsum"]), (at,), self.shapes[at])
            self._block(len(self.shapes) - 1)
        if self.random.random() < 0.4:
            self.head()
            self.push("two_outputs", (len(self.shapes) - 1, self.random.choice(self.images())), ())
        elif not any(s.op in UNKNOWN for s in self.steps):
            self.push("softplus", (at,), self.shapes[at])


def draw(seed: int) -> Graph:
    """Graph number `seed`, always the same."""
    rng = random.Random(seed)
    size = rng.choice(
        [
            (5, 5),
            (7, 7),
            (8, 8),
            (9, 12),
            (13, 10),
            (14, 14),
            (15, 15),
            (16, 16),
            (21, 17),
            (27, 33),
            (32, 32),
        ]
    )
    shape = (rng.choice([3, 3, 8, 16, 32]), *size)
    drawing = _Drawing(seed, shape, rng.randint(2, 12))
    if rng.random() < 0.15:
        drawing.unknown()
    else:
        drawing.head()
    if not drawing.steps:
        drawing._conv(0)
    progress = rng.choice([0.0, 0.5, 0.9, 0.999, 0.999])
    return Graph(seed, shape, rng.randint(1, 5), progress, tuple(drawing.steps))
