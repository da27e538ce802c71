"""What users rely on: the commands and options, quick help, the streams, the exit codes in the
README.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgc.errors import ExitCode
from dgcctl.cli import main
from tests.contract.surface import GOLDEN, commands, surface

ROOT = Path(__file__).resolve().parents[2]


def test_the_commands_and_options_are_the_frozen_ones() -> None:
    """To change them on purpose: python -m tests.contract.surface > tests/golden/cli_surface.txt,
    and CHANGELOG.md.
    """
    assert surface() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_command_has_help_in_plain_text(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*path.split()[1:], "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"Usage: {path} ")
    assert "--no-color" in said.out
    assert "\x1b" not in said.out


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{path} {item.opts[0]}"
        for path, node in commands()
        for item in node.params
        if not item.help
    ]
    assert silent == []


def test_every_listing_has_json() -> None:
    missing = [
        path
        for path, node in commands()
        if path.split()[-1]
        in ("ls", "show", "diff", "compare", "verify", "profile", "doctor", "info", "eval")
        and not any("--json" in item.opts for item in node.params)
    ]
    assert missing == []


def test_help_loads_few_modules() -> None:
    """What a start costs, counted; in milliseconds it stands in benchmarks/bounds.py (the bar:
    300).
    """
    code = "import sys; n = len(sys.modules); from dgcctl.cli.main import main; main(['--help']); "
    code += "print(len(sys.modules) - n, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stderr) < 400


def test_help_loads_none_of_the_heavy_packages_and_no_command() -> None:
    code = (
        "import json, sys\nfrom dgcctl.cli.main import main\nmain(['--help'])\nheavy = ('torch',"
        " 'textual', 'dvc', 'numpy', 'pydantic', 'yaml', 'httpx', 'matplotlib',"
        " 'rich.table')\nfound = [name for name in heavy if name in sys.modules]\nfound += [name"
        " for name in sys.modules if name.startswith('dgcctl.cli.') and name[11:] not in\n"
        "          ('main', '_ui', '_ui.lazy', '_ui.diagnostics', '_ui.streams')]\nprint(json.dumps(found),"
        " file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr) == []


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m dgcctl recipes show imagenet_condensenet_h4 --why | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_a_terminal_and_a_pipe_get_the_same_bytes_but_for_colour() -> None:
    """Where it has room for the table. Carriage returns are the terminal's own."""
    command = f"{sys.executable} -m dgcctl recipes ls"
    piped = subprocess.run(
        command.split(), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": ""}
    shown = _in_a_terminal(command.split(), environment)
    assert "\x1b[" in shown
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n") == piped


def _in_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command writes to a terminal of 300 columns."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=slave,
        stderr=slave,
        stdin=slave,
        env={**environment, "COLUMNS": "300"},
    )
    os.close(slave)
    chunks = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the last writer closed it
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    os.close(master)
    return b"".join(chunks).decode()


def test_the_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert listed == {int(code) for code in ExitCode}


def _prints_a_table(function: Any, seen: set[Any]) -> bool:
    """Whether a function, or one of its module that it calls, calls `output.table`."""
    code = function.__code__
    if code in seen:
        return False
    seen.add(code)
    if {"output", "table"} <= set(code.co_names):
        return True
    called = (function.__globals__.get(name) for name in code.co_names)
    own = (
        one for one in called if inspect.isfunction(one) and one.__module__ == function.__module__
    )
    return any(_prints_a_table(one, seen) for one in own)


def test_every_command_that_prints_a_table_prints_it_in_every_form() -> None:
    forms = {"--json", "--csv", "--md", "--latex"}
    tables = {
        path: {name for item in node.params for name in item.opts}
        for path, node in commands()
        if node.callback and _prints_a_table(inspect.unwrap(node.callback), set())
    }
    assert len(tables) > 20
    assert {path: forms - options for path, options in tables.items() if forms - options} == {}
