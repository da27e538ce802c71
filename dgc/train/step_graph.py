"""An update as a CUDA graph: all of its launches are started by one call of the host, which would
otherwise take longer to start them than a GPU takes to run them.

A graph repeats what was captured, on the memory that it was captured on. So what differs from step
to step stands on the device: the batch, the shares of mixed images, the learning rate, and how many
channels are off. Plain PyTorch's layers also have sizes that follow from that number; they take
those of its stage (`DynamicGroupConv2d.n_traced`), and each stage has a graph of its own. Triton's
kernels need none.

The steps that are not replayed (those before a capture, and short batches) compute with the same
operations on the same numbers, so that where a run is interrupted changes no bit of it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dgc.errors import UsageError
from dgc.layers import counted_on_device
from dgc.train.mixing import Target
from dgc.train.ranks import first_line
from dgc.train.step import AMP_TYPES, Updater

# steps of a kind before it is captured: what libraries make at first use (workspaces, compiled
# kernels) must be there, for a capture may not make it
WARM_UP = 3

Work = Callable[[], Tensor]


class Capturing(Protocol):
    """How work is captured, and how it runs where it is not."""

    def run(self, work: Work) -> Tensor: ...

    def capture(self, work: Work) -> Work:
        """What repeats it; nothing is computed yet."""


class CudaCapturing:
    def __init__(self, device: torch.device) -> None:
        # A capture forbids the default stream. All steps run on this one: autograd goes on using
        # the stream on which it first met a parameter.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Work) -> Tensor:
        caller = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            found = work()
        caller.wait_stream(self._stream)
        found.record_stream(caller)  # its memory is the other stream's
        return found

    def capture(self, work: Work) -> Work:
        gc.collect()  # what is freed during a capture breaks it
        graph = torch.cuda.CUDAGraph()
        try:
            # of this thread alone: a loader's may go on pinning memory
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                found = work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # the end of a broken capture raises too: what broke it is the error before
            cause = error.__context__ or error
            raise UsageError(
                "train.compile = reduce-overhead: the step of this network cannot be captured as a"
                f" CUDA graph ({first_line(cause)}): set train.compile = false"
            ) from error

        def replay() -> Tensor:
            graph.replay()
            return found.clone()  # the next replay writes it anew

        return replay


class _Inputs(NamedTuple):
    """What a graph reads of a batch, always in the same memory."""

    images: Tensor
    target: Target

    @classmethod
    def like(cls, images: Tensor, target: Target) -> _Inputs:
        if target.partner is None:
            return cls(torch.empty_like(images), Target(torch.empty_like(target.labels)))
        # the shares in the loss' dtype, as PyTorch takes numbers of the host
        dtype = torch.promote_types(images.dtype, torch.float32)
        share, rest = torch.empty(2, dtype=dtype, device=images.device).unbind()
        labels, partner = torch.empty_like(target.labels), torch.empty_like(target.partner)
        return cls(torch.empty_like(images), Target(labels, partner, share, rest))

    def fill(self, images: Tensor, target: Target) -> None:
        self.images.copy_(images)
        for own, given in zip(self.target, target, strict=True):
            if isinstance(own, Tensor):
                # filled by a launch: a copy of the host's number would wait for the device
                own.copy_(given) if isinstance(given, Tensor) else own.fill_(given or 0.0)


@dataclass
class GraphUpdater(Updater):
    """The recipe's update rule, replayed as a graph wherever a batch is whole."""

    capturing: Capturing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        device = self.optimizer.tripped.device
        self._capturing = self.capturing or CudaCapturing(device)
        # in the precision in which the fused kernels read it
        self._lr = torch.zeros((), dtype=torch.float32, device=device)
        self.optimizer.lr = self._lr
        self._whole = 0  # images of a whole batch
        self._kind: Hashable = None
        self._inputs: _Inputs | None = None
        self._warm = 0
        self._replay: Work | None = None

    def _set_lr(self, lr: float) -> None:
        self._lr.fill_(lr)

    def _run(self, images_BCHW: Tensor, target: Target, global_batch: int) -> Tensor:
        self._whole = max(self._whole, len(images_BCHW))
        if len(images_BCHW) < self._whole:
            # the last of an epoch: a graph of its own would be used once in an epoch
            return self._capturing.run(lambda: self._update(images_BCHW, target, global_batch))
        inputs = self._inputs_of(images_BCHW, target, global_batch)
        inputs.fill(images_BCHW, target)

        def work() -> Tensor:
            return self._update(inputs.images, inputs.target, global_batch)

        if self._replay is None and self._warm < WARM_UP:
            self._warm += 1
            return self._capturing.run(work)
        if self._replay is None:
            self._replay = self._capturing.capture(work)
        return self._replay()

    def _inputs_of(self, images_BCHW: Tensor, target: Target, global_batch: int) -> _Inputs:
        """The memory that batches of this kind are read from. With a new kind the graph goes."""
        stages = tuple(layer.n_traced for layer in self._layers if not layer.triton)
        shape = (images_BCHW.shape, images_BCHW.dtype, target.partner is None, global_batch)
        if self._inputs is None or self._kind != (shape, stages):
            self._replay = None  # first: its memory is free then for the steps before the next
            self._kind, self._warm = (shape, stages), 0
            self._inputs = _Inputs.like(images_BCHW, target)
        return self._inputs

    def _update(self, images_BCHW: Tensor, target: Target, global_batch: int) -> Tensor:
        with counted_on_device(self.module):
            return super()._update(images_BCHW, target, global_batch)

    def _precision(self, device_type: str) -> AbstractContextManager[Any]:
        if self.amp == "off":
            return nullcontext()
        # a graph may hold no cast of a parameter that was made outside of it
        return torch.autocast(device_type, dtype=AMP_TYPES[self.amp], cache_enabled=False)
