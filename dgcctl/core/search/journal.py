"""Optuna and its journal: who draws, who gives up, and a study that several workers write to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import filelock

from dgc.errors import UsageError

SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "median", "halving")


def sampler_of(name: str, seed: int, fixed: dict[str, Any] | None) -> Any:
    """One of SAMPLERS; `fixed`: the values that it shall draw."""
    samplers = require_optuna().samplers
    made = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}[name](seed=seed)
    if fixed is None:
        return made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this sampler may change in Optuna
        return samplers.PartialFixedSampler(fixed, made)


def pruner_of(name: str) -> Any:
    """One of PRUNERS."""
    pruners = require_optuna().pruners
    kinds = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "halving": pruners.SuccessiveHalvingPruner,
    }
    return kinds[name]()


def open_study(folder: Path, name: str, *, sampler: Any, pruner: Any, maximize: bool) -> Any:
    """Optuna's study in a search's folder."""
    optuna = require_optuna()
    # under the lock of the journal: another worker may be writing its line now
    with filelock.FileLock(folder / "journal.lock"):
        _cut_torn_line(folder / "journal.log")
    backend = optuna.storages.journal.JournalFileBackend(
        str(folder / "journal.log"), lock_obj=JournalLock(folder / "journal.lock")
    )
    return optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(backend),
        sampler=sampler,
        pruner=pruner,
        direction="maximize" if maximize else "minimize",
        load_if_exists=True,
    )


class JournalLock:
    """Optuna's lock of its journal, by a lock that the system frees when its holder is killed."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _cut_torn_line(journal: Path) -> None:
    """Remove half a line, which a worker that was killed while it wrote left at the end: the next
    line would be written behind it.
    """
    if not journal.is_file():
        return
    # the whole journal: it is read by Optuna anyway, and the torn line is at its end
    data = journal.read_bytes()
    if not data.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def require_optuna() -> Any:
    """Optuna, which only a search needs. Raises UsageError where it is absent."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise UsageError("a search needs Optuna: pip install 'dgcctl[search]'") from None
    # Optuna logs each trial to stderr, where our own lines are
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
