"""The suite itself: skipped only by name, no wall-clock bound, the same for whoever runs it."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests import conftest, skips, waiting

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_test_that_may_be_skipped_is_there() -> None:
    assert skips.lines()
    for line in skips.lines():
        file, _, name = line.test.partition("::")
        assert (ROOT / file).is_file(), line
        assert not name or name in functions(ROOT / file), line


def reasons(path: Path) -> Iterator[str]:
    """Why tests of a file may be skipped, as it says; `*` where it puts in what it meets."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        if node.func.attr == "skip":
            given += node.args[:1]
        for value in given if node.func.attr in ("skip", "skipif") else []:
            parts = value.values if isinstance(value, ast.JoinedStr) else [value]
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts
            )


def helpers_of(path: Path) -> Iterator[Path]:
    """The modules of tests that a file of tests imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "tests":
            place = ROOT.joinpath(*str(node.module).split("."))
            yield from (file for file in [place.with_suffix(".py")] if file.is_file())
            named = (place / f"{alias.name}.py" for alias in node.names)
            yield from (file for file in named if file.is_file())


def test_every_reason_to_skip_has_its_line_and_every_line_its_reason() -> None:
    """Also on a machine on which nothing is skipped."""
    without, used = [], set()
    for path in [file for file in TESTS.rglob("test_*.py") if file != Path(__file__)]:
        name = str(path.relative_to(ROOT))
        for reason in {why for file in (path, *helpers_of(path)) for why in reasons(file)}:
            mine = [line for line in skips.lines() if line.test.partition("::")[0] == name]
            found = [line for line in mine if fnmatchcase(reason, line.reason)]
            used.update(found)
            if not found:
                without.append(f"{name}: {reason}")
    assert sorted(without) == []
    assert [line for line in skips.lines() if line not in used] == []


def run_pytest(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """pytest on one file of tests, beside our conftest."""
    (folder / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (folder / "test_it.py").write_text(f"import pytest\n{body}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        os.devnull,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, str(folder)], cwd=folder, env=env, text=True, capture_output=True, check=False
    )


SKIPS = """
def test_in_its_body():
    pytest.skip('not today')

@pytest.mark.skip(reason='not today')
def test_marked():
    pass

@pytest.mark.skipif(True, reason='not today')
def test_marked_if():
    pass

@pytest.fixture
def wanting():
    pytest.skip('not today')

def test_in_a_fixture(wanting):
    pass
