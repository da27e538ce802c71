"""What a rerun stands on besides code, recipe and data, held against the record before anything is
trained.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dgc.errors import DgcError
from dgc.kernels.sources import Built
from dgc.run import provenance, trusted_code
from dgc.run.files import file_digest, read_json
from dgcctl.core.repro import run_in_tree
from dgcctl.core.runs.record import RunRecord

PACKAGES = ("torchvision", "numpy", "pillow")
NO_KERNELS = "none"
# Program and trainer (with which all that a training needs is imported): of now, and of releases
# before programs had a folder.
NOW, BEFORE = ("dgc.jobs.doctor", "dgc.train.main"), ("dgc.doctor", "dgc.train.entry")


def uses_kernels(facts: RunRecord) -> bool:
    """Whether compiled kernels had a part in what a run computed."""
    # on a GPU the C++ kernels compute nothing, whatever they are
    on_cpu = str(facts.env.get("device", "")).startswith("cpu")
    return on_cpu and facts.env.get("kernels", NO_KERNELS) != NO_KERNELS


def examine(tree: Path, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """What the code of `tree` finds on this machine: {torch:
    ..., native: ...}, or {why: ...} where it cannot say.

    Raises CannotImportError where the trainer of that code cannot be imported.
    """
    # by a file that older code does not have: nothing of that code is imported to find out
    doctor, trainer = NOW if (tree / "dgc" / "train" / "main.py").exists() else BEFORE
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as place:
        answer = Path(place) / "answer.json"
        words = [
            sys.executable,
            # -P: the folder of the boot file must not be searched for modules
            "-P",
            str(run_in_tree.__file__),
            str(tree),
            str(folder),
            "--import",
            trainer,
        ]
        command = [*words, doctor, "--json", str(answer)]
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
        )
        last = next(
            (line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()),
            "it said nothing",
        )
        if done.returncode and last.startswith(run_in_tree.CANNOT_IMPORT):
            raise CannotImportError(last.removeprefix(run_in_tree.CANNOT_IMPORT))
        # older code answers nothing, or dies: the reason is what it said last
        try:
            return read_json(answer)
        except (OSError, DgcError):
            return {"why": f"that code cannot say what it uses: {last}"}


class CannotImportError(DgcError):
    """The text is the place of the fault and what it is."""


def level(facts: RunRecord, found: Mapping[str, Any]) -> str | None:
    """What DGC_NATIVE_ISA should say so that the record's kernels,
    or none, are used; None: it cannot be had here.
    """
    recorded, native = facts.env.get("kernels"), found.get("native", {})
    supported = native.get("supported", ())
    if recorded == NO_KERNELS and "machine_features" in native:  # older code does not know the word
        return NO_KERNELS
    # its name on arm64 before it had its own
    if recorded == "baseline" and list(supported) == ["neon"]:
        return "neon"
    return str(recorded) if recorded in supported else None


def changes(
    facts: RunRecord, found: Mapping[str, Any], why_no_kernels: str, built: Built | None = None
) -> list[str]:
    """Each difference that can change bits, in words.
    What the record does not name is not held against it.

    `built` is what the kernels that were found say of themselves.
    """
    return [
        *_kernels(facts, found, why_no_kernels),
        *_built(facts, built),
        *_torch(facts, found),
        *_versions(facts),
        *trusted_code.changed_files(facts.own_code, facts.run.own_code_copies),
        *_starting_weights(facts),
    ]


def _starting_weights(facts: RunRecord) -> Iterator[str]:
    # a record is data: what is no mapping says nothing
    told = facts.model.get("init")
    if not isinstance(told, Mapping):
        return
    found = file_digest(Path(str(told.get("file"))))
    if found != told.get("sha256"):
        yield f"model.init was {str(told.get('sha256'))[:12]}, is {found[:12]} ({told.get('file')})"


def _kernels(facts: RunRecord, found: Mapping[str, Any], why: str) -> Iterator[str]:
    native = found.get("native", {})
    on_gpu = not str(facts.env.get("device", "")).startswith("cpu")
    without = facts.env.get("kernels", NO_KERNELS) == NO_KERNELS and not native.get("available")
    # nothing was recorded, or the record can be met: then there is no difference to tell
    if on_gpu or "kernels" not in facts.env or without or level(facts, found) is not None:
        return
    now, reason = (
        NO_KERNELS,
        why or native.get("why_not") or found.get("why") or "that code does not say why",
    )
    if native.get("available"):
        supported = ", ".join(native.get("supported", ())) or "others"
        now, reason = native.get("isa") or "unknown", f"this machine has {supported}"
    yield f"kernels was {facts.env['kernels']}, is {now} ({reason})"


def _built(facts: RunRecord, built: Built | None) -> Iterator[str]:
    recorded = facts.env.get("kernels_built_from")
    if uses_kernels(facts) and recorded and built and recorded != str(built):
        yield f"kernels were built from {recorded}, now from {built}"


def _torch(facts: RunRecord, found: Mapping[str, Any]) -> Iterator[str]:
    before, now = facts.env.get("torch", {}), found.get("torch", {})
    for key, there in (("version", "torch"), ("cpu_capability", "cpu_capability")):
        if key in before and there in now and before[key] != now[there]:
            yield f"{there} was {before[key]}, is {now[there]}"
    device = str(facts.env.get("device", ""))
    if device.startswith("cpu (") and device != (here := f"cpu ({provenance.cpu_name()})"):
        yield f"device was {device}, is {here}"


def _versions(facts: RunRecord) -> Iterator[str]:
    before, now = facts.env.get("packages", {}), provenance.packages()
    # what was not recorded is not held against what is here
    for name in PACKAGES:
        if name in before and before[name] != now.get(name):
            yield f"{name} was {before[name]}, is {now.get(name) or 'not installed'}"
