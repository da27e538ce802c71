"""The compiled kernels that belong to restored sources: the installed ones, some built before, or
built now.

Kernels of other sources would compute other bits, and none at all would too; so they are found by
the digest of their sources and flags, which a library carries.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dgc
from dgc.kernels.sources import built_from, folder_of, library_of, sources_digest
from dgcctl.core import settings

FILE = "_dgc_native.so"
Say = Callable[[str], None]


@dataclass(frozen=True)
class FoundKernels:
    """A library and where it came from; or why there is none."""

    library: Path | None
    words: str


def put_into(tree: Path, say: Say) -> FoundKernels:
    """Lay the kernels of a tree's sources beside them, where that code looks for its own."""
    package = tree / "dgc"
    digest = sources_digest(package)
    if digest is None:
        return FoundKernels(None, "this code has no kernels")
    # from the nearest on: only who has none of them builds
    found = _installed(digest) or _built_before(digest) or _built_now(tree, digest, say)
    # a copy: the worktree is removed, and what the cache has stays
    if found.library is not None:
        shutil.copy(found.library, folder_of(package) / FILE)
    return found


def _installed(digest: str) -> FoundKernels | None:
    library = library_of(Path(dgc.__file__).resolve().parent)
    built = built_from(library) if library else None
    return FoundKernels(library, "the installed ones") if built and built.digest == digest else None


def _kept(digest: str) -> Path:
    """Where kernels built for a digest lie in the user's cache."""
    # by digest and machine: a cache folder may be shared between machines
    return settings.cache_dir() / "kernels" / f"{digest}-{platform.machine()}" / FILE


def _built_before(digest: str) -> FoundKernels | None:
    path = _kept(digest)
    return FoundKernels(path, f"built before, kept in {path.parent}") if path.is_file() else None


def _built_now(tree: Path, digest: str, say: Say) -> FoundKernels:
    lacking = _lacking_tool()
    if lacking:
        return FoundKernels(None, f"the installed kernels are of other sources, and {lacking}")
    say(
        "the installed kernels are of other sources: building those of this run's code (about a"
        " minute)"
    )
    target = _kept(digest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as folder:
            # built beside and renamed: another rerun sees a whole library or none
            os.replace(_build(tree, Path(folder)), target)
    except subprocess.CalledProcessError as error:
        return FoundKernels(None, f"they cannot be built: {_reason(error)}")
    except OSError as error:
        return FoundKernels(
            None,
            f"they cannot be built in {target.parent}: {(error.strerror or str(error)).lower()}",
        )
    return FoundKernels(target, f"built now, kept in {target.parent}")


def _lacking_tool() -> str:
    """What is missing to build them, and where it can be had."""
    if not shutil.which("cmake", path=_path()):
        return "there is no cmake to build them: `pip install cmake`"
    # looked for before the build, whose own words about it are a page
    if not any(shutil.which(name) for name in _compilers()):
        return "there is no C++ compiler to build them: install one, e.g. g++"
    return ""


def _compilers() -> list[str]:
    named = os.environ.get("CXX", "").split()
    return named[:1] or ["c++", "g++", "clang++"]


def _path() -> str:
    """PATH, after the folder of this interpreter's programs: `pip install cmake` puts it there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _build(tree: Path, folder: Path) -> Path:
    """Build a tree's kernels in a folder, as an installation does. Raises CalledProcessError."""
    environment = {**os.environ, "PATH": _path()}
    # cmake's own default is make
    if not shutil.which("make") and shutil.which("ninja", path=_path()):
        environment.setdefault("CMAKE_GENERATOR", "Ninja")
    for words in (
        ["cmake", "-S", str(tree), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", str(folder), "--parallel"],
    ):
        subprocess.run(
            words,
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    made = sorted(folder.glob("_dgc_native*"))
    if not made:
        raise OSError(0, "the build made no library")
    return made[0]


def _reason(error: subprocess.CalledProcessError) -> str:
    """The first line of a failed build that names an error."""
    lines = [
        line.strip() for line in f"{error.stderr}\n{error.stdout}".splitlines() if line.strip()
    ]
    # compilers say it in many lines; the first that names an error is where it began
    return next(
        (line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message"
    )
