"""The only file that touches torch.distributed (launch.py runs torchrun): who we are, and what
ranks tell each other.

With one process nothing of torch.distributed is initialised and every collective is the identity.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from dgc import settings
from dgc.errors import DgcError, RankError, UsageError

T = TypeVar("T")
DEFAULT_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Ranks:
    """This process among `world` ones. `device` is where it computes."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Add up over ranks, in place."""
        if self.world > 1:
            with _as_rank_error():
                torch.distributed.all_reduce(values)
        return values

    def max_(self, values: Tensor) -> Tensor:
        """Largest over ranks, in place."""
        if self.world > 1:
            with _as_rank_error():
                torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value (small, picklable), by rank; for rare moments."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        with _as_rank_error():
            torch.distributed.all_gather_object(gathered, value)
        return gathered

    def from_first(self, work: Callable[[], T]) -> T:
        """Let the first rank do something; all get its (picklable) result, or its error."""
        if self.world == 1:
            return work()
        # an error travels too: otherwise the others would wait for a value that never comes
        outcome: list[Any] = [None]
        if self.first:
            try:
                outcome[0] = (work(), None)
            # an error of another kind ends this rank alone;
            # the others lose contact with it, and say so
            except DgcError as error:
                outcome[0] = (None, error)
        with _as_rank_error():
            torch.distributed.broadcast_object_list(outcome, src=0)
        value, failure = outcome[0]
        if failure is not None:
            failure.shared = True  # every rank raises it, one of them says it
            raise failure
        return cast("T", value)

    def alone_first(self, work: Callable[[], T]) -> T:
        """Let every rank do the same,
        the first one before the others (it downloads, they find it done).
        """
        # None is what goes over the network: a data set is not sent, each rank opens its own
        result: list[T] = []
        self.from_first(lambda: result.append(work()))
        return result[0] if result else work()

    def barrier(self) -> None:
        self.max_(torch.zeros(1, device=self.device))

    def spread_(self, tensors: Iterable[Tensor]) -> None:
        """The first rank's values for all, in place. Collective."""
        if self.world == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for group in by_type.values():  # one message a type: there may be hundreds of small ones
            # copied through one tensor: a broadcast of each would be as many round trips
            flat = torch.cat([tensor.detach().flatten() for tensor in group])
            with _as_rank_error():
                torch.distributed.broadcast(flat, src=0)
            sizes = [tensor.numel() for tensor in group]
            for tensor, part in zip(group, torch.split(flat, sizes), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward averages gradients over ranks."""
        if self.world == 1:
            return model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            # gradients are views of the buckets: no second copy of all of them
            model,
            device_ids=device_ids,
            gradient_as_bucket_view=True,
        )


class Agreement:
    """Ranks agree on small integers (the largest wins)
    one step late, so that nobody waits for the network.

    What `exchange` returns is what all ranks put in at the call before; with one process, what was
    just put in.
    """

    def __init__(self, ranks: Ranks, size: int) -> None:
        self._ranks = ranks
        # a group of its own, on the CPU: it must not wait in line with the gradients
        self._group: Any = torch.distributed.new_group(backend="gloo") if ranks.world > 1 else None
        # one tensor for all exchanges: `settle` reads it before it is filled anew
        self._values = torch.zeros(size, dtype=torch.int32)
        self._pending: Any = None

    def exchange(self, values: list[int]) -> list[int]:
        if self._group is None:
            return values
        # first take what was asked a step ago, then ask anew: nobody waits in between
        agreed = self.settle()
        self._values.copy_(torch.tensor(values, dtype=torch.int32))
        with _as_rank_error():
            self._pending = torch.distributed.all_reduce(
                self._values, op=torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
        return agreed

    def settle(self) -> list[int]:
        """Wait for the call in flight (zeros where there was none)."""
        if self._pending is None:
            return [0] * len(self._values)
        with _as_rank_error():
            self._pending.wait()
        self._pending = None
        return cast("list[int]", self._values.tolist())


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Take part in what torchrun started (or be the only one). `device`: auto, cpu or cuda."""
    world, rank, local_rank = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
    ranks = Ranks(rank, world, local_rank, choose_device(device, local_rank))
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if world == 1:
        yield ranks
        return
    _start_group(ranks)
    if ranks.device.type == "cuda":
        own = str(torch.cuda.get_device_properties(ranks.device).uuid)
        check_own_gpus(ranks.gather((socket.gethostname(), own)))
    yield ranks
    # not after an error: it would wait for ranks that are gone
    torch.distributed.destroy_process_group()


_TORCHRUN = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def _start_group(ranks: Ranks) -> None:
    seconds = settings.rank_timeout(DEFAULT_TIMEOUT_SECONDS)
    # requests and records are small and on the CPU, gradients on the GPU
    backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
    with _as_rank_error():
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(seconds=seconds))


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """The device of this rank. Raises UsageError where there
    are more ranks than GPUs, or no GPU at all.
    """
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cuda" and gpus == 0:
        raise UsageError(
            "train.device = cuda, but torch sees no CUDA device here: use train.device=cpu or auto"
        )
    if gpus == 0:
        return torch.device("cpu")
    if gpus == 1:
        # a scheduler may show each rank one GPU of its own; that it is its own is checked later
        return torch.device("cuda", 0)
    if local_rank >= gpus:
        raise UsageError(
            f"rank {local_rank} on this machine has no GPU of its own ({gpus} seen): "
            f"use --nproc-per-node {gpus}, or train.device=cpu"
        )
    return torch.device("cuda", local_rank)


def check_own_gpus(gpus: Sequence[tuple[str, str]]) -> None:
    """(machine, GPU) of each rank: no two the same. Raises UsageError for ranks that share one."""
    for rank, gpu in enumerate(gpus):
        other = gpus.index(gpu)
        if other != rank:
            raise UsageError(
                f"ranks {other} and {rank} have one GPU between them on {gpu[0]}: use fewer"
                " --nproc-per-node, or train.device=cpu"
            )


def without_sync(model: nn.Module) -> AbstractContextManager[Any]:
    """Gradients of the next backward stay on this rank (all but the last of an accumulation)."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return cast("AbstractContextManager[Any]", model.no_sync())
    return nullcontext()


@contextmanager
def _as_rank_error() -> Iterator[None]:
    """A broken collective means that another rank is gone or stuck;
    its own message says nothing a user can use.
    """
    try:
        yield
    except (RuntimeError, torch.distributed.DistBackendError) as error:
        raise RankError(f"lost contact with another rank ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What the backend says, without its source line and its advice."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*\]\s*", "", text).split(". This")[0][:120]


def is_rank_loss(error: BaseException) -> bool:
    """Whether a RuntimeError out of a backward pass
    is really a broken collective (DDP runs them there).
    """
    text = str(error)
    return any(
        mark in text
        for mark in ("gloo", "Connection closed by peer", "NCCL", "ProcessGroup", "process group")
    )
