"""The last words of a run that met NaN or Inf: which step, which rank, which samples."""

from __future__ import annotations

import math
from typing import Any

import torch

from dgc.errors import DivergedError
from dgc.run import checkpoint_store
from dgc.run.metrics import StepInfo
from dgc.train.session import Session

_LISTED = 16


def diverged(session: Session, info: StepInfo, values: dict[str, Any]) -> DivergedError:
    """The error that all ranks end with. Collective.

    The parameters are still those of before the bad step, so its batch can be computed once more,
    each rank for itself, to tell which of them the bad numbers came from.
    """
    # every rank looks at its own part; the first whose numbers are bad is named
    found = session.ranks.gather(_again(session, info))
    guilty = [
        rank
        for rank, (loss, norm, _) in enumerate(found)
        if not (math.isfinite(loss) and math.isfinite(norm))
    ]
    # nobody is where the batch gives finite numbers when it is computed once more
    rank = guilty[0] if guilty else 0
    loss, norm, samples = (
        found[rank] if guilty else (values["loss"], values["grad_norm"], found[0][2])
    )
    error = DivergedError(
        f"diverged at step {info.step} (epoch {info.epoch}) on rank {rank}: loss {loss:g},"
        f" gradient norm {norm:g}, lr {info.lr:g}, samples {_listed(samples)}; no update was made"
        f" from that step on; last good: {_newest(session)}; a lower optim.lr may help"
    )
    error.shared = True  # type: ignore[attr-defined]
    return error


def diverged_in_evaluation(session: Session, error: DivergedError) -> DivergedError:
    """What all ranks end with whose last evaluation met NaN: no figure is written."""
    told = DivergedError(
        f"diverged by the last evaluation, after step {session.position.step} (epoch"
        f" {session.position.epoch}): {error}; last checkpoint: {_newest(session)}; a lower"
        " optim.lr or more epochs may help"
    )
    told.shared = True  # type: ignore[attr-defined]
    return told


def unanswered(session: Session, error: DivergedError) -> str:
    """What is logged where an evaluation before the last one met NaN."""
    return (
        f"the evaluation after step {session.position.step} (epoch {session.position.epoch}) has no"
        f" figure: {error}; the training goes on, for its own numbers are finite"
    )


def _newest(session: Session) -> str:
    standing = checkpoint_store.list_checkpoints(session.run)
    return standing[-1].path.name if standing else "none"


def _again(session: Session, info: StepInfo) -> tuple[float, float, list[int]]:
    """This rank's own loss and gradient norm of a step, and its samples."""
    images_BCHW, labels_B, indices_B = next(iter(session.train.epoch(info.epoch, info.batch)))
    mix = session.mix(info.epoch, info.batch)
    loss, norm = session.updater.probe(images_BCHW, labels_B, info.progress, mix)
    return loss, norm, torch.as_tensor(indices_B).tolist()


def _listed(samples: list[int]) -> str:
    more = f" and {len(samples) - _LISTED} more" if len(samples) > _LISTED else ""
    return ", ".join(map(str, samples[:_LISTED])) + more
