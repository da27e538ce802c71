"""The command line as a whole: one line an error, the right exit code, streams, colour, help."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
import typer

from dgc import errors
from dgcctl.cli import main
from dgcctl.cli._ui import diagnostics, output


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test in an empty folder, and with an environment of its own (flags are carried there)."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "NO_COLOR",
        "FORCE_COLOR",
        "DGCCTL_VERBOSITY",
        "DGCCTL_RUNS_DIR",
        "DGCCTL_DATA_DIR",
    ):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_version_is_data_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["-V"]) == 0
    assert capsys.readouterr() == ("dgcctl 0.1.0\n", "")


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["trian"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: unknown command trian (did you mean train?): see `dgcctl --help`\n"
    for word, meant in (
        ("compare", "runs compare"),
        ("ls", "recipes ls or runs ls or ckpt ls or data ls"),
    ):
        assert main.main([word, "latest"]) == 2
        wanted = f"error: unknown command {word} (did you mean {meant}?): see `dgcctl --help`\n"
        assert capsys.readouterr().err == wanted


def test_unknown_subcommand_and_option_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["runs", "lst"]) == 2
    assert (
        capsys.readouterr().err
        == "error: unknown command lst (did you mean ls?): see `dgcctl runs --help`\n"
    )
    assert main.main(["train", "demo", "--dry-runn"]) == 2
    line = (
        "error: no such option: --dry-runn (did you mean --dry-run?): see `dgcctl train --help`\n"
    )
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train demo --lr 0.1", "no such option: --lr: values of the recipe stand alone: write"
         " optim.lr=VALUE: see `dgcctl train --help`"),
        ("train demo --set optim.lr=0.1", "no such option: --set: values of the recipe stand alone,"
         " as optim.lr=0.1: see `dgcctl train --help`"),
        ("search demo --gate-factor 0.5", "no such option: --gate-factor: values of the recipe stand"
         " alone: write model.gate_factor=VALUE: see `dgcctl search --help`"),
        ("sweep demo --batch-size 8", "write train.batch_size=VALUE or eval.batch_size=VALUE: see"),
        ("train own.py", "own.py: is a Python program and no recipe: start it with python; `with"
         " dgc.run.start(name, config) as run:` in it makes a run of it"),
    ],
)  # fmt: skip
def test_habits_of_other_programs_are_told_what_to_write(
    words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").touch()
    with contextlib.chdir(tmp_path):
        assert main.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_missing_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train"]) == 2
    assert (
        capsys.readouterr().err == "error: missing argument 'RECIPE': see `dgcctl train --help`\n"
    )


def test_a_bare_group_shows_its_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["recipes"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage: dgcctl recipes" in said.err
    assert "validate" in said.err


def test_help_of_the_root_lists_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for rows in main.COMMANDS.values():
        for name, (_, text) in rows.items():
            assert name in shown
            assert text.split()[0] in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("a"), 2),
        (errors.DataError("a"), 3),
        (errors.IntegrityError("a"), 4),
        (errors.UnsafeFileError("a"), 5),
        (errors.NetworkError("a"), 6),
        (errors.ResourceError("a"), 7),
        (errors.LockedError("a"), 8),
        (errors.DivergedError("a"), 9),
        (errors.RankError("a"), 10),
        (errors.TargetMissedError("a"), 11),
        (errors.PreemptedError("a"), 75),
        (errors.InterruptedRunError("a"), 130),
        (errors.TerminatedError("a"), 143),
        (errors.DgcError("a"), 1),
        (MemoryError(), 7),
        (KeyboardInterrupt(), 130),
        (ValueError("a"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert diagnostics.exit_code(error) == code


def test_all_dgc_errors_are_covered_by_the_exit_codes() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.DgcError)
    ]
    assert {int(kind.exit_code) for kind in kinds} == {int(code) for code in errors.ExitCode} - {0}


def test_an_error_of_several_lines_is_one_line_and_a_recipe_has_one_each() -> None:
    assert diagnostics.error_lines(errors.DataError("one\ntwo")) == ["one two"]
    assert diagnostics.error_lines(errors.RecipeError(["a:1: x", "a:2: y"])) == ["a:1: x", "a:2: y"]


def test_a_fault_of_our_own_says_so_and_v_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(main, "_code", broken)
    assert main.main(["-V"]) == 1
    shown = (
        "error: ZeroDivisionError: division by zero (a fault of dgcctl itself: `-v` shows where)\n"
    )
    assert capsys.readouterr().err == shown
    assert main.main(["-V", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_operating_system_errors_name_the_file() -> None:
    error = PermissionError(13, "Permission denied", "/some/file")
    assert diagnostics.error_lines(error) == [
        "/some/file: permission denied: check its owner and rights"
    ]


def test_common_flags_work_anywhere_but_after_two_dashes() -> None:
    assert main.take_common_flags(["runs", "ls", "-q", "--no-color", "--", "-v"]) == [
        "runs",
        "ls",
        "--",
        "-v",
    ]
    assert os.environ["NO_COLOR"] == "1"
    assert diagnostics.verbosity() == -1
    main.take_common_flags(["-v"])
    assert diagnostics.verbosity() == 1


def test_quiet_silences_talk_but_not_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    main.take_common_flags(["-q"])
    diagnostics.note("talk")
    diagnostics.detail("more")
    diagnostics.warn("careful")
    assert capsys.readouterr().err == "warning: careful\n"


class _Stream:
    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("no_color", "force", "term", "terminal", "expected"),
    [
        ("", "", "xterm", True, True),
        ("", "", "xterm", False, False),
        ("", "", "dumb", True, False),
        ("1", "", "xterm", True, False),
        ("", "1", "xterm", False, True),
        ("", "1", "dumb", False, True),
        ("1", "1", "xterm", True, False),
        ("", "0", "xterm", False, False),
    ],
)
def test_colour(
    monkeypatch: pytest.MonkeyPatch,
    no_color: str,
    force: str,
    term: str,
    terminal: bool,
    expected: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("FORCE_COLOR", force)
    monkeypatch.setenv("TERM", term)
    assert diagnostics.has_colour(_Stream(terminal)) is expected  # type: ignore[arg-type]


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Stream(False))
    diagnostics.confirm("Delete it?", yes=True)
    with pytest.raises(errors.UsageError) as caught:
        diagnostics.confirm("Delete it?", yes=False)
    assert (
        str(caught.value)
        == "Delete it? stdin is no terminal, so nobody can be asked: pass --yes to agree"
    )


class _Answer(_Stream):
    def __init__(self, text: str) -> None:
        super().__init__(True)
        self._text = text

    def readline(self) -> str:
        return self._text


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)],
)
def test_a_question_is_agreed_to_by_yes_alone(
    monkeypatch: pytest.MonkeyPatch, answer: str, agrees: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", _Answer(answer))
    if agrees:
        diagnostics.confirm("Delete it?", yes=False)
        return
    with pytest.raises(typer.Abort) as caught:
        diagnostics.confirm("Delete it?", yes=False)
    assert diagnostics.error_lines(caught.value) == ["given up: nothing was changed"]


def test_two_forms_of_a_table_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["recipes", "ls", "--json", "--csv"]) == 2
    assert "--json and --csv exclude each other" in capsys.readouterr().err


def test_a_reader_who_has_gone_ends_the_command_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", closefd=True) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(typer.Exit) as caught:
            output.write("x" * 100_000)
    assert caught.value.exit_code == 0


# --- the project file -----------------------------------------------------------------------------


def test_the_project_file_gives_defaults_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dgcctl.toml").write_text('runs_dir = "mine"\noffline = true\n')
    inner = tmp_path / "deep" / "inside"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv("DGCCTL_RUNS_DIR")
    assert main.main(["runs", "ls"]) == 0
    assert (
        capsys.readouterr().err
        == f"no runs in {tmp_path / 'mine'}: `dgcctl train demo` makes one\n"
    )
    monkeypatch.setenv("DGCCTL_RUNS_DIR", "other")
    assert main.main(["runs", "ls"]) == 2
    assert "other: no such folder (DGCCTL_RUNS_DIR)" in capsys.readouterr().err
    assert main.main(["runs", "ls", "--runs-dir", "third"]) == 2
    assert "third: no such folder (--runs-dir)" in capsys.readouterr().err
    (inner / "third").mkdir()
    assert main.main(["runs", "ls", "--runs-dir", "third"]) == 0
    assert "no runs in third" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('runs_dirr = "x"\n', "unknown setting runs_dirr (did you mean runs_dir?)"),
        (
            "zzz = 1\n",
            "unknown setting zzz (known: runs_dir, data_dir, cache_dir, offline, record_secrets,"
            " trust_code)",
        ),
        ("runs_dir = 3\n", "runs_dir = 3 should be a path in quotes"),
        ('offline = "yes"\n', "offline = 'yes' should be true or false"),
        ("runs_dir\n", "cannot be read as TOML"),
    ],
)
def test_mistakes_in_the_project_file(
    tmp_path: Path, content: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dgcctl.toml"
    path.write_text(content)
    assert main.main(["runs", "ls"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/a"),
            2,
            "/a: no such file or directory: check the path",
        ),
        (
            OSError(28, "No space left on device", "/a"),
            7,
            "/a: no space left on device: free some space, or name",
        ),
        (
            OSError(30, "Read-only file system", "/a"),
            7,
            "/a: read-only file system: name another folder",
        ),
        (
            FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
            7,
            (
                "no usable temporary directory found in ['/tmp']: free some space, or name a folder"
                " with TMPDIR"
            ),
        ),
    ],
)
def test_a_wrong_path_is_a_mistake_and_what_a_disk_refuses_is_not(
    error: OSError, code: int, line: str
) -> None:
    assert diagnostics.exit_code(error) == code
    assert diagnostics.error_lines(error)[0].startswith(line)
