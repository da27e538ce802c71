"""Turns what torch and the system raise during training into the one line a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from dgc.errors import DataError, DgcError, RankError, ResourceError, UsageError
from dgc.run import checkpoint_store
from dgc.train import save
from dgc.train.ranks import first_line, is_rank_loss
from dgc.train.session import Session


@contextmanager
def explained(session: Session) -> Iterator[None]:
    """Within the block every known trouble becomes a DgcError
    that says where, and which checkpoint is the last.
    """
    try:
        yield
    # these say what happened, but not where in the training
    except (DataError, ResourceError, RankError) as error:
        raise type(error)(_with_place(session, str(error) + _rescued(session, error))) from error
    except DgcError:  # says already what is wrong and where
        raise
    except (MemoryError, RuntimeError, OSError, ValueError) as error:
        # what is not known is our own mistake, and keeps its traceback
        known = translate(session, error)
        if known is None:
            raise
        raise known from error


def _rescued(session: Session, error: BaseException) -> str:
    """Rescue the state from a disk that refused (nothing else
    is a reason to), if asked to; what to say about it.

    Not where the log refused: its rows are lost, so the last checkpoint is what goes with the log.
    """
    folder, cause = (
        session.options.rescue_dir,
        error if isinstance(error, OSError) else error.__cause__,
    )
    if (
        folder is None
        or not session.ranks.first
        or not isinstance(cause, OSError)
        or str(session.run.events) in str(error)
    ):
        return ""
    return f"; {save.rescue(session, folder)}"


# how the libraries beneath PyTorch say it; cuBLAS and cuDNN allocate for themselves
_NO_MEMORY = (
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",
    "CUDA error: out of memory",
)


def translate(session: Session, error: BaseException) -> DgcError | None:
    """The DgcError for a memory, disk, worker or rank trouble; None for a fault of our own."""
    # in this order: memory troubles come under several names, one of them a RuntimeError
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        mark in str(error) for mark in _NO_MEMORY
    ):
        return ResourceError(_with_place(session, _memory_line(session)))
    if isinstance(error, OSError):
        return _folder_trouble(session, error)
    if isinstance(error, ValueError):
        return _one_image(session, error)
    # a worker that was killed shows as a RuntimeError of the loader, which knows better
    explain = getattr(session.train, "explain", None)
    worker = explain(error) if explain else None
    if worker is not None:
        return ResourceError(_with_place(session, str(worker)))
    if session.ranks.world > 1 and is_rank_loss(error):
        return RankError(
            _with_place(session, f"lost contact with another rank ({first_line(error)})")
        )
    return None


def _one_image(session: Session, error: ValueError) -> DgcError | None:
    """Batch normalisation of a single value per channel:
    one image in a batch, and maps of 1 x 1.
    """
    if "more than 1 value per channel" not in str(error):
        return None
    train = session.recipe.train
    return UsageError(
        f"train.batch_size = {train.batch_size} gives each step one image (processes:"
        f" {session.ranks.world}, train.accumulate = {train.accumulate}), and batch normalisation"
        " of 1 x 1 maps needs two: take a larger batch"
    )


def _folder_trouble(session: Session, error: OSError) -> DgcError | None:
    """A run folder that went away or was made read-only; None for a path that is not the run's."""
    if not str(error.filename or "").startswith(str(session.run.path)):
        return None
    line = (
        f"{error.filename}: cannot write ({error.strerror}): was the run's folder moved, or made"
        " read-only?"
    )
    return ResourceError(_with_place(session, line + _rescued(session, error)))


def _memory_line(session: Session) -> str:
    device = session.ranks.device
    half = max(session.ranks.world, session.recipe.train.batch_size // 2)
    if device.type != "cuda":
        return f"out of memory on {device}: try train.batch_size <= {half}"
    told = ""
    with suppress(RuntimeError):  # after some errors the device answers nothing more
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        told = f" (peak {peak:,} bytes here, {free:,} of {total:,} bytes free)"
    return f"out of memory on {device}{told}: try train.batch_size <= {half}, or train.accumulate"


def _with_place(session: Session, text: str) -> str:
    standing = checkpoint_store.list_checkpoints(session.run)
    last = standing[-1].path.name if standing else "none"
    step = f" at step {session.position.step}" if "step" not in text else ""
    return f"{text}{step}; last checkpoint: {last}"
