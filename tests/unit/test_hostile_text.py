"""Whatever stands in a run's files is shown, never obeyed: by no terminal, no page, no spreadsheet,
no LaTeX.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgc.run.events import EventKind, EventWriter
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import read_status, write_status
from dgcctl.cli import main
from tests.unit.run_factory import make_run

FIRST, SECOND = "20260101T000000Z-demo-aaaaaa", "20260102T000000Z-demo-bbbbbb"
WORST = (
    '\x1b]0;owned\x07 \x1b[31m\x9b2J\u202e\u200b\x7f\r\x08[red]x[/red] <script>alert(1)</script>"'
    " onload='a' & | `b` =cmd|'/C calc'!A0 \\input{x} $\\frac$ %d {0} \u20ac \udce9"
)
PRINTING = (
    ("runs", "ls"),
    ("runs", "ls", "--csv"),
    ("runs", "ls", "--md"),
    ("runs", "ls", "--latex"),
    ("runs", "show", FIRST),
    ("runs", "tail", FIRST),
    ("runs", "tail", FIRST, "--log"),
    ("runs", "diff", FIRST, SECOND, "--patch"),
    ("runs", "compare", FIRST, SECOND, "--over", "seed"),
    ("runs", "compare", FIRST, SECOND, "--md"),
    ("runs", "verify", FIRST, "--quick"),
    ("sweep", "ls"),
    ("sweep", "show"),
    ("recipes", "show", "hostile.yaml"),
    ("recipes", "show", "hostile.yaml", "--why"),
    ("recipes", "validate", "hostile.yaml", "bad.yaml"),
    ("recipes", "diff", "hostile.yaml", "demo"),
)
IN_JSON = (
    ("runs", "show", FIRST, "--json"),
    ("runs", "ls", "--json"),
    ("runs", "tail", FIRST, "--json"),
)


def run_command(*words: str) -> str:
    """Everything that a command prints, without colour."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        main.main([*words, "--no-color"])
    return said.getvalue()


def plant(folder: Path, text: str) -> None:
    """Two runs, a sweep and two recipes with `text` wherever a text can stand."""
    # half a surrogate cannot stand in JSON or YAML
    plain = text.encode("utf-8", "replace").decode()
    for name in (FIRST, SECOND):
        run = make_run(folder / "runs" / name, f"seed={len(name)}")
        status = read_status(run)
        status.reason = status.note = plain
        write_status(run, status)
        log = EventWriter(run)
        log.append(EventKind.ALERT, level="warning", text=plain)
        log.close()
        run.log.write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")
        write_json(run.verdict, {"verdicts": [verdict(plain)]})
        write_json(run.env, {"cpu": plain, "python": plain, "platform": name + plain})
        write_json(
            run.git,
            {"commit": plain, "branch": plain, "patch_sha256": None, "untracked": {plain: plain}},
        )
        write_json(run.data, {**read_json(run.data), "name": plain, "classes": [plain, name]})
        write_json(run.gates / "epoch-0000.json", {"epoch": 0, "step": 6, "layers": [layer(plain)]})
        write_json(run.model, {**read_json(run.model), "name": plain, "layers": [layer(plain)]})
    trial = {"index": 0, "overrides": [plain], "digest": "d", "run": FIRST}
    plan = {"id": plain, "recipe": plain, "axes": [plain], "created": 1.0, "trials": [trial]}
    write_json(folder / "runs" / "sweeps" / "one" / "plan.json", plan)
    recipe = (folder / "runs" / FIRST / "recipe.yaml").read_text()
    quoted = json.dumps(plain)
    (folder / "hostile.yaml").write_text(
        re.sub(r"(?m)^title: .*$", lambda _: f"title: {quoted}", recipe)
    )
    (folder / "bad.yaml").write_text(recipe + f"{quoted}: 1\n")


