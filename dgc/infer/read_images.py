"""Operations on the pixels of each channel: pooling, resizing, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.infer.graph import AdaptivePool, Node, Pool, Resample, UnknownError
from dgc.infer.read_convs import _pair, named
from dgc.infer.trace import Trace, Traced

Found = tuple[Node, Any, bool]


def _channelwise(trace: Trace, x: Any, what: str) -> Node:
    if not isinstance(x, Traced) or x.spread or x.dim() != 4:
        raise UnknownError(f"{what} of something that is no image")
    return trace.flat(x)


def _shape(x: Node, out: Tensor) -> tuple[int, int, int]:
    return x.channels, int(out.shape[-2]), int(out.shape[-1])


def max_pool(trace: Trace, name: str, args: Any, kwargs: Any, out: Any) -> Found:
    a = named(
        args, kwargs, "input kernel_size stride padding dilation ceil_mode return_indices",
        stride=None, padding=0, dilation=1,
    )  # fmt: skip
    if isinstance(out, tuple) or _pair(a["dilation"]) != (1, 1):
        raise UnknownError("max pooling with dilation or indices")
    x, kernel = _channelwise(trace, a["input"], name), _pair(a["kernel_size"])
    # PyTorch's own default: windows side by side.
    stride = _pair(a["stride"]) if a["stride"] not in (None, ()) else kernel
    pool = Pool("max", kernel, stride, _pair(a["padding"]))
    return trace.node("pool", [x], _shape(x, out), pool=pool), None, False


def avg_pool(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = named(
        args,
        kwargs,
        "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
        stride=None,
        padding=0,
        count_include_pad=True,
        divisor_override=None,
    )
    x, kernel = _channelwise(trace, a["input"], name), _pair(a["kernel_size"])
    stride = _pair(a["stride"]) if a["stride"] not in (None, ()) else kernel
    padding = _pair(a["padding"])
    if (
        out.shape[-2:] == (1, 1)
        and kernel == x.shape[1:]
        and padding == (0, 0)
        and not a["divisor_override"]
    ):
        return trace.node("mean", [x], (x.channels, 1, 1)), None, False
    counts = [
        _counts(
            int(out.shape[i - 2]),
            x.shape[i + 1],
            kernel[i],
            stride[i],
            padding[i],
            a["count_include_pad"],
        )
        for i in (0, 1)
    ]
    if a["divisor_override"]:
        counts = [torch.full_like(counts[0], 1 / a["divisor_override"]), torch.ones_like(counts[1])]
    pool = Pool("average", kernel, stride, padding, (counts[0], counts[1]))
    return trace.node("pool", [x], _shape(x, out), pool=pool), None, False


def _counts(outs: int, size: int, kernel: int, stride: int, padding: int, padded: bool) -> Tensor:
    """One over how many rows (or columns) each window has, as PyTorch counts them."""
    first = torch.arange(outs) * stride - padding
    last = (first + kernel).clamp(max=size + padding if padded else size)
    return 1.0 / (last - (first if padded else first.clamp(min=0))).float()


def adaptive(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    x = _channelwise(trace, args[0] if args else kwargs["input"], name)
    outs, size = (int(out.shape[-2]), int(out.shape[-1])), x.shape[1:]
    average = name == "adaptive_avg_pool2d"
    if outs == size:
        return x, None, False
    if outs == (1, 1) and average:
        return trace.node("mean", [x], (x.channels, 1, 1)), None, False
    if any(n % o for n, o in zip(size, outs, strict=True)):
        rows, columns = (_windows(n, o) for n, o in zip(size, outs, strict=True))
        windows = AdaptivePool("average" if average else "max", rows, columns)
        return trace.node("adaptive", [x], _shape(x, out), adaptive=windows), None, False
    kernel = (size[0] // outs[0], size[1] // outs[1])
    counts = (torch.full((outs[0],), 1 / kernel[0]), torch.full((outs[1],), 1 / kernel[1]))
    pool = Pool(
        "average" if average else "max", kernel, kernel, (0, 0), counts if average else None
    )
    return trace.node("pool", [x], _shape(x, out), pool=pool), None, False


def _windows(size: int, outs: int) -> Tensor:
    """Where PyTorch's adaptive windows begin and end: as evenly as whole pixels allow, so that they
    overlap where `outs` does not divide `size`."""
    i = torch.arange(outs)
    return torch.stack([i * size // outs, -(-(i + 1) * size // outs)]).to(torch.int32)


def interpolate(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = named(
        args,
        kwargs,
        "input size scale_factor mode align_corners recompute_scale_factor antialias",
        size=None,
        scale_factor=None,
        mode="nearest",
        align_corners=None,
        recompute_scale_factor=None,
        antialias=False,
    )
    x = _channelwise(trace, a["input"], name)
    if a["mode"] not in ("nearest", "nearest-exact", "bilinear") or a["antialias"]:
        raise UnknownError(f"interpolation by {a['mode']}")
    rest = {
        k: a[k] for k in ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    }
    rows, row_share = _weights(x.shape[1], 0, x, rest)
    columns, column_share = _weights(x.shape[2], 1, x, rest)
    plan = Resample(rows, columns, row_share, column_share)
    return trace.node("resample", [x], _shape(x, out), resample=plan), None, False


def _weights(size: int, axis: int, x: Node, how: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Which two rows (or columns) each one of the result is made of: asked of PyTorch, one row at a
    time. In float64: in float32 the places of a long row are off by some of its last bits."""
    # Each row in turn as the only 1 of an image: the result is its share in every row, in whatever
    # way PyTorch counts (align_corners, scale_factor and so on).
    unit = torch.zeros(1, size, *x.shape[1:], dtype=torch.float64)
    for i in range(size):
        unit[0, i].select(axis, i).fill_(1.0)
    answer = F.interpolate(unit, **how)[0]  # [i]: how much of row i is in each row of the result
    share = (answer[:, :, 0] if axis == 0 else answer[:, 0, :]).numpy()
    first = (share > 0).argmax(0)
    last = size - 1 - (share > 0)[::-1].argmax(0)
    places = torch.from_numpy(np.stack([first, last]).astype(np.int32))
    part = np.where(first == last, 0.0, share[last, np.arange(share.shape[1])])
    return places, torch.from_numpy(part.astype(np.float32))


