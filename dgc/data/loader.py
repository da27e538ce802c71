"""Loaders: batches in a fixed order, made by any number of worker processes with the same result.

A worker is told all it needs in a Task and answers with pixels or with a Failure; the loader turns
the first into a Batch on the device and the second into one line. A worker that dies becomes one
line too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dgc.data import rand_augment
from dgc.data.image_sets import ImageSet
from dgc.data.normalise import Normalise
from dgc.data.rng import ERASING, RAND_AUGMENT, uniforms
from dgc.data.sampler import EvalSampler, Task, TrainSampler
from dgc.data.transforms import Pixels
from dgc.data.worker import held_requests, settle_worker
from dgc.errors import DataError, DgcError, ResourceError
from dgc.run import oom


class Batch(NamedTuple):
    """images (B, 3, S, S) normalised, labels (B,) int64,
    indices (B,) int64: the samples' places in the set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class _Raw(NamedTuple):
    pixels: Tensor
    labels: Tensor
    indices: Tensor


class _Failure(NamedTuple):
    text: str
    kind: type[DgcError] = DataError


class _Maker(Dataset[Any]):
    """Makes the batch of a task, in a worker or in the main process."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.seed = images, seed

    def __getitem__(self, task: Task) -> _Raw | _Failure:
        try:
            pixels = torch.from_numpy(self._pixels(task))
        except DgcError as error:
            # Returned, not raised: an exception that crosses from a worker arrives as a page of
            # traceback.
            return _Failure(str(error))
        except MemoryError:
            return _Failure(
                "out of memory while making a batch: lower train.batch_size or data.workers",
                ResourceError,
            )
        except Exception as error:  # noqa: BLE001 - a worker's traceback would be many lines; all of it goes on in one
            return _Failure(_unexpected(error, self.images, task))
        labels = torch.from_numpy(self.images.labels[task.indices])
        return _Raw(pixels, labels, torch.from_numpy(task.indices))

    def _pixels(self, task: Task) -> Pixels:
        place = self.seed, task.epoch, task.indices
        pixels = self.images.pixels(*place)
        if count := self.images.view.rand_augment:
            draws = uniforms(*place, rand_augment.draws_needed(count), RAND_AUGMENT)
            level = self.images.view.rand_augment_magnitude
            pixels = rand_augment.rand_augment(pixels, draws, count, level)
        return pixels


def _unexpected(error: Exception, images: ImageSet, task: Task) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    first = images.name_of(int(task.indices[0])) if len(task.indices) else "an empty batch"
    text = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {text} ({where.name}, line {where.lineno}; the batch begins with"
        f" {first})"
    )


def _as_it_is(item: Any) -> Any:
    return item


class _Tasks:
    """What the DataLoader iterates over: the tasks of the epoch that was asked for last."""

    def __init__(self, sampler: TrainSampler | EvalSampler) -> None:
        self.sampler, self.epoch, self.start = sampler, 0, 0

    def __iter__(self) -> Iterator[Task]:
        return self.sampler.tasks(self.epoch, self.start)

    def __len__(self) -> int:
        return len(self.sampler) - self.start


class Loader:
    """Batches of one rank. `len(loader)` is the number of batches of an epoch."""

    def __init__(
        self,
        images: ImageSet,
        sampler: TrainSampler | EvalSampler,
        normalise: Normalise,
        *,
        seed: int,
        workers: int,
    ) -> None:
        self.images, self.sampler, self.workers = images, sampler, workers
        self._normalise = normalise
        self._maker = _Maker(images, seed)
        self._tasks = _Tasks(sampler)
        self._step, self._registered = 0, False
        # counted now: a kill of before is not the cause of one that comes
        self._starved = oom.kills()
        # PyTorch warns of more workers than cores, which is the user's choice
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._loader = self._data_loader() if workers else None

    def _data_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._maker,
            sampler=self._tasks,
            batch_size=None,  # a task is a batch already
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self._normalise.device.type == "cuda",
            # Workers would else be started anew for each epoch.
            persistent_workers=True,
            worker_init_fn=partial(settle_worker, os.getpid()),
            # so that starting an epoch draws nothing from the global generator
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def close(self) -> None:
        """End the workers now. Also done at exit,
        so that an interpreter with idle workers does not wait for them.
        """
        # a private attribute again (see `_source`): PyTorch offers no end but the collector's
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
        self._loader = None

    def _source(self) -> Iterator[Any]:
        if self._loader is None:
            return map(self._maker.__getitem__, self._tasks)
        # PyTorch keeps the workers in a private attribute and offers no question for it. Signals
        # need to be held back only while there are none yet.
        if getattr(self._loader, "_iterator", None) is not None:  # its workers live on
            return self._iterate(self._loader)
        with held_requests():
            source = self._iterate(self._loader)
            # after the workers have started: what is registered last runs first
            if not self._registered:
                atexit.register(_close, weakref.ref(self))
                self._registered = True
        return source

    @staticmethod
    def _iterate(loader: DataLoader[Any]) -> Iterator[Any]:
        with _own_child_handler(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores is the user's choice
            return iter(loader)

    def epoch(self, epoch: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `start_batch` on.

        Raises DataError (a sample that cannot be read, named) and ResourceError (a worker died).
        """
        # before `iter`: workers are handed the tasks when it is called
        self._tasks.epoch, self._tasks.start, self._step = epoch, start_batch, start_batch
        source = self._source()
        while True:
            try:
                # Before each batch: a worker killed for want of memory is told by its cause
                # within a step.
                self._require_workers()
                raw = next(source)
            except StopIteration:
                return
            # a dead worker's pixels cannot be fetched either
            except (RuntimeError, OSError, EOFError) as error:
                self._require_workers(patience=0.0 if isinstance(error, RuntimeError) else 2.0)
                raise self.explain(error) or error from error
            # In the order of the batches, whatever order workers work in: so the same file is
            # named at the same step, with any number of workers.
            if isinstance(raw, _Failure):
                raise raw.kind(f"{raw.text} (at {self._place()})")
            raw = self._pinned(raw)
            images = self._erased(self._normalise(raw.pixels), epoch, raw.indices)
            yield Batch(images, self._to_device(raw.labels), raw.indices)
            self._step += 1

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch()

    def _pinned(self, raw: _Raw) -> _Raw:
        """For a GPU in memory that it copies from while the host goes on.
        With workers PyTorch's loader has seen to it.
        """
        if self.workers or self._normalise.device.type != "cuda":
            return raw
        return raw._replace(pixels=raw.pixels.pin_memory(), labels=raw.labels.pin_memory())

    def _erased(self, images: Tensor, epoch: int, indices: Tensor) -> Tensor:
        """Boxes are erased here, after the normalisation: what is 0 then is the mean colour."""
        probability = self.images.view.random_erasing
        if not probability:
            return images
        place = self._maker.seed, epoch, indices.numpy()
        draws = uniforms(*place, rand_augment.ERASING_DRAWS, ERASING)
        return rand_augment.erase(images, draws, probability)

    def _to_device(self, labels: Tensor) -> Tensor:
        return labels.to(self._normalise.device, non_blocking=True)

    def _place(self) -> str:
        return f"epoch {self._tasks.epoch} step {self._tasks.epoch * len(self) + self._step}"

    def explain(self, error: BaseException) -> ResourceError | None:
        """The one line for a RuntimeError of PyTorch that says a worker died;
        None for any other error.
        """
        # by the words of PyTorch's message: it raises a plain RuntimeError for this
        if not (found := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))):
            return None
        pid = int(found.group(1).split(",")[0])
        number = next(
            (place for place, worker in enumerate(self._workers()) if worker.pid == pid), None
        )
        # none for a worker that PyTorch has already taken off its list
        code = None if number is None else self._workers()[number].exitcode
        return self._death(number, self._cause(code, str(error)))

    def _workers(self) -> list[Any]:
        return getattr(getattr(self._loader, "_iterator", None), "_workers", [])

    def _require_workers(self, patience: float = 0.0) -> None:
        """Raise ResourceError where a worker has died, without waiting for PyTorch's five seconds.

        A worker that is dying closes its sockets before it can be waited for: `patience` is for
        that, in seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            for number, worker in enumerate(self._workers()):
                if worker.exitcode is not None:
                    raise self._death(number, self._cause(worker.exitcode, ""))
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)

    def _cause(self, exitcode: int | None, text: str) -> str:
        return _cause(exitcode, text, starved=oom.kills() > self._starved)

    def _death(self, number: int | None, cause: str) -> ResourceError:
        return ResourceError(
            f"worker {'?' if number is None else number} died ({cause}) at {self._place()}"
        )


_CAUSES = {
    signal.SIGKILL: "out of memory: fewer data.workers or a smaller train.batch_size need less",
    signal.SIGBUS: "likely shared memory is full: give /dev/shm more, or set data.workers=0",
    signal.SIGSEGV: "a crash in native code",
}
_NAMES = {
    "Killed": signal.SIGKILL,
    "Bus error": signal.SIGBUS,
    "Segmentation fault": signal.SIGSEGV,
}


def _cause(exitcode: int | None, text: str, *, starved: bool) -> str:
    """Why a worker died. `starved`: meanwhile the system killed something for want of memory."""
    # negative: ended by a signal; else PyTorch's text may name one
    number = -exitcode if exitcode is not None and exitcode < 0 else 0
    number = number or next((int(value) for name, value in _NAMES.items() if name in text), 0)
    if number:
        name = signal.Signals(number)
        # SIGKILL is said to be want of memory only where the
        # system counted such a kill: a person may have sent it
        known = name in _CAUSES and (starved or name is not signal.SIGKILL)
        return f"signal {number}, {_CAUSES[name] if known else name.name}"
    return f"exit code {exitcode}" if exitcode is not None else "no exit code"


@contextlib.contextmanager
def _own_child_handler() -> Iterator[None]:
    """Keep the handler of SIGCHLD:
    PyTorch's raises in whatever line the process is at, be it a checkpoint's write.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # signals can be set by the main thread alone; in any other PyTorch set none
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGCHLD, before)


def _close(reference: weakref.ref[Loader]) -> None:
    if (loader := reference()) is not None:
        loader.close()
