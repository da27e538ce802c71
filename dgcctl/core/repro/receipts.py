"""Determinism receipts: made in a process of dgc, compared here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgc.errors import IntegrityError, UsageError
from dgc.run.files import read_json
from dgcctl.core.launch.query import query


@dataclass(frozen=True)
class ReceiptDiff:
    """`first` is the first step whose digest differs (None:
    all are the same); `facts` what differs of the machines.
    """

    first: int | None
    facts: list[tuple[str, Any, Any]]


def make(*, steps: int, seed: int, device: str, threads: int | None) -> dict[str, Any]:
    """A receipt of this machine. Raises the process's error."""
    words = ["--steps", str(steps), "--seed", str(seed), "--device", device]
    return query(
        "dgc.jobs.fingerprint", [*words, *(["--threads", str(threads)] if threads else [])]
    )


def read(path: Path) -> dict[str, Any]:
    """A receipt from a file. Raises IntegrityError where it is none,
    or its steps do not lead to its digest.
    """
    receipt = read_json(path)
    steps = receipt.get("steps")
    # each step's digest goes into the next: the last one stands for all
    if not steps or receipt.get("digest") != steps[-1].get("digest"):
        raise IntegrityError(
            f"{path}: no whole determinism receipt: make one with `dgcctl fingerprint -o FILE`"
        )
    return receipt


def compare(a: dict[str, Any], b: dict[str, Any]) -> ReceiptDiff:
    """Hold two receipts together. Raises UsageError where they hashed different things."""
    # other seeds or networks differ by right, and that would say nothing of the machines
    for key in ("seed", "network"):
        if a.get(key) != b.get(key):
            raise UsageError(
                f"the receipts have another {key} ({a.get(key)}, {b.get(key)}): make both with the"
                " same"
            )
    if len(a["steps"]) != len(b["steps"]):
        counts = f"{len(a['steps'])} and {len(b['steps'])}"
        raise UsageError(f"the receipts have {counts} steps: make both with the same --steps")
    pairs = zip(a["steps"], b["steps"], strict=True)
    first = next((int(x["step"]) for x, y in pairs if x["digest"] != y["digest"]), None)
    one, two = a.get("facts", {}), b.get("facts", {})
    facts = [
        (key, one.get(key), two.get(key))
        for key in dict.fromkeys([*one, *two])
        if one.get(key) != two.get(key)
    ]
    return ReceiptDiff(first, facts)
