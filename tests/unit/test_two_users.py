"""Two system users on one runs folder, whatever their masks: each sees the other's runs with their
owner, a closed one is one row, and nobody can remove what is not theirs.

Users are user numbers here: no accounts are made. The commands run in processes that take the
number after all modules are imported, since the interpreter may lie where only root reads.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two users")
ROOT = Path(__file__).parents[2]
FIRST, SECOND, GROUP = 20001, 20002, 20000
AS_USER = """
import importlib, os, pkgutil, sys
import dgcctl.cli, dgcctl.core
import encodings.utf_8_sig
for package in (dgcctl.cli, dgcctl.core):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
from dgcctl.cli.main import main
words = sys.argv[4:]
main(["runs", "ls", "--runs-dir", "/proc/self/none"])  # what is imported late
sys.stdout.flush()
print("----", flush=True)
print("----", file=sys.stderr, flush=True)
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.umask(int(sys.argv[3], 8))
sys.exit(main(words))
"""


@pytest.fixture
def shared():
    """A runs folder of the group, as an administrator makes it; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="dgcctl-two-users-") as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "runs"
        folder.mkdir()
        os.chown(folder, 0, GROUP)
        folder.chmod(0o3775)
        yield folder


def made(folder, name, user, mode):
    """A finished run of a user, made under a mask that leaves `mode`."""
    run = RunDir(folder / name)
    run.path.mkdir()
    write_status(run, Status(state=State.DONE))
    run.recipe.write_bytes((ROOT / "recipes" / "demo.yaml").read_bytes())
    write_json(run.metrics, {"top1_error": 20.0})
    for path in (*run.path.iterdir(), run.path):
        os.chown(path, user, GROUP)
        path.chmod(mode if path.is_dir() else mode & 0o666)
    return run


def as_user(user, folder, *words, mask="022"):
    place = ("--runs-dir", str(folder))
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, str(user), str(GROUP), mask, *words, *place],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "PATH": "/nonexistent"},
    )
    out, error = (text.partition("----\n")[2] for text in (done.stdout, done.stderr))
    return done.returncode, out, error


def test_each_sees_the_others_runs_and_a_closed_one_is_one_row(shared):
    made(shared, "20260101T000000Z-demo-000001", FIRST, 0o755)
    made(shared, "20260101T000000Z-demo-000002", FIRST, 0o700)
    made(shared, "20260101T000000Z-demo-000003", SECOND, 0o700)
    code, out, error = as_user(SECOND, shared, "runs", "ls", "--json")
    assert code == 0, error
    rows = {row["id"][-1]: row for row in json.loads(out)["runs"]}
    assert {key: (row["owner"], row["state"]) for key, row in rows.items()} == {
        "1": (str(FIRST), "done"),
        "2": (str(FIRST), "unreadable"),
        "3": (str(SECOND), "done"),
    }
    code, out, _ = as_user(SECOND, shared, "runs", "ls", f"owner={FIRST}", "--ids")
    assert code == 0
    assert len(out.split()) == 2


def test_nobody_removes_what_is_not_theirs_nor_breaks_the_folder_for_the_other(shared):
    theirs = made(shared, "20260101T000000Z-demo-000001", FIRST, 0o755)
    code, _, error = as_user(SECOND, shared, "runs", "rm", theirs.id, "--yes")
    assert code != 0
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert theirs.status.exists()
    # the trash was made by the other, under a mask that keeps all from others
    other = made(shared, "20260101T000000Z-demo-000002", SECOND, 0o755)
    for user, run in ((SECOND, other), (FIRST, theirs)):
        code, _, error = as_user(user, shared, "runs", "rm", run.id, "--yes", mask="077")
        assert code == 0, error
        assert not run.path.exists()


def test_a_sweeps_plan_of_one_keeps_nobody_from_making_their_own(shared):
    for user, seeds in ((FIRST, "0..1"), (SECOND, "0..2")):
        code, out, error = as_user(
            user, shared, "sweep", "demo", f"seed={seeds}", "--launcher", "slurm", mask="077"
        )
        # it comes as far as Slurm, which is not here for this user
        assert "sbatch: not found" in error, (code, out, error)
    assert len(list((shared / "sweeps").iterdir())) == 2
