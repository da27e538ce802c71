"""Turns what torch and the system raise during training into the one line a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dgc import checkpoints
from dgc.errors import DataError, DgcError, RankError, ResourceError
from dgc.fs import disk_error
from dgc.train.distributed import first_line, is_rank_loss
from dgc.train.session import Session


@contextmanager
def explained(session: Session) -> Iterator[None]:
    """Within the block every known trouble becomes a DgcError that says where, and which checkpoint is the last."""
    try:
        yield
    except (DataError, ResourceError, RankError) as error:
        raise type(error)(_with_place(session, str(error))) from error
    except DgcError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        known = translate(session, error)
        if known is None:
            raise
        raise known from error


def translate(session: Session, error: BaseException) -> DgcError | None:
    """The DgcError for a memory, disk, worker or rank trouble; None for a fault of our own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return ResourceError(_with_place(session, _memory_line(session)))
    if isinstance(error, OSError):
        line = disk_error(error, session.run.path, 0)
        return line if isinstance(line, DgcError) else None
    explain = getattr(session.train, "explain", None)
    worker = explain(error) if explain else None
    if worker is not None:
        return ResourceError(_with_place(session, str(worker)))
    if session.ranks.world > 1 and is_rank_loss(error):
        return RankError(_with_place(session, f"lost contact with another rank ({first_line(error)})"))
    return None


def _memory_line(session: Session) -> str:
    device = session.ranks.device
    half = max(session.ranks.world, session.recipe.train.batch_size // 2)
    if device.type != "cuda":
        return f"out of memory on {device}: try train.batch_size <= {half}"
    free, total = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    return (
        f"out of memory on {device} (peak {peak:,} bytes here, {free:,} of {total:,} bytes free): "
        f"try train.batch_size <= {half}, or train.accumulate"
    )


def _with_place(session: Session, text: str) -> str:
    standing = checkpoints.list_checkpoints(session.run)
    last = standing[-1].path.name if standing else "none"
    step = f" at step {session.position.step}" if "step" not in text else ""
    return f"{text}{step}; last checkpoint: {last}"
