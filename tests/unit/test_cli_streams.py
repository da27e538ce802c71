"""Closed, narrow and broken streams; Ctrl-C from the first moment; picture, archive and key that
cannot be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from dgc.errors import InterruptedRunError, TerminatedError, UsageError
from dgc.run import library_warnings, oom
from dgc.run.files import as_utf8, read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.cli import eval as evaluation
from dgcctl.cli import main
from dgcctl.core.compare.seeds import compare
from dgcctl.core.launch import launcher
from dgcctl.core.repro import run_archive
from dgcctl.core.runs import find
from dgcctl.core.runs.record import read_record
from dgcctl.core.sweep import plan as sweeps
from tests.unit.run_factory import make_run

ROOT = Path(__file__).parents[2]
DGCCTL = (sys.executable, "-m", "dgcctl")


def dgcctl(*words: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run([*DGCCTL, *words], capture_output=True, env=env, check=False, **how)  # type: ignore[call-overload]


def test_a_narrow_encoding_gets_letters_that_it_has() -> None:
    done = dgcctl("recipes", "show", "demo", "--why", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"22 +- 3.5 %" in done.stdout


def test_json_in_a_narrow_encoding_loses_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "20260101T000000Z-demo-aaaaaa")
    status = read_status(run)
    status.reason = "größe \U0001f600"
    write_status(run, status)
    words = ("runs", "show", str(run.path), "--json")
    done = dgcctl(*words, env={"PYTHONIOENCODING": "ascii"})
    assert b"gr\\u00f6\\u00dfe \\ud83d\\ude00" in done.stdout


def test_a_reader_that_has_gone_ends_quietly() -> None:
    command = f"{' '.join(DGCCTL)} recipes ls --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.stdout, done.stderr) == ("{\n0\n", "")


def test_closed_streams_are_no_error_and_give_their_numbers_to_no_file() -> None:
    command = f"{' '.join(DGCCTL)} recipes ls >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, check=False).returncode == 0


def test_ctrl_c_is_heard_where_it_was_inherited_as_ignored(tmp_path: Path) -> None:
    """As in the background of a script; sent when the first module of the program is being loaded."""
    code = (
        "import os, signal, sys\nassert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\nclass"
        " Now:\n    def find_spec(self, name, *rest):\n        if name == sys.argv[1]:"
        " os.kill(os.getpid(), signal.SIGINT)\nsys.meta_path.insert(0, Now())\nfrom dgcctl.boot"
        " import run\nsys.argv[1:] = ['runs', 'ls'] if sys.argv[1] != 'dgcctl.cli.train' else"
        " ['train', 'demo']\nrun()\n"
    ).replace("name == sys.argv[1]", "name == MOMENT")
    for moment in ("dgcctl.cli._ui.streams", "typer", "dgcctl.cli.main", "dgcctl.cli.runs"):
        script = f"MOMENT = {moment!r}\n" + code.replace(
            "sys.argv[1] != 'dgcctl.cli.train'", "True"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (
            130,
            b"",
            b"error: interrupted\n",
        ), moment
    assert list(tmp_path.iterdir()) == []


# --- signals for a training -----------------------------------------------------------------------


class Fake:
    """A process that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.ended = False

    def ask(self, number: int) -> None:
        self.told.append(number)

    def end_now(self) -> None:
        self.ended = True


@pytest.fixture
def queued(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20260101T000000Z-demo-aaaaaa")
    run.path.mkdir()
    write_status(run, Status(state=State.QUEUED))
    return run


def test_ctrl_c_before_a_training_has_begun_gives_it_up(queued: RunDir) -> None:
    heard, process = launcher.SignalRelay(), Fake()
    heard.hear(signal.SIGINT)
    heard.attach(process, queued)  # type: ignore[arg-type]
    assert (process.told, process.ended) == ([], True)
    with pytest.raises(
        InterruptedRunError, match=r"^interrupted before the training began: nothing was changed$"
    ):
        heard.raise_if_given_up()


def test_a_request_to_save_waits_until_the_run_is_taken_up(queued: RunDir) -> None:
    heard, process = launcher.SignalRelay(), Fake()
    heard.attach(process, queued)  # type: ignore[arg-type]
    heard.hear(signal.SIGTERM)
    assert (process.told, process.ended) == ([], False)
    write_status(queued, Status(state=State.RUNNING))  # this process, which lives
    heard.deliver()
    assert process.told == [signal.SIGTERM]
    heard.raise_if_given_up()


def test_a_signal_before_there_is_a_process_starts_none() -> None:
    heard = launcher.SignalRelay()
    heard.hear(signal.SIGTERM)
    with pytest.raises(TerminatedError):
        heard.raise_if_given_up()


def test_half_a_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launcher.provenance, "record_code", full)
    with pytest.raises(OSError, match="No space left"):
        launcher.create(tmp_path, "demo", "name: demo\n", {})
    assert list(tmp_path.iterdir()) == []


