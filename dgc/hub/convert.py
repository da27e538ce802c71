"""From an inspected file of strangers to safetensors + JSON, once, in a process with limits. No
torch here; that process is `dgc.hub.sandbox`.

NAME.safetensors     the weights under our names
NAME.json            where they came from (file, digest, origin), what was stripped, the digest of
                     the weights
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, ExitCode, IntegrityError, UnsafeFileError
from dgc.hub import filetype
from dgc.hub.cache import now
from dgc.hub.scan import Inspection
from dgc.run.files import atomic_write, fsync_dir, sha256_of, temporary_name

SCHEMA_VERSION = 1
WALL_SECONDS = 300.0
_SOURCES = Path(__file__).resolve().parents[2]  # the folder in which the package `dgc` lies
_ERRORS: dict[int, type[DgcError]] = {
    int(ExitCode.UNSAFE): UnsafeFileError,
    int(ExitCode.INTEGRITY): IntegrityError,
}


@dataclass(frozen=True)
class Converted:
    """Weights in our format with their record."""

    weights: Path
    record: dict[str, Any]

    @property
    def stripped(self) -> list[str]:
        return list(self.record["stripped"])


def convert(
    inspected: Inspection,
    name: str,
    weights: Path,
    *,
    arguments: Mapping[str, Any] | None = None,
    origin: str = "",
    seconds: float = WALL_SECONDS,
) -> Converted:
    """Convert an inspected file of network `name` to `weights` (+ .json beside it).

    `arguments` are those of dgc.create_model(name, ...) for a network that is none of the released
    ones.

    Raises IntegrityError (4) for wrong keys, shapes or values, where reading takes more memory or
    time than the size justifies, and where the file is no longer the one that was inspected.
    """
    source = inspected.path
    # in the same folder: a rename is atomic within one file system only
    temporary = weights.with_name(temporary_name(weights.name))
    try:
        job = {
            "task": "convert",
            "file": str(source),
            "sha256": inspected.sha256,
            "name": name,
            "out": str(temporary),
            "arguments": dict(arguments or {}),
        }
        told = run_child(job, source, seconds)
        # What the child wrote is a file from outside as well: it has read one.
        filetype.read_header(temporary)
        record = _record(inspected, name, temporary, origin, told)
        _commit(temporary, weights, record)
    finally:
        temporary.unlink(missing_ok=True)
    return Converted(weights, record)


def _record(
    source: Inspection, name: str, weights: Path, origin: str, told: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": name,
        "source": {"file": source.path.name, "sha256": source.sha256, "origin": origin},
        "weights": {"sha256": sha256_of(weights), "bytes": weights.stat().st_size},
        "converted": now(),
        **told,
    }


def _commit(temporary: Path, weights: Path, record: Mapping[str, Any]) -> None:
    """Weights first, the record that names their digest second."""
    temporary.chmod(0o644)
    # renamed only when its bytes are on the disk; a folder's fsync alone says nothing of them
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, weights)
    fsync_dir(weights.parent)
    atomic_write(
        weights.with_suffix(".json"),
        (json.dumps(record, indent=2) + "\n").encode(),
        point="converted",
    )


def existing(weights: Path, source_sha256: str) -> Converted | None:
    """An earlier conversion of the same source, whole and unchanged;
    None means: convert (again).
    """
    # anything that is wrong with it means to convert again, which repairs it
    try:
        record = json.loads(weights.with_suffix(".json").read_bytes())
        fits = (
            record["schema_version"] == SCHEMA_VERSION
            and record["source"]["sha256"] == source_sha256
        )
        if fits and record["weights"]["sha256"] == sha256_of(weights):
            filetype.read_header(weights)
            return Converted(weights, record)
    except (OSError, ValueError, KeyError, TypeError, DgcError):
        pass
    return None


def run_child(job: Mapping[str, Any], subject: Path, seconds: float) -> dict[str, Any]:
    """One job in `dgc.hub.sandbox`; its error becomes ours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dgc.hub.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        # A group of its own, so that one kill ends it with whatever it may have started.
        start_new_session=True,
    )
    try:
        output, talk = process.communicate(json.dumps(job).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        raise IntegrityError(
            f"{subject}: reading it took more than {seconds:g} s; refused"
        ) from None
    finally:
        # also after an error of ours: a child that reads a stranger's file must not be left running
        _end(process)
    return _reply(subject, process.returncode, output, talk)


def _environment() -> dict[str, str]:
    """Our environment, with the package findable wherever the child starts;
    no GPU is needed to read a file.
    """
    # in front: the child must import this package, not one that is installed
    path = os.pathsep.join(filter(None, (str(_SOURCES), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        # Nor must a memory limit meet CUDA, which maps far more than it uses.
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _reply(subject: Path, code: int, output: bytes, talk: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(output)
    # no reply: the process was ended, by a limit or by what it read; its last words may say how
    except ValueError:
        last = (talk.decode("utf-8", "replace").strip().splitlines() or [""])[-1][:200]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise IntegrityError(
            f"{subject}: reading it ended the process that did ({how}) {last}".rstrip()
        ) from None
    if "error" in reply:
        raise _ERRORS.get(reply["error"], DgcError)(_about(subject, reply["message"]))
    return dict(reply["ok"])


def _about(subject: Path, message: str) -> str:
    # each error names its file once
    return message if subject.name in message else f"{subject}: {message}"
