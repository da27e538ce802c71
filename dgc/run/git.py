"""The one way git is called: no configuration, attribute or variable of the user changes what it
answers. No torch.

What a user sets for looking at differences (colour, an external program, other prefixes, renames)
would make a patch that no git applies. What decides which repository may be read at all
(`safe.directory`) and which files are ignored stays the user's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_SECONDS = 120
_KEPT = ("GIT_CONFIG", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")
_FIXED_ENVIRONMENT = {
    "LC_ALL": "C",
    "LANGUAGE": "",
    "GIT_OPTIONAL_LOCKS": "0",  # reading must not rewrite the index of the checkout
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a commit means the same here as where nobody replaced it
}
_FIXED_CONFIGURATION = {
    "advice.detachedHead": "false",
    "color.ui": "false",
    "color.diff": "false",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "core.quotePath": "false",
    "core.untrackedCache": "false",
    "apply.whitespace": "nowarn",
    "apply.ignoreWhitespace": "false",
    "diff.suppressBlankEmpty": "false",
    "diff.wsErrorHighlight": "none",
    "status.submoduleSummary": "false",
}
# What every difference is asked with, whatever `diff.*` says; PATCH makes it one that every git
# applies.
_PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-relative",
    f"-O{os.devnull}",
)
LIST = ("diff", *_PLAIN, "--raw", "--no-abbrev", "-z")
PATCH = (
    *(
        "diff",
        *_PLAIN,
        "--binary",
        "--full-index",
        "--unified=3",
        "--inter-hunk-context=0",
        "--diff-algorithm=myers",
    ),
    *("--submodule=short", "--src-prefix=a/", "--dst-prefix=b/"),
)


_DAMAGED_INDEX = (
    "index file corrupt",
    "index file smaller",
    "bad index file",
    "bad signature 0x",
    "bad index version",
)


class GitError(Exception):
    """git is not there, took too long, or refused; the text is its last line."""


def run(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    data: bytes | None = None,
    config: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of git in `folder`; `config` goes before the user's. Raises GitError."""
    fixed = {**_FIXED_CONFIGURATION, **(config or {})}
    settings = [word for key, value in fixed.items() for word in ("-c", f"{key}={value}")]
    command = ["git", "-C", str(folder), "--no-pager", *settings, *arguments]
    try:
        done = subprocess.run(
            command,
            input=data or b"",
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=environment(env),
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"git {arguments[0]} did not end within {TIMEOUT_SECONDS} seconds"
        ) from error
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror})") from error
    if done.returncode:
        # by its own words where it says any: an exit code alone means nothing to a user
        raise GitError(_reason(done.stderr) or f"git {arguments[0]} ended with {done.returncode}")
    return done.stdout


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without the variables that point git elsewhere or change how it answers."""
    kept = {
        key: value
        for key, value in os.environ.items()
        # all of git's variables but those that say which repositories may be read
        if not key.startswith("GIT_") or key.startswith(_KEPT)
    }
    return {**kept, **_FIXED_ENVIRONMENT, **(extra or {})}


def _reason(stderr: bytes) -> str:
    """What git complained of: its first `fatal:` or `error:`,
    else its last line; never raw control characters.
    """
    # in one line, whatever a hook or a file name put there
    lines = [readable(line.strip()) for line in stderr.splitlines() if line.strip()]
    loud = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (loud or lines[-1:] or [""])[0] + _advice(lines)


def _advice(lines: Sequence[str]) -> str:
    """What to do, where git says that or it is known; else ""."""
    if any("dubious ownership" in line for line in lines):
        return "".join(f": `{line}`" for line in lines if line.startswith("git config"))
    if any(said in line for line in lines for said in _DAMAGED_INDEX):
        return (
            ": the index is damaged: remove .git/index, then `git reset` (files stay as they are)"
        )
    return ""


def text(folder: Path, *arguments: str) -> str:
    """The one line that git answers. Raises GitError."""
    return readable(run(folder, *arguments).removesuffix(b"\n"))


def no_filters(folder: Path) -> dict[str, str]:
    """The settings with which files are the bytes that git stores: no driver's program
    (`filter.lfs.smudge`) runs. Raises GitError.
    """
    listed = names(run(folder, "config", "--list", "--name-only", "-z"))
    drivers = {key.rpartition(".")[0] for key in listed if key.startswith("filter.")}
    # `-c` reads a key up to its first `=`, and so could not name such a driver
    return {
        f"{driver}.{key}": value
        for driver in sorted(drivers)
        if "=" not in driver
        for key, value in (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false"))
    }


def names(answer: bytes) -> list[str]:
    """The file names of a `-z` answer, as the file system spells them."""
    return [os.fsdecode(name) for name in answer.split(b"\0") if name]


def readable(name: bytes | str) -> str:
    """A name as text that can be written and shown:
    bytes that are no UTF-8 and control characters are escaped.
    """
    known = os.fsencode(name) if isinstance(name, str) else name
    shown = known.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def toplevel(folder: Path) -> Path | None:
    """Root of the checkout that holds `folder`; None where there is none.
    Raises GitError where git may not look.
    """
    try:
        answer = run(folder, "rev-parse", "--show-toplevel")
    except GitError as error:
        # three ways to say that no checkout is here (the last: no such folder)
        if any(
            said in str(error)
            for said in ("not a git repository", "must be run in a work tree", "cannot change")
        ):
            return None
        raise
    return Path(os.fsdecode(answer.removesuffix(b"\n")))


def has_commits(root: Path) -> bool:
    """Whether anything was committed where the checkout stands.
    Raises GitError where git may not look.
    """
    try:
        run(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError as error:
        if any(said in str(error) for said in ("ended with 1", "Needed a single revision")):
            return False
        raise
    return True


def exclude(paths: Sequence[str]) -> list[str]:
    """Pathspecs for everything but these files."""
    return ["--", ":(top)", *(f":(top,exclude,literal){path}" for path in paths)] if paths else []
