"""A fresh clone of this checkout as it is now, in which `dvc` is called as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dgc.kernels import sources
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
_PARTS = (
    "dgc",
    "dgcctl",
    "recipes",
    "pipelines",
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    "pyproject.toml",
    "CMakeLists.txt",
)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.pyc")


class Project:
    """One clone. `env` has this interpreter's folder first on PATH, no network, one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DGCCTL_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).with_name("own_code"))]),
            "DVC_NO_ANALYTICS": "1",
            **{
                f"GIT_{who}_{what}": value
                for who in ("AUTHOR", "COMMITTER")
                for what, value in _WHO.items()
            },
        }
        for name in ("DGCCTL_RUNS_DIR", "DGCCTL_DATA_DIR"):
            self.env.pop(name, None)

    def call(self, *words: str, code: int = 0, timeout: float = GUARD) -> str:
        """Standard output and error of a command, which must end with `code`."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def dvc(self, *words: str, code: int = 0) -> str:
        return self.call("dvc", *words, code=code)

    def git(self, *words: str) -> str:
        return self.call("git", *words)

    def ran(self, *words: str) -> list[str]:
        """The stages that `dvc repro` really ran, in order."""
        said = self.dvc("repro", *words)
        return [
            line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")
        ]

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new))


_WHO = {"NAME": "tester", "EMAIL": "tester@example.com"}


def origin(folder: Path, edits: dict[str, tuple[str, str]] | None = None) -> Path:
    """A repository of what a clone holds: the files as they are now, with edits of the recipe,
    committed.
    """
    folder.mkdir(parents=True)
    for name in _PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    project = Project(folder)
    for name, (old, new) in (edits or {}).items():
        project.edit(name, old, new)
    project.git("init", "-q", "-b", "main")
    project.git("add", "-A")
    project.git("commit", "-qm", "as it is")
    return folder


def clone(source: Path, target: Path) -> Project:
    """A clone that runs its own code."""
    subprocess.run(["git", "clone", "-q", str(source), str(target)], check=True)
    project = Project(target)
    assert project.call("python", "-c", "import dgc; print(dgc.__file__)").startswith(str(target))
    return project


def add_kernels(project: Project) -> str:
    """Lay the compiled kernels beside the clone's sources, as an editable installation does; their
    instruction set.

    They are those of this checkout where it has them, which were built from the same sources;
    "none" where not.
    """
    library = sources.library_of(ROOT / "dgc")
    if library is None:
        return "none"
    built = sources.built_from(library)
    assert built is not None, "the kernels of this checkout are old: install it again"
    assert built.digest == sources.sources_digest(project.folder / "dgc"), (
        "install this checkout again"
    )
    shutil.copy(library, project.folder / "dgc" / "kernels" / "cpu" / library.name)
    return project.call(
        "python", "-c", "from dgc.kernels.cpu import library; print(library.in_use())"
    ).strip()
