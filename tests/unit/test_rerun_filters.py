"""rerun gives back the files as they lay there, whatever filter of git had made them, also where the
filter is another one by now, or gone, or broken.
"""

import os
import subprocess

import pytest

from dgc.run.files import read_json, write_json
from tests.unit import test_rerun as plain
from tests.unit.test_rerun import git, repeat, run_in

project = plain.project
FILTER = '[filter "odd"]\n\tclean = {0} s/9/0/\n\tsmudge = {0} s/0/9/\n\trequired = true\n'
NOW = FILTER.format("sed")
LATER = {
    "the same": NOW,
    "absent": "",
    "another one": NOW.replace("s/0/9/", "s/0/7/"),
    "broken": FILTER.format("/nowhere/sed"),
}


@pytest.fixture
def configure(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return (tmp_path / "gitconfig").write_text


@pytest.fixture
def filtered(project, configure):
    """What git stores of kick.py, and what lies here, compute different things."""
    configure(NOW)
    (project / ".gitattributes").write_text("kick.py filter=odd\n")
    (project / "dgc" / "kick.py").write_text("KICK = 9 - 5\n")
    os.utime(project / "dgc" / "kick.py", (1e9, 1e9))  # git looks into what is as new as its index
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a filter")
    stored = subprocess.check_output(["git", "-C", str(project), "show", "HEAD:dgc/kick.py"])
    assert stored == b"KICK = 0 - 5\n"
    return project


@pytest.mark.parametrize("edited", [False, True], ids=["as committed", "edited"])
@pytest.mark.parametrize("later", LATER)
def test_a_filter_of_now_has_no_part_in_what_is_restored(filtered, configure, later, edited):
    if edited:
        (filtered / "dgc" / "kick.py").write_text("KICK = 9 - 6\n")
    run = run_in(filtered, "a")
    facts = read_json(run.git)
    assert (facts["restorable"], facts["problem"], facts["filters"]) == (True, "", False)
    assert facts["kept_whole"] == ([] if edited else ["dgc/kick.py"])  # a patch carries an edit
    configure(LATER[later])
    assert repeat(filtered, run).comparison.bitwise


def test_a_record_that_was_proven_with_filters_is_restored_with_them(filtered):
    """Those of release 0.1 and of the weeks after it: nothing in them says `filters`."""
    run = run_in(filtered, "a")
    facts = read_json(run.git)
    del facts["filters"]
    write_json(run.git, facts | {"untracked": {}, "kept_whole": []})
    assert repeat(filtered, run).comparison.bitwise


def test_a_filter_that_is_broken_when_the_run_starts_keeps_nothing_from_its_record(
    filtered, configure
):
    (filtered / "dgc" / "kick.py").write_text("KICK = 9 - 6\n")
    configure(LATER["broken"])
    run = run_in(filtered, "a")
    assert read_json(run.git)["problem"] == ""
    assert repeat(filtered, run).comparison.bitwise
