"""Which sources and flags compiled kernels were built from. No torch, and nothing is loaded: files
are read.

The library carries the digest of its sources and flags, so a digest can be had from either: from
the folder of the sources, or, where an installation ships none, from the library itself.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

PLACES = ("kernels/cpu", "native")  # in a package, of now and of releases before it was moved
LIBRARY = "_dgc_native*.so"
_COUNTED = (".h", ".cpp", ".cmake")
_WORDS = re.compile(rb"dgc kernels built from ([0-9a-z+-]{1,200}) by ([\x20-\x7e]{1,100})\0")


@dataclass(frozen=True)
class Built:
    """What a library says of itself: the digest of its sources and flags, and the compiler."""

    digest: str
    compiler: str

    def __str__(self) -> str:
        return f"{self.digest} by {self.compiler}"


def folder_of(package: Path) -> Path:
    """Where a package (the folder `dgc`) has its kernels:
    the library, and `src` with the sources.
    """
    there = [package / place for place in PLACES if (package / place).is_dir()]
    return there[0] if there else package / PLACES[0]


def library_of(package: Path) -> Path | None:
    """The compiled kernels that lie in a package (the folder `dgc`), if any do."""
    return next(iter(sorted(folder_of(package).glob(LIBRARY))), None)


def built_from(library: Path) -> Built | None:
    """What a library was built from (None:
    it does not say, as those built before it was written into them).
    """
    try:
        found = _WORDS.search(library.read_bytes())
    except OSError:
        return None
    return Built(found[1].decode(), found[2].decode()) if found else None


def sources_digest(package: Path) -> str | None:
    """The digest of the kernels' sources and flags in a package,
    as kernels.cmake counts it; None without sources.
    """
    folder = folder_of(package) / "src"
    files = [path for path in folder.rglob("*") if path.suffix in _COUNTED]
    if not files:
        return None
    # by name: the order in which a file system lists them must not count
    named = sorted((path.relative_to(folder).as_posix(), path) for path in files)
    # older sources: their flags stand in the project's file
    if not (folder / "kernels.cmake").exists():
        flags = package.parent / "CMakeLists.txt"
        named += [(flags.name, flags)] if flags.is_file() else []
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()} {name}\n" for name, path in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def kernels_digest(package: Path) -> str:
    """The digest of a package's kernels: that of the sources,
    else the library's; "none" where there is neither.
    """
    digest = sources_digest(package)
    if digest is None:
        library = library_of(package)
        built = built_from(library) if library else None
        digest = built.digest if built else None
    return digest or "none"
