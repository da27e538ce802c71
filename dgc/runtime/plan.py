"""A plan file, ready to run. No torch."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgc.errors import ArgumentError, IntegrityError, UsageError
from dgc.runtime.native import Error, OptionsC, ShapeC, functions, isa_wanted, raised

LINE = 64  # bytes: a file in memory starts at a multiple of it
CHUNK = 16  # images that are computed at once: what bounds the memory
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through: shorter side to `resize` (None: to image_size), the middle
    image_size x image_size, [0, 1], minus mean, divided by std. `channels` 1: made grey, and given
    to each of the network's channels.
    """

    resize: int | None
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: int = 3

    def normalise(self, pixels: NDArray[np.uint8], channels: int = 3) -> Floats:
        """Bytes -> the input (B, channels, H, W) of a network of 3 channels or 1, as training
        computes it. An image is (H, W, 3), or grey: (H, W, 1) or (H, W); a batch (B, H, W, 3 or 1).
        A grey one is given to each channel. Raises ArgumentError.
        """
        x_BHWC = _batch_of(pixels)
        if channels not in (1, 3) or x_BHWC.shape[3] > channels:
            raise ArgumentError(
                f"pixels of {x_BHWC.shape[3]} channels for a network of {channels}: should be 1 or"
                " 3 for a network of 3, grey ones for a network of 1"
            )
        mean = np.asarray(self.mean[:channels], np.float32)
        std = np.asarray(self.std[:channels], np.float32)
        # In float32 and in this order, as the loader of
        # training does: another order gives other last bits.
        y_BHWC = (x_BHWC.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(y_BHWC.transpose(0, 3, 1, 2))


def _batch_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As (B, H, W, 1 or 3)."""
    x = np.asarray(pixels)
    x = x[..., None] if x.ndim == 2 else x
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        raise ArgumentError(
            "pixels: should be (H, W), (H, W, 1 or 3) or a batch (B, H, W, 1 or 3), given"
            f" {np.shape(pixels)}"
        )
    # Values from 0 to 1 would be divided by 255 once more, and nobody would see it.
    if x.dtype != np.uint8:
        raise ArgumentError(f"pixels: should be bytes from 0 to 255 (uint8), given {x.dtype}")
    return x


@dataclass(frozen=True)
class Shape:
    """Of the images that a program of the file takes, and of its answer."""

    image: tuple[int, int, int]
    answer: tuple[int, ...]


class _Runner:
    """Memory to compute in; of one thread."""

    def __init__(self, plan: Plan, size: tuple[int, int], images: int) -> None:
        c, why = functions(), Error()
        options = OptionsC(*size, images, plan.threads, isa_wanted(), None, 0)
        self.handle = c.dgc_runner_new(plan._handle, ctypes.byref(options), ctypes.byref(why))
        if not self.handle:
            raise raised(why, plan.name)
        self.images, self._plan = images, plan  # keeps the file mapped
        # finalize and not __del__: it also runs at exit, while the library is still loaded.
        weakref.finalize(self, c.dgc_runner_free, self.handle)


class Plan:
    """A checked file. May be called from any number of threads at once; each gets memory of its
    own. `threads` compute one call together.
    """

    def __init__(self, handle: int, name: str, threads: int, chunk: int) -> None:
        self._handle, self.name, self.threads, self.chunk = handle, name, threads, chunk
        # Memory to compute in belongs to one thread: two
        # calls in the same would write over each other.
        self._own = threading.local()
        self.bytes: NDArray[np.uint8] | None = None  # of a plan that lies in memory
        weakref.finalize(self, functions().dgc_plan_close, handle)
        self.precision = "float32"
        self.shapes = tuple(self._shapes())
        self.classes = tuple(self._classes())
        self.preprocessing = self._preprocessing()
        self.origin = self._origin()

    def __call__(self, images: NDArray[Any]) -> Floats:
        """(B, C, H, W) -> (B, *answer), float32."""
        x = np.ascontiguousarray(images, np.float32)
        shape = next((s for s in self.shapes if s.image == x.shape[1:]), None)
        if x.ndim != 4 or shape is None:
            raise UsageError(f"{self.name}: takes {self._sizes()}, given {self._given(x.shape)}")
        y = np.empty((len(x), *shape.answer), np.float32)
        runner, why = self._runner((x.shape[2], x.shape[3]), len(x)), Error()
        c = functions()
        if c.dgc_runner_run(runner.handle, x.ctypes.data, len(x), y.ctypes.data, ctypes.byref(why)):
            raise raised(why, self.name)
        return y

    def memory(self, images: int = 1) -> int:
        """Bytes that a thread which calls with so many images computes in."""
        c, why = functions(), Error()
        size = self.shapes[0].image[1:]
        options = OptionsC(*size, min(images, self.chunk), self.threads, isa_wanted(), None, 0)
        found = int(c.dgc_runner_bytes(self._handle, ctypes.byref(options), ctypes.byref(why)))
        if found < 0:
            raise raised(why, self.name)
        return found

    def _runner(self, size: tuple[int, int], images: int) -> _Runner:
        """This thread's memory for images of `size`; made anew where more are wanted at once."""
        runners: dict[tuple[int, int], _Runner] = self._own.__dict__.setdefault("runners", {})
        wanted = max(1, min(images, self.chunk))
        if size not in runners or runners[size].images < wanted:
            runners.pop(size, None)
            runners[size] = _Runner(self, size, wanted)
        return runners[size]

    def _sizes(self) -> str:
        found = [f"(images, {', '.join(map(str, s.image))})" for s in self.shapes]
        return " or ".join(found)

    def _given(self, shape: tuple[int, ...]) -> str:
        """The shape of what was given, and what can be done about it."""
        if len(shape) != 4:
            return f"{shape}: one image is a batch too (images[None])"
        channels = self.shapes[0].image[0]
        if shape[1] != channels:
            return f"{shape}: images of {shape[1]} channels for a network of {channels}"
        return f"{shape}; `dgcctl export --size HxW` adds others"

    def _shapes(self) -> Sequence[Shape]:
        c, found = functions(), []
        for i in range(c.dgc_plan_shapes(self._handle)):
            shape = ShapeC()
            c.dgc_plan_shape(self._handle, i, ctypes.byref(shape))
            answer = tuple(shape.out)[: shape.out_dims]
            self.precision = "int8" if shape.precision else "float32"
            found.append(Shape((shape.channels, shape.height, shape.width), answer))
        return found

    def _classes(self) -> Sequence[str]:
        c = functions()
        count = c.dgc_plan_classes(self._handle)
        return [c.dgc_plan_class(self._handle, i).decode() for i in range(count)]

    def _preprocessing(self) -> Preprocessing | None:
        how = functions().dgc_plan_preprocessing(self._handle)
        if not how:
            return None
        h = how.contents
        mean, std = (h.mean[0], h.mean[1], h.mean[2]), (h.std[0], h.std[1], h.std[2])
        return Preprocessing(h.resize or None, h.image_size, mean, std, h.channels)

    def _origin(self) -> dict[str, Any]:
        """Where the weights came from, as whoever wrote the file says; {} where nobody did."""
        size = ctypes.c_int64()
        start = functions().dgc_plan_origin(self._handle, ctypes.byref(size))
        if not start:
            return {}
        try:
            found = json.loads(ctypes.string_at(start, size.value).decode())
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{self.name}: its origin is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise IntegrityError(f"{self.name}: its origin is no JSON object")
        return found


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(file: str | os.PathLike[str], *, threads: int | None = None, chunk: int = CHUNK) -> Plan:
    """The plan in a file, which is mapped and checked: every byte by its checksum, every operation
    before any runs. `threads`: all usable cores by default; `chunk`: images at once at most.

    Raises DataError (3) where it cannot be read, IntegrityError (4) where it is no plan file or is
    damaged. The file must not be written to while it is in use: put a new one in its place by
    renaming.
    """
    c, why = functions(), Error()
    threads = usable_cores() if threads is None else threads
    if threads < 1 or chunk < 1:
        raise UsageError(f"threads={threads}, chunk={chunk}: should be at least 1")
    name = os.fspath(file)
    try:
        handle = c.dgc_plan_open(os.fsencode(name), ctypes.byref(why))
    except ValueError as error:  # a zero byte in the name
        raise UsageError(f"{name!r}: {error}") from error
    if not handle:
        raise raised(why, str(Path(name)))
    return Plan(handle, Path(name).name, threads, chunk)


def from_bytes(
    data: NDArray[np.uint8], name: str, *, threads: int | None = None, chunk: int = CHUNK
) -> Plan:
    """The plan in a file's bytes, which must not change while it is in use. Raises as `load`."""
    c, why = functions(), Error()
    # The kernels load weights by whole lines, so the block has to begin at one.
    if data.ctypes.data % LINE or not data.flags.c_contiguous:
        copied = np.zeros(data.size + LINE, np.uint8)
        start = -copied.ctypes.data % LINE
        copied[start : start + data.size] = data
        data = copied[start : start + data.size]
    handle = c.dgc_plan_from_memory(data.ctypes.data, data.size, ctypes.byref(why))
    if not handle:
        raise raised(why, name)
    plan = Plan(handle, name, usable_cores() if threads is None else threads, chunk)
    # The library keeps an address and no copy: the bytes have to live as long as the plan.
    plan.bytes = data
    return plan
