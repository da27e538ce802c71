"""The documentation as pages (`make docs`): built without a warning, complete, found by a search, and
nothing of it is fetched from anywhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import dgc
import dgcctl
from tests.tui.browser import Browser
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="needs MkDocs Material"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), "")


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(target)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT, target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the pages; the sources are the same."""
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("dgc", "dgcctl"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("docs/int8.md", "[x](gone.md)", "gone.md"),
        ("README.md", "[x](docs/int8.md#no-such-part)", "no-such-part"),
        ("docs/api/run.md", "::: dgc.run.no_such_name", "dgc.run.no_such_name"),
    ],
)
def test_a_broken_link_ends_the_build(file: str, line: str, said: str, broken: Path) -> None:
    with (broken / file).open("a") as page:
        page.write(f"\n{line}\n")
    done = build(broken, broken / "site")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


class Fetched(HTMLParser):
    """What a page loads by itself: not what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("src") or (given.get("href") if tag == "link" else None)
        self.addresses += [address] if address else []


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    foreign = []
    for page in pages:
        if page.parent.name == "cifar10_jpeg_small" and page.name == "report.html":
            continue  # a report that a study kept as it was
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        foreign += [
            f"{page.name}: {address}"
            for address in parser.addresses
            if re.match(r"(https?:)?//", address)
        ]
    assert foreign == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", styles) == []


def test_every_guide_is_in_the_list_at_the_side() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)

    def leaves(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        nodes = node.values() if isinstance(node, dict) else node
        return [leaf for each in nodes for leaf in leaves(each)]  # type: ignore[attr-defined]

    shown = leaves(config["nav"])
    guides = [
        str(path.relative_to(ROOT / "docs"))
        for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "api").glob("*.md")]
    ]
    assert sorted(set(guides) - set(shown)) == []
    assert len(shown) == len(set(shown))


OLDER = {"set_method"}
PUBLIC = [
    *(f"dgc.{name}" for name in dgc.__all__ if name != "__version__" and name not in OLDER),
    *(f"dgcctl.{name}" for name in dgcctl.__all__),
    *("dgc.run.start", "dgc.run.ScriptRun.log", "dgc.hub.load_pretrained", "dgc.runtime.load"),
    *("dgc.errors.UsageError", "dgc.errors.OlderNameWarning", "dgc.PruningSchedule.step"),
]


def test_every_public_name_has_its_place(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    assert [name for name in PUBLIC if f'id="{name}"' not in pages] == []


def found(site: Path, words: str) -> list[str]:
    """Places that have all these words, in the index and by the rules that the pages search by."""
    index = json.loads((site / "search" / "search_index.json").read_text())
    # Python's re splits at an empty match too, as the browser's does
    separator = re.compile(index["config"]["separator"])

    def tokens(text: str) -> set[str]:
        return {word.lower() for word in separator.split(text) if word}

    wanted = tokens(words)
    return [
        entry["location"]
        for entry in index["docs"]
        if wanted <= tokens(re.sub(r"<[^>]+>", " ", f"{entry['title']} {entry['text']}"))
    ]


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("PruningSchedule", "api/networks.html#dgc.PruningSchedule"),
        ("pruning schedule", "api/networks.html#dgc.PruningSchedule"),
        ("run.start", "api/run.html#dgc.run.start"),
        ("random_erasing", "recipes.html#data"),
        ("DGCCTL_RUN_STATE", "data-out.html#when-a-run-has-ended"),
        ("tensorboard", "data-out.html#in-tensorboard-mlflow-weights-biases"),
        ("OlderNameWarning", "stability.html"),
    ],
)
def test_what_is_looked_for_is_found(words: str, place: str, site: Path) -> None:
    assert place in found(site, words)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium (or google-chrome) on the PATH")
@pytest.mark.parametrize("width", [1280, 390])
async def test_the_pages_search_in_a_browser_without_a_server(
    width: int, site: Path, tmp_path: Path
) -> None:
    async with Browser(CHROMIUM, tmp_path / "profile") as browser:
        facts = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        await browser.call("Emulation.setDeviceMetricsOverride", **facts)

        async def ask(expression: str) -> object:
            answer = await browser.call(
                "Runtime.evaluate", expression=expression, returnByValue=True
            )
            return answer["result"]["result"].get("value")

        await browser.open((site / "data-out.html").as_uri())
        while await ask("document.readyState") != "complete":
            pass
        assert await ask("document.documentElement.scrollWidth <= innerWidth")
        await ask("document.querySelector('[data-md-toggle=search]').click()")
        typed = "const box = document.querySelector('.md-search__input'); box.focus();"
        typed += " box.value = 'PruningSchedule';"
        typed += " box.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}))"
        await ask(typed)
        link = "document.querySelector('.md-search-result__link')?.href"
        while not (first := await ask(link)):
            pass
        assert "api/networks.html" in str(first)