"""


def test_a_skip_without_a_line_fails(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPS)
    assert done.returncode == 1, done.stdout
    for name in ("in_its_body", "marked", "marked_if", "in_a_fixture"):
        said = (
            f"skipped (not today), but tests/skips.txt has no line for test_it.py::test_{name} with"
            " that reason"
        )
        assert said in done.stdout


def test_a_skip_with_a_line_is_one(tmp_path: Path) -> None:
    body = (
        "from tests import skips\n"
        "skips.lines = lambda: (skips.Line('test_it.py::test_a', 'not *', 'tomorrow'),)\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_a(n):\n    pytest.skip('not today')\n"
        "@pytest.mark.xfail(reason='known')\n"
        "def test_b():\n    assert False\n"
    )
    done = run_pytest(tmp_path, body)
    assert done.returncode == 0, done.stdout
    assert "2 skipped, 1 xfailed" in done.stdout


@pytest.mark.parametrize(("number", "before"), [(signal.SIGINT, "INT"), (signal.SIGHUP, "HUP")])
def test_a_started_program_hears_signals_that_the_suites_own_starter_ignores(
    number: signal.Signals, before: str
) -> None:
    """As in the background of a script, or under nohup: SIG_IGN is inherited through every start."""
    code = (
        "import signal, subprocess, sys; from tests import conftest\n"
        f"assert signal.getsignal({int(number)}) is not signal.SIG_IGN\n"
        f"sys.exit(subprocess.call(['sh', '-c', 'kill -{before} $$; exit 3']) != -{int(number)})"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", f'trap \'\' {before}; exec "$0" -c "$1"', sys.executable, code], env=env
    )
    assert done.returncode == 0


def test_what_surrounds_the_suite_does_not_reach_a_test() -> None:
    theirs = {
        "NO_COLOR": "1",
        "FORCE_COLOR": "1",
        "COLUMNS": "7",
        "TERM": "dumb",
        "LC_ALL": "C",
        "LANG": "de_DE.UTF-8",
        "DGCCTL_RUNS_DIR": "/r",
        "GIT_DIR": "/g",
        "SLURM_JOB_ID": "1",
        "RANK": "1",
        "OMP_NUM_THREADS": "7",
        "PATH": "/bin",
        "DGC_NATIVE_ISA": "avx2",
        "DGCCTL_FAULT_TABLE": "t",
    }
    conftest.settle_environment(theirs)
    left = {
        "PATH": "/bin",
        "DGC_NATIVE_ISA": "avx2",
        "DGCCTL_FAULT_TABLE": "t",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    assert theirs == {
        **left,
        **conftest.THREADS,
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
    }


# a difference of clocks that is compared, processor time, or a limit in figures: a guard is
# tests/waiting.py's
WALL_CLOCK = re.compile(
    r"(monotonic|perf_counter|time)\(\) - \w+ *[<>]|[<>]=? *\w+ *[-+] *time\."
    r"|timeout=\d|\.wait\(\d|wait_for\(.*, *\d+\)|took < |seconds\)? < "
    r"|ru_[us]time|process_time|thread_time|cpu_times"
)


def test_no_test_asserts_how_long_something_takes() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TESTS.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if WALL_CLOCK.search(line) and path != Path(__file__)
    }
    assert sorted(found) == []


# programs that tests start, and that wait on purpose: a slow host, a training that hangs or is held
SLOW_ON_PURPOSE = {
    "faults/hosts.py",
    "faults/zygote.py",
    "unit/fake_trainer.py",
    "unit/search_trainer.py",
}


def impatient_loops(path: Path) -> Iterator[str]:
    """Loops that sleep until something holds, and ask nobody whether it still can."""
    for loop in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(loop, ast.While):
            calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
            names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
            if names & {"sleep", "pause"} and not names & {"check", "until"}:
                yield f"{path.relative_to(TESTS)}:{loop.lineno}"


def test_every_wait_ends_with_the_process_that_it_waits_for() -> None:
    """All go through `Patience`; a loop of its own polls a whole guard after its process died."""
    files = [
        path for path in TESTS.rglob("*.py") if str(path.relative_to(TESTS)) not in SLOW_ON_PURPOSE
    ]
    assert [place for path in files for place in impatient_loops(path)] == []


class Dead:
    """A process that ends after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def poll(self) -> int | None:
        self.looks -= 1
        return -signal.SIGKILL if self.looks < 0 else None

    def last_words(self) -> str:
        return "all is lost"


def test_a_wait_ends_at_once_when_its_process_has_ended_and_says_how() -> None:
    program = "import sys; print('no such file', file=sys.stderr); sys.exit(3)"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    with process, pytest.raises(AssertionError) as caught:
        waiting.wait_for(lambda: False, "step 3", by=process)
    assert str(caught.value) == (
        "step 3 did not happen: the process had ended (exit code 3); it said: no such file\n"
    )
    with pytest.raises(AssertionError, match=r"ended \(signal SIGKILL\); it said: all is lost"):
        waiting.wait_for(lambda: False, "step 3", by=Dead(looks=2))


def test_a_state_that_came_just_before_the_end_has_come() -> None:
    dead = Dead(looks=0)
    waiting.wait_for(lambda: dead.looks < 0, "step 3", by=dead)


def test_ranks_that_wait_for_a_failed_one_are_ended() -> None:
    programs = ["import time; time.sleep(10_000)", "import sys; sys.exit(5)"]
    ranks = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    with pytest.raises(AssertionError, match=r"^process 1 had ended \(exit code 5\)$"):
        waiting.wait_for_all(ranks)
    assert [rank.returncode for rank in ranks] == [-signal.SIGKILL, 5]


def test_what_a_command_sets_for_its_process_ends_with_its_test_first_half() -> None:
    os.environ["DGCCTL_OFFLINE"] = "1"
    os.environ.pop("HOME")
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_what_a_command_sets_for_its_process_ends_with_its_test_second_half() -> None:
    assert "DGCCTL_OFFLINE" not in os.environ
    assert "HOME" in os.environ
    assert Path.cwd() != Path("/")
    assert os.umask(0o022) == 0o022
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_IGN