# --- folders and files ----------------------------------------------------------------------------


def test_a_damaged_plan_hides_no_other_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("a", "{"), ("b", '{"schema_version": 1, "trials": []}')):
        (tmp_path / sweeps.FOLDER / name).mkdir(parents=True)
        (tmp_path / sweeps.FOLDER / name / "plan.json").write_text(text)
    whole = {"id": "c", "recipe": "demo", "axes": [], "created": 1.0, "trials": []}
    (tmp_path / sweeps.FOLDER / "c").mkdir()
    write_json(tmp_path / sweeps.FOLDER / "c" / "plan.json", whole)
    assert main.main(["sweep", "ls", "--runs-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].startswith("c ")
    assert len([line for line in said.err.splitlines() if line.startswith("warning: ")]) == 2


def test_latest_is_a_run_that_may_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("20260101T000000Z-demo-aaaaaa", "20260102T000000Z-demo-bbbbbb")
    first, second = (make_run(tmp_path / name) for name in names)
    monkeypatch.setattr(find, "is_closed", lambda run: run.id == second.id)
    assert find.find_run("latest", tmp_path) == first


def test_a_run_is_exported_as_zip_and_as_nothing_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "20260101T000000Z-demo-aaaaaa")
    names = run_archive.export(run, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{run.id}/{name}" for name in (*names, "SHA256SUMS")]
    for name in ("x.rar", "x.tar.xz", "x.7z"):
        with pytest.raises(
            UsageError, match=r"archives are written as \.tar\.gz, \.tgz, \.tar, \.zip"
        ):
            run_archive.export(run, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_an_unknown_key_to_average_over_is_refused(tmp_path: Path) -> None:
    facts = read_record(make_run(tmp_path / "20260101T000000Z-demo-aaaaaa"))
    with pytest.raises(
        UsageError, match=r"^--over sed: no such recipe key \(did you mean seed\?\)$"
    ):
        compare([facts], over=["sed"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere/x.png", r"there is no folder .*nowhere: make it first$"),
        ("x.txt", r"should end with one of \.png, "),
        ("folder.png", r"is a folder: name a file in it$"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, name: str, line: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=line):
        evaluation._check_plot(tmp_path / name)


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--out"),
        ("fingerprint", "-o"),
        ("data", "verify", "fashion_mnist", "--write-quarantine"),
        ("eval", "--pretrained", "cifar10_dydensenet86_h4", "--plot"),
    ],
)
def test_what_works_for_minutes_looks_first_where_it_will_write(
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(subprocess, "Popen", started)
    assert main.main([*words, str(tmp_path / "nowhere" / "x.png")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}: make it first" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_can_be_recorded(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"caf\udce9": ["\udcff", "é", 1]})
    assert read_json(tmp_path / "x.json")["caf\\xe9"] == ["\\xff", "é", 1]
    assert as_utf8("\ud83d") == "\\ud83d"


def test_memory_is_blamed_where_it_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events").write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(oom, "_COUNTERS", (str(tmp_path / "absent"), str(tmp_path / "events")))
    assert oom.kills() == 2
    monkeypatch.setattr(oom, "_COUNTERS", ())
    assert oom.kills() == 0


WARNS = """
import sys, warnings
class Warns:
    def find_spec(self, name, *rest):
        if name == "dgcctl.cli.runs":
            warnings.warn("an old way of calling", FutureWarning)
sys.meta_path.insert(0, Warns())
from dgcctl.boot import run
run()
"""


@pytest.mark.parametrize(("words", "told"), [((), ""), (("-v",), "warning: an old way of calling")])
def test_what_a_library_warns_of_is_shown_by_v_alone(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARNS, "runs", "ls", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "old way" in line] == [told][: len(words)]


def test_warnings_of_libraries_are_one_line_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    lines: list[str] = []
    library_warnings.one_line_warnings(lines.append)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        library_warnings.one_line_warnings(lines.append)
        for letter in (12354, 12356):
            warnings.warn(f"Glyph {letter} (\\N{{A}}) missing from font(s) X.\nmore", stacklevel=1)
    assert lines == ["Glyph 12354 (\\N{A}) missing from font(s) X."]