def pad(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """Zeros (or the edge's pixels) around an image."""
    a = named(args, kwargs, "input pad mode value", mode="constant", value=0)
    x = _channelwise(trace, a["input"], name)
    sides = list(a["pad"]) + [0] * (4 - len(a["pad"]))
    if len(sides) > 4 or (a["mode"] == "constant" and a["value"] not in (0, None)):
        raise UnknownError(f"padding by {a['mode']}, {a['value']}")
    tables = []
    for size, (before, after) in zip(x.shape[1:], (sides[2:], sides[:2]), strict=True):
        # Places from 1 on, so that a zero of the padding can be told from the first pixel.
        line = torch.arange(1.0, size + 1).reshape(1, 1, 1, size)
        padded = F.pad(line, (before, after, 0, 0), mode=a["mode"])[0, 0, 0]
        places = padded.to(torch.int32) - 1
        tables.append(torch.stack([places, places]))
    zeros = [torch.zeros(t.shape[1]) for t in tables]
    plan = Resample(tables[0], tables[1], zeros[0], zeros[1])
    return trace.node("resample", [x], _shape(x, out), resample=plan), None, False


TABLE: dict[str, Any] = {
    "max_pool2d": max_pool,
    "avg_pool2d": avg_pool,
    "adaptive_avg_pool2d": adaptive,
    "adaptive_max_pool2d": adaptive,
    "interpolate": interpolate,
    "pad": pad,
}
