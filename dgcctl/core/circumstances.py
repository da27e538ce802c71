"""What a rerun stands on besides code, recipe and data, held against the record before anything is trained."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dgc import provenance, records
from dgc.errors import DgcError
from dgcctl.core import restored
from dgcctl.core.facts import Facts

PACKAGES = ("torchvision", "numpy", "pillow")
NO_KERNELS = "none"


def uses_kernels(facts: Facts) -> bool:
    """Whether compiled kernels had a part in what a run computed."""
    on_cpu = str(facts.env.get("device", "")).startswith("cpu")
    return on_cpu and facts.env.get("kernels", NO_KERNELS) != NO_KERNELS


def examine(tree: Path, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """What the code of `tree` finds on this machine: {torch: ..., native: ...}, {} where it cannot say."""
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as place:
        answer = Path(place) / "answer.json"
        words = [sys.executable, "-P", str(restored.__file__), str(tree), str(folder)]
        command = [*words, "dgc.doctor", "--json", str(answer)]
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        try:
            return records.read_json(answer)
        except (OSError, DgcError):
            return {}


def level(facts: Facts, found: Mapping[str, Any]) -> str | None:
    """The instruction set of the record, where it can be had here; a run without kernels has none to ask for."""
    recorded = facts.env.get("kernels", NO_KERNELS)
    return str(recorded) if recorded in found.get("native", {}).get("supported", ()) else None


def changes(facts: Facts, found: Mapping[str, Any], why_no_kernels: str) -> list[str]:
    """Each difference that can change bits, in words. What the record does not name is not held against it."""
    return [*_kernels(facts, found, why_no_kernels), *_torch(facts, found), *_versions(facts)]


def _kernels(facts: Facts, found: Mapping[str, Any], why: str) -> Iterator[str]:
    if not uses_kernels(facts) or level(facts, found) is not None:
        return
    native = found.get("native", {})
    now, reason = NO_KERNELS, why or native.get("why_not")
    if native.get("available"):
        now, reason = native.get("isa"), f"this machine has {', '.join(native.get('supported', ()))}"
    yield f"kernels was {facts.env['kernels']}, is {now} ({reason})"


def _torch(facts: Facts, found: Mapping[str, Any]) -> Iterator[str]:
    before, now = facts.env.get("torch", {}), found.get("torch", {})
    for key, there in (("version", "torch"), ("cpu_capability", "cpu_capability")):
        if key in before and there in now and before[key] != now[there]:
            yield f"{there} was {before[key]}, is {now[there]}"
    device = str(facts.env.get("device", ""))
    if device.startswith("cpu (") and device != (here := f"cpu ({provenance.cpu_name()})"):
        yield f"device was {device}, is {here}"


def _versions(facts: Facts) -> Iterator[str]:
    before, now = facts.env.get("packages", {}), provenance.packages()
    for name in PACKAGES:
        if name in before and before[name] != now.get(name):
            yield f"{name} was {before[name]}, is {now.get(name, 'not installed')}"
