"""The process that touches foreign weights: `python -m dgc.hub.sandbox` with a job as JSON on
stdin, a reply on stdout.

Its caller, `dgc.hub.convert`, has inspected the file. The process imports torch, limits its own
memory and time, makes sure by the digest that the bytes are those that were inspected, and only
then lets torch read them, weights only. It answers {"ok": ...} or {"error": exit code, "message":
one line} and dies.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, ExitCode, IntegrityError, UnsafeFileError
from dgc.run.files import sha256_of
from dgc.talk import run_program

CPU_SECONDS = 120
_HEADROOM = 512 << 20
Reply = dict[str, Any]
_RECORD = "dgcctl"  # of our own exports, see dgc.hub.card


def main() -> int:
    """Do one job. Nothing but the reply may come out on stdout."""
    # Whatever torch or a warning prints goes to stderr from here on: stdout is the reply and
    # nothing else, for the caller reads it as JSON.
    reply_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        reply: Reply = {"ok": _run(json.load(sys.stdin))}
    except DgcError as error:
        reply = {"error": int(error.exit_code), "message": " ".join(str(error).splitlines())}
    except MemoryError:
        reply = {
            "error": int(ExitCode.INTEGRITY),
            "message": "needs more memory than its size justifies; refused",
        }
    reply_to.write(json.dumps(reply))
    reply_to.close()
    return int(reply.get("error", 0))


def _run(job: Mapping[str, Any]) -> Reply:
    jobs: dict[str, Callable[..., Reply]] = {"convert": convert, "released": write_released}
    # by name from a fixed table: a job is data
    return jobs[job["task"]](**{key: value for key, value in job.items() if key != "task"})


def convert(file: str, sha256: str, name: str, out: str, arguments: Mapping[str, Any]) -> Reply:
    """Read the released checkpoint `file` of network `name` (with `arguments`)
    and write it as safetensors to `out`.

    The reply is that of `read_foreign`. Raises what that raises.
    """
    import torch

    # here and not above: what the caller imports of this file must not load torch
    from dgc.models import create_model

    path = Path(file)
    # one thread needs less memory, and the limit counts what threads reserve
    torch.set_num_threads(1)
    limit_process(path.stat().st_size)
    # The inspection is of the bytes, not of the name: whoever could put another file in its place
    # since then would get it past the list of what a pickle may do.
    if sha256_of(path) != sha256:
        raise IntegrityError(f"{path}: was changed after it was inspected; refused")
    ours, reply = read_foreign(path, create_model(name, **arguments), name)
    _save(ours, out, name)
    return reply


def read_foreign(path: Path, model: Any, name: str) -> tuple[dict[str, Any], Reply]:
    """Weights of a released file under our names, and a reply that holds `stripped` (what was left
    behind, in words), `facts` (epoch, best_prec1) and `tensors`.

    Raises IntegrityError for keys, shapes, precisions or values that do not fit `model` (the first
    five named), UnsafeFileError where torch refuses the file.
    """
    from dgc.models.released import from_released

    content = _read(path)
    # older files are a bare state dict
    state = content.get("state_dict", content)
    tensors = _only_tensors(path, state)
    try:
        ours = from_released(tensors, model)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {name}: {error}") from error
    return ours, {"tensors": len(tensors), **_leftovers(content, state)}


def _read(path: Path) -> dict[str, Any]:
    """torch.load, weights only, on the CPU. There is no second try with anything less strict."""
    import torch

    try:
        # weights_only: torch's own list of what a pickle may do, after ours
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(f"refused: {path}: {_first_line(error)}") from error
    # what says already what it is goes through; all else is a file that torch cannot read
    except (MemoryError, DgcError):
        raise
    except Exception as error:
        raise IntegrityError(f"{path}: torch cannot read it ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise IntegrityError(
            f"{path}: holds a {type(content).__name__}, not a dict with a state_dict"
        )
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _only_tensors(path: Path, state: Any) -> dict[str, Any]:
    import torch

    if not isinstance(state, dict) or not state:
        raise IntegrityError(f"{path}: holds no state_dict of tensors")
    odd = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise IntegrityError(
            f"{path}: {len(odd)} entries of its state_dict are no tensors ({', '.join(odd[:5])})"
        )
    return dict(state)


def _save(tensors: Mapping[str, Any], out: str, name: str) -> None:
    from safetensors.torch import save_file

    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, out, metadata={"model": name}
    )


def _leftovers(content: dict[str, Any], state: dict[str, Any]) -> Reply:
    """What was stripped, in words, and the plain facts
    that are kept in the JSON beside the weights.
    """
    prefixed = sum(key.startswith("module.") for key in state)
    stripped = [f"the prefix module. of {prefixed} keys"] if prefixed else []
    facts: dict[str, Any] = {}
    # a bare state dict has nothing beside its tensors
    for key, value in content.items() if state is not content else []:
        if key == "state_dict":
            continue
        # our own record is long; of strangers only short texts are kept
        plain = value if key == _RECORD and isinstance(value, str) else _plain(value)
        if plain is None:
            stripped.append(f"{key} ({_size_words(value)})")
        else:
            facts[str(key)] = plain
            shown = "our own record" if key == _RECORD else plain
            stripped.append(f"{key} = {shown}" + (" (a tensor)" if hasattr(value, "dim") else ""))
    return {"stripped": stripped, "facts": facts}


def _plain(value: Any) -> Any:
    """A number or a short text; a tensor of one element counts as its number."""
    if hasattr(value, "dim") and value.numel() == 1:
        value = value.item()
    return (
        value
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 200)
        else None
    )


def _size_words(value: Any) -> str:
    count = _tensors_in(value)
    return f"{count} tensors" if count else type(value).__name__


def _tensors_in(value: Any, depth: int = 0) -> int:
    if hasattr(value, "dim"):
        return 1
    # bounded: a list may hold itself
    if depth > 4 or not isinstance(value, dict | list | tuple):
        return 0
    return sum(
        _tensors_in(item, depth + 1)
        for item in (value.values() if isinstance(value, dict) else value)
    )


def write_released(file: str, out: str, container: str, facts: Mapping[str, Any]) -> Reply:
    """Write our safetensors `file` the way the authors' code saves and loads:
    per-head keys, `module.`, torch.save.
    """
    import torch
    from safetensors.torch import load_file

    from dgc.models.released import to_released

    theirs = {f"module.{key}": value.clone() for key, value in to_released(load_file(file)).items()}
    content = {**facts, "state_dict": theirs}
    torch.save(content, out, _use_new_zipfile_serialization=container == "zip")
    return {"tensors": len(theirs)}


def limit_process(file_bytes: int) -> None:
    """Memory: what is in use, 8 times the file, and 512 MiB.
    CPU: 120 s. Files written: 4 times the file and 64 MiB.

    Called after torch is imported, whose libraries alone may map gigabytes.
    """
    # The limit is on address space, and what torch has mapped by now counts in it.
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, in_use + 8 * file_bytes + _HEADROOM)
    _lower(resource.RLIMIT_CPU, CPU_SECONDS)
    # what is written is about as large as what was read
    _lower(resource.RLIMIT_FSIZE, 4 * file_bytes + (64 << 20))
    # no core dump: it would write a stranger's bytes to the disk
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    # never above what the system allows: raising it would fail
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    run_program(main)
