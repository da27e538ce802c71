"""What a shell offers on the tab key, asked as a shell asks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.run.paths import RunDir
from dgc.run.status import Status, write_status

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    run = RunDir(folder / "runs" / "20260101T000000Z-demo-aaa111")
    run.path.mkdir(parents=True)
    run.recipe.write_text("name: demo\ntags: [paper]\noptim:\n  lr: 0.1\n")
    write_status(run, Status(state="done"))
    for kind, name in (("sweeps", "demo-1a"), ("searches", "demo-2b")):
        plan = folder / "runs" / kind / name / "plan.json"
        plan.parent.mkdir(parents=True)
        plan.write_text("{}")
    return folder


def asked(place, shell, **words):
    environment = {**os.environ, **words, "_DGCCTL_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", "from dgcctl.cli.main import main; main()"],
        cwd=place, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dgcctl train de", ["demo"]),
        ("dgcctl train demo optim.na", ["optim.name="]),
        ("dgcctl train demo optim.name=", [f"optim.name={n}" for n in ("sgd", "adamw", "rmsprop")]),
        ("dgcctl train demo optim.lr=", []),
        ("dgcctl sweep sh", ["show"]),
        ("dgcctl sweep show ", ["demo-1a"]),
        ("dgcctl search show ", ["demo-2b"]),
        ("dgcctl sweep demo optim.gamm", ["optim.gamma="]),
        ("dgcctl runs ls stat", ["state="]),
        ("dgcctl runs ls state=d", ["state=done", "state=died"]),
        ("dgcctl runs rm tag:", ["tag:paper"]),
        ("dgcctl runs compare optim.lr=", ["optim.lr=0.1"]),
        ("dgcctl runs verify 2026", ["20260101T000000Z-demo-aaa111"]),
        ("dgcctl runs show 2026", ["20260101T000000Z-demo-aaa111"]),
    ],
)
def test_zsh_is_offered_what_fits(place, line, offered):
    told = asked(place, "zsh", _TYPER_COMPLETE_ARGS=line)
    words = [word.replace("\\\\:", ":") for word in re.findall(r'"([^"]*)"', told)]
    assert words == offered


def test_bash_which_cuts_words_at_equals_is_offered_the_value_alone(place):
    for line, offered in (("runs ls state = di", ["died"]), ("train demo optim.name = s", ["sgd"])):
        words = f"dgcctl {line}"
        told = asked(place, "bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
        assert told.split() == offered


def test_without_runs_or_in_a_closed_folder_nothing_is_said(tmp_path):
    assert asked(tmp_path, "zsh", _TYPER_COMPLETE_ARGS="dgcctl sweep show ").strip() == "_files"
    assert '"latest"' in asked(tmp_path, "zsh", _TYPER_COMPLETE_ARGS="dgcctl runs show ")
