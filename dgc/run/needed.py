"""Which files of a checkout the running code needs: sources of its package, files of loaded
modules. No torch.

They come into the record before all others, and where one is left out, the record does not give the
code back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dgc.run import git
from dgc.run.file_kinds import is_code

_ENVIRONMENTS = frozenset(("site-packages", "dist-packages"))


@dataclass
class Needed:
    """The package (a folder of the checkout, None:
    no package is known) and the names of loaded files.
    """

    root: Path
    package: Path | None = None
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prefix = (
            f"{self.package.relative_to(self.root).as_posix()}/"
            if self.package is not None
            else None
        )
        self._loaded = frozenset(self.loaded)

    def covers(self, name: str) -> bool:
        """Whether the running code can need a file (or,
        as git lists those, a folder with a repository of its own).
        """
        if name in self._loaded:
            return True
        # a folder may be a repository of its own, which git names and does not look into
        return self.inside(name) and (
            is_code(name) or name.endswith("/") or (self.root / name).is_dir()
        )

    def inside(self, name: str) -> bool:
        return self._prefix is not None and name.startswith(self._prefix)

    def first(self, names: list[str]) -> list[str]:
        """The needed ones of these names, those of the package before those of other modules."""
        wanted = [name for name in names if self.covers(name)]
        # the package first: the number of copies is bounded, and it is what computes
        return sorted(wanted, key=lambda name: not self.inside(name))

    def not_tracked(self) -> Iterator[str]:
        """Needed files that git does not track, ignored ones too,
        and links that lead out of the checkout.
        """
        if self.package is not None:
            below = git.run(
                self.root, "ls-files", "--others", "-z", "--", f":(top,literal){self._prefix}"
            )
            yield from (
                name for name in git.names(below) if is_code(name) and "__pycache__" not in name
            )
            yield from self._links_out()
        if self.loaded:
            tracked = set(git.names(git.run(self.root, "ls-files", "-z")))
            yield from (name for name in self.loaded if name not in tracked)

    def _links_out(self) -> Iterator[str]:
        """Links whose content the commit does not hold, though git may track the link."""
        for folder, folders, files in os.walk(str(self.package)):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if path.is_symlink() and self._leads_out(path):
                    yield path.relative_to(self.root).as_posix()

    def _leads_out(self, link: Path) -> bool:
        if not (link.is_dir() or (link.is_file() and is_code(link.name))):
            return False
        # an absolute link means another file elsewhere; a relative one may still lead out
        return link.readlink().is_absolute() or not link.resolve().is_relative_to(
            self.root.resolve()
        )


def loaded_from(root: Path) -> list[str]:
    """The sources of this process's modules that lie in a checkout;
    what is installed in an environment is no part.
    """
    found: list[str] = []
    # a copy: imports in another thread change it
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        name = _below(root, file) if isinstance(file, str) else None
        if name is not None and is_code(name):
            found.append(name)
    return sorted(set(found))


def _below(root: Path, file: str) -> str | None:
    # by name and by where it really lies: a checkout may be reached through a link
    for path in (Path(os.path.abspath(file)), Path(os.path.realpath(file))):
        environment = not _ENVIRONMENTS.isdisjoint(path.parts) or _in_environment(root, path)
        if path.is_relative_to(root) and not environment:
            return path.relative_to(root).as_posix()
    return None


def _in_environment(root: Path, path: Path) -> bool:
    prefix = Path(sys.prefix)
    # an environment inside the checkout is no code of the project
    return prefix != root and prefix.is_relative_to(root) and path.is_relative_to(prefix)
