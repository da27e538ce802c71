"""Every command with every trouble that its surroundings can make: one line, a code of the table,
nothing left behind.

The same command without the trouble says what its code should be where the trouble is no reason to
fail.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgc.errors import ExitCode
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status
from tests.faults.commands import (
    BYSTANDER,
    FIRST,
    FORMS,
    QUICK,
    SLOW,
    Said,
    Zygote,
    listed,
    make_world,
)

CODES = {int(code) for code in ExitCode}
FAULTS = {
    "a folder whose name is not UTF-8": {"same"},
    "a run that may not be read": {"same"},
    "the named run may not be read": {"same", 0, 2, 3, 4, 7},
    "a folder in place of a file": {"same", 0, 1, 2, 3, 4, 7},
    "a link to itself in place of a file": {"same", 0, 1, 2, 3, 4, 7},
    "a read-only folder": {"same", 7},
    "closed stdout": {"same"},
    "closed stderr": {"same"},
    "stdout that nobody reads": {"same", 0},
    "stderr that nobody reads": {"same"},
    "full standard output": {"same", 7},
    "an output that knows only ASCII": {"same"},
    "full disk": {"same", 7},
    "Ctrl-C at call 12": {130, "same"},
    "Ctrl-C at call 200": {130, "same"},
    "Ctrl-C at call 3000": {130, "same"},
}
DAMAGED = (
    "status.json",
    "recipe.yaml",
    "metrics.json",
    "events.jsonl",
    "git.json",
    "data.json",
    "log.txt",
)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def usual(zygote: Zygote, template: Path, tmp_path_factory: pytest.TempPathFactory):
    """The code of a command without any trouble."""

    @functools.cache
    def code(name: str) -> int:
        folder = tmp_path_factory.mktemp("usual")
        world = Path(shutil.copytree(template, folder / "world"))
        said = zygote.call({**QUICK, **FORMS, **SLOW}[name], world, folder / "said")
        hold(said)
        return said.code

    return code


def hold(said: Said) -> None:
    """What every end of every command has in common."""
    everything = said.out + said.err
    assert said.code in CODES, said
    for mark in ("Traceback", "fault of dgcctl itself", "Exception ignored", "\x1b"):
        assert mark not in everything, said
    assert len(said.errors) == (said.code != 0) or said.code in (1, 2, 130, 143), said


def put(fault: str, world: Path, target: Path) -> tuple[Path, dict[str, object]]:
    """Make the trouble in a copied world; returns where the command runs now, and what the child
    needs to know.
    """
    run = world / "runs" / FIRST
    if fault == "a folder whose name is not UTF-8":
        strange = Path(str(target.parent / "caf") + "\udce9")
        world.rename(strange)
        other = strange / "runs" / BYSTANDER
        other.rename(strange / "runs" / f"{BYSTANDER[:16]}-caf\udce9-dddddd")
        return strange, {}
    if fault == "a run that may not be read":
        (world / "runs" / BYSTANDER).chmod(0)
        return world, {"ordinary_user": True}
    if fault == "the named run may not be read":
        run.chmod(0)
        return world, {"ordinary_user": True}
    if fault in ("a folder in place of a file", "a link to itself in place of a file"):
        for name in DAMAGED:
            (run / name).unlink(missing_ok=True)
            (run / name).mkdir() if fault.startswith("a folder") else (run / name).symlink_to(name)
        return world, {}
    if fault == "a read-only folder":
        for folder in (world / "runs", run, world):
            folder.chmod(0o555)
        return world, {"ordinary_user": True}
    if fault == "an output that knows only ASCII":
        return world, {"env": {"PYTHONIOENCODING": "ascii"}}
    if fault.startswith("Ctrl-C at call "):
        return world, {"interrupt_at": int(fault.split()[-1])}
    return world, {"fault": fault}


def check(
    name: str,
    argv: tuple[str, ...],
    fault: str,
    zygote: Zygote,
    template: Path,
    usual,
    tmp_path: Path,
) -> None:
    world = Path(shutil.copytree(template, tmp_path / "world"))
    place, order = put(fault, world, tmp_path / "world")
    before = listed(place)
    said = zygote.call(argv, place, tmp_path / "said", **order)
    for folder in (place, place / "runs", *(place / "runs").glob("2*")):
        folder.chmod(0o755)
    if not (
        fault in ("full standard output", "closed stderr", "stderr that nobody reads")
        and not said.err
    ):
        hold(said)
    allowed = {usual(name) if code == "same" else code for code in FAULTS[fault]}
    if (name, fault) == ("doctor", "a read-only folder"):
        allowed = {1}  # it looks whether runs can be written, and that they cannot is what it found
    assert said.code in allowed, said
    new = listed(place) - before
    # a training that came to its end is kept, also where there was no room to tell of it
    done = fault == "full standard output" and all(
        read_status(RunDir(place / "runs" / one)).state == State.DONE for one in new
    )
    assert not new or (
        (said.code == 0 or done)
        and name in ("train", "train --detach", "sweep", "rerun", "stage train")
    ), new


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", QUICK)
def test_a_command_meets_trouble(name, fault, zygote, template, usual, tmp_path, fault_table):
    with fault_table.case("41", f"every command: {fault}") as case, case.run():
        check(name, QUICK[name], fault, zygote, template, usual, tmp_path)


WRITERS = ("train", "train --detach", "sweep", "stage train")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, fault) for name in SLOW for fault in ("Ctrl-C at call 12", "Ctrl-C at call 200")),
        *((name, "a read-only folder") for name in WRITERS),
    ],
)
def test_a_command_is_ended_before_its_process_starts(
    name, fault, zygote, template, tmp_path, fault_table
):
    """The reduced form for commands that load PyTorch in a process: what ends them before that."""
    code = 7 if fault == "a read-only folder" else 130
    with fault_table.case("41", f"every command: {fault}") as case, case.run():
        check(name, SLOW[name], fault, zygote, template, lambda _: code, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*SLOW, *FORMS])
def test_a_command_meets_trouble_in_full(
    name, fault, zygote, template, usual, tmp_path, fault_table
):
    with fault_table.case("41", f"every command, full form: {fault}") as case, case.run():
        check(name, {**FORMS, **SLOW}[name], fault, zygote, template, usual, tmp_path)
