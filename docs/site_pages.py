"""A hook of MkDocs (mkdocs.yml): the pages of the repository that lie outside docs/ are pages of
the site too, and links between all of them lead to the right place.

Every page is read as it lies in the repository, where its links must be right for whoever reads it
there; on the site they are turned. README.md is the first page.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
HOME = "README.md"
# `](target)` of a link or a picture, without what is looked up elsewhere
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside docs/, and the pages that those link to."""
    waiting = [HOME, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    for name in waiting:
        if not name.startswith("docs/"):
            data = (ROOT / name).read_bytes()
            content = data.decode() if name.endswith(".md") else data
            files.append(File.generated(config, site_place(name), content=content))
        for target in linked(name) if name.endswith(".md") else ():
            if target not in seen and (ROOT / target).is_file():
                seen.add(target)
                if not target.startswith("docs/"):
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are on the site."""
    name = in_repository(page.file.src_uri)
    parts = _FENCE.split(markdown)
    turned = [part if part.startswith("```") else _turn(part, name) for part in parts]
    return "".join(turned)


def _turn(text: str, name: str) -> str:
    here = posixpath.dirname(site_place(name))

    def turn(match: re.Match[str]) -> str:
        target = site_place(_resolved(name, match[1]))
        return f"]({posixpath.relpath(target, here or '.')}{match[2] or ''})"

    return _LINK.sub(turn, text)


def linked(name: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for part in _FENCE.split(text):
        if not part.startswith("```"):
            yield from (_resolved(name, match[1]) for match in _LINK.finditer(part))


def _resolved(name: str, target: str) -> str:
    found = os.path.normpath(posixpath.join(posixpath.dirname(name), target))
    # a folder's first page stands for it
    pages = (f"{found}/{page}" for page in ("README.md", "PLAN.md"))
    return next((page for page in pages if (ROOT / page).is_file()), found)


def site_place(name: str) -> str:
    """Where a file of the repository stands on the site."""
    if name == HOME:
        return "index.md"
    return name.removeprefix("docs/")


def in_repository(src_uri: str) -> str:
    """The file of the repository that a page of the site is made of."""
    if src_uri == "index.md":
        return HOME
    return f"docs/{src_uri}" if (ROOT / "docs" / src_uri).is_file() else src_uri