def verdict(text: str) -> dict[str, object]:
    return {
        "metric": text,
        "expected": 1.0,
        "tolerance": 0.5,
        "value": 2.0,
        "passed": False,
        "source": text,
    }


def layer(text: str) -> dict[str, object]:
    head = {"active_share": 0.5, "entropy": 0.5}
    macs = {
        f"{kind}{end}": 10 for kind in ("dense", "promised", "executed") for end in ("", "_macs")
    }
    return {"name": text, "in_channels": 4, "heads": [head], **macs}


def raw(text: str) -> set[str]:
    """Characters that a terminal would obey, or that hide what stands there."""
    return {
        letter
        for letter in text
        if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


@contextlib.contextmanager
def planted(text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for folder in ("runs/sweeps/one", f"runs/{FIRST}/gates", f"runs/{SECOND}/gates"):
            Path(folder).mkdir(parents=True)
        plant(Path(name), text)
        yield Path(name)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "DGCCTL_VERBOSITY", "DGCCTL_RUNS_DIR"):
        monkeypatch.setenv(name, "")


HOSTILE = st.text(
    st.sampled_from(
        "a [/]<>&\"'|=+-@\\$%{}^~#_`*\n\r\t\0\x1b\x07\x7f\x85\x9b\u202e\u200b\ufeff\u2028é\U000e0041"
    )
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(HOSTILE)
def test_nothing_from_a_run_reaches_a_terminal_raw(text: str) -> None:
    with planted(text):
        for words in (*PRINTING, *IN_JSON):
            assert not raw(run_command(*words)), words


def test_the_worst_text_reaches_nothing_raw_and_json_loses_nothing() -> None:
    with planted(WORST):
        for words in PRINTING:
            said = run_command(*words)
            assert not raw(said), words
            assert "fault of dgcctl itself" not in said, words
        plain = WORST.encode("utf-8", "replace").decode()
        for words in IN_JSON[:2]:
            said = run_command(*words)
            assert not raw(said), words
            value = orjson.loads(said)
            row = value["run"] if "run" in value else value["runs"][0]
            assert row["reason"] == plain
        alert = [json.loads(line) for line in run_command(*IN_JSON[2]).splitlines()][-1]
        assert alert["text"] == plain


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_of_csv_is_a_formula(text: str) -> None:
    with planted(text):
        first, *_ = csv.DictReader(io.StringIO(run_command("runs", "ls", "--csv")))
        assert first["reason"].startswith("'")
        assert not first["top1_error"].startswith("'")


def test_markdown_cells_hold_no_markup_and_latex_no_command() -> None:
    with planted("a|b <b>x</b> [l](javascript:x) `c` \\input{f} ^ ~ &lt;"):
        said = run_command("runs", "ls", "--md").splitlines()[2]
        assert (
            "a\\|b &lt;b&gt;x&lt;/b&gt; \\[l\\](javascript:x) \\`c\\` \\\\input{f} ^ ~ &amp;lt;"
            in said
        )
        said = run_command("runs", "ls", "--latex").splitlines()[4]
        assert r"\textbackslash{}input\{f\} \textasciicircum{} \textasciitilde{} \&lt;" in said


class Page(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_report_takes_no_markup_from_a_record() -> None:
    """Pictures included: their words are text of SVG elements."""
    with planted(WORST) as folder:
        said = run_command("report", FIRST, SECOND, "-o", "page.html")
        assert said.strip() == "page.html", said
        text = (folder / "page.html").read_text()
        page = Page()
        page.feed(text)
        assert "script" not in page.tags
        assert not {name for name in page.attributes if name.startswith("on")}
        assert not raw(text)
        assert "&lt;script&gt;" in text


def test_a_run_dir_is_left_as_it_was() -> None:
    with planted(WORST) as folder:
        run = RunDir(folder / "runs" / FIRST)
        before = run.log.read_bytes()
        run_command("runs", "tail", FIRST, "--log")
        assert run.log.read_bytes() == before
