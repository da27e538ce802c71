"""Every DGCCTL_* variable has one reader, and what it cannot be is one line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dgc import settings
from dgc.data import sets
from dgc.errors import UsageError
from dgc.hub.cache import Cache
from dgc.hub.fetch import FetchOptions
from dgcctl.cli.main import main
from dgcctl.core import settings as manager

ROOT = Path(__file__).resolve().parents[2]
SWITCH = {"true": True, "TRUE": True, "1": True, "yes": True, "on": True, " 1 ": True}
SWITCH |= {"false": False, "False": False, "0": False, "no": False, "off": False, "": False}


@pytest.mark.parametrize("given", SWITCH)
def test_a_switch_means_the_same_to_all_who_ask(monkeypatch, given):
    monkeypatch.setenv("DGCCTL_OFFLINE", given)
    wanted = SWITCH[given]
    assert [settings.offline(), manager.offline(), FetchOptions().offline] == [wanted] * 3


def test_a_switch_that_is_not_set_is_off(monkeypatch):
    monkeypatch.delenv("DGCCTL_OFFLINE", raising=False)
    assert settings.offline() is False


WRONG = {
    "DGCCTL_OFFLINE": ("maybe", "should be true or false (also yes, no, on, off, 1, 0)"),
    "DGCCTL_RECORD_SECRETS": ("2", "should be true or false"),
    "DGCCTL_VERBOSITY": ("loud", "should be -1 (quiet), 0 or 1 (verbose)"),
    "DGCCTL_RANK_TIMEOUT": ("soon", "should be a number of seconds above 0, as 600"),
    "DGCCTL_GDRIVE_URL": (
        "drive.example",
        "should be an address that begins with http:// or https://",
    ),
    "DGCCTL_ONEDRIVE_URL": ("ftp://x", "should be an address that begins with"),
    "DGCCTL_CRASH_AT": ("here:often", "should be name:n"),
    "DGCCTL_LAUNCHED": ("perhaps", "should be true or false"),
    "DGCCTL_RUNS_DIR": ("~nobody-has-this-name/runs", "no such user's home folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_line_and_ends_with_2(monkeypatch, capsys, tmp_path, name):
    given, wanted = WRONG[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, given)
    assert main(["runs", "ls"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"error: {name}={given!r}: ")
    assert wanted in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf"])
def test_a_time_that_cannot_be_waited_for_is_refused(monkeypatch, given):
    monkeypatch.setenv("DGCCTL_RANK_TIMEOUT", given)
    with pytest.raises(UsageError):
        settings.rank_timeout(5.0)


def test_the_trainer_refuses_a_wrong_value_in_one_line_too(tmp_path):
    command = [sys.executable, "-m", "dgc.train", "--run-dir", str(tmp_path)]
    env = {"DGCCTL_RANK_TIMEOUT": "soon", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: DGCCTL_RANK_TIMEOUT='soon': should be a number of seconds above 0, as 600\n"
    )


def test_a_path_may_begin_with_the_home_folder_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"DGCCTL_{name}_DIR", f"~/{name}")
    assert manager.runs_dir() == tmp_path / "RUNS"
    assert manager.data_dir() == tmp_path / "DATA"
    assert sets.data_dir("cifar10") == tmp_path / "DATA" / "cifar10"
    assert manager.cache_dir() == Cache.default().root == tmp_path / "CACHE"


def readings(path: Path):
    """Lines that read a variable whose name is written there as DGCCTL_..."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        words, given = _asked(node)
        named = any(
            isinstance(word, ast.Constant) and str(word.value).startswith("DGCCTL_")
            for word in given
        )
        if named and ("environ" in words or "getenv" in words):
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def _asked(node):
    """What is read, and the names that are asked for."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func), node.args[:1]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        return ast.unparse(node.value), [node.slice]
    if isinstance(node, ast.Compare):
        return ast.unparse(node.comparators[0]), [node.left]
    return "", []


def test_no_other_file_reads_a_variable_of_ours():
    files = [
        path for package in ("dgc", "dgcctl") for path in sorted((ROOT / package).rglob("*.py"))
    ]
    files.remove(Path(settings.__file__))
    assert [line for path in files for line in readings(path)] == []


def test_every_variable_is_described_where_it_is_read():
    source = Path(settings.__file__).read_text(encoding="utf-8")
    words = {
        str(node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
    }
    read = {word.rstrip("=") for word in words if word.startswith("DGCCTL_") and word.isupper()}
    assert len(read) > 12
    assert [name for name in sorted(read) if name not in (settings.__doc__ or "")] == []
