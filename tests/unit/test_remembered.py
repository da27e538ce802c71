"""What a listing remembers is what it would read: every change of a run is seen."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import Status, write_status
from dgcctl.core.runs import labels, listing, remembered
from tests.unit.test_runs import small_run

FIRST = "20260101T000000Z-demo-aaa111"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six runs, of which all but one have ended, in a folder that counts as large."""
    monkeypatch.setattr(remembered, "FEWEST", 2)
    monkeypatch.setattr(remembered, "_NEW", -3600.0)  # they were made just now
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(tmp_path / "cache"))
    runs = tmp_path / "runs"
    small_run(runs, FIRST, top1_error=20.0)
    for place, state in enumerate(("failed", "stopped", "done", "done", "running")):
        small_run(
            runs, f"2026010{place + 2}T000000Z-demo-bbb22{place}", state=state, top1_error=9.5
        )
    labels.tag(RunDir(runs / FIRST), ["paper"])
    write_json(RunDir(runs / FIRST).file("sweep.json"), {"sweep": "s1", "trial": 3})
    return runs


def values(runs: list[listing.Run]) -> list[dict[str, Any]]:
    told = [dict(run.values) | {"by_script": run.by_script} for run in runs]
    for row in told:
        row.pop("age")
    return told


def listed(folder: Path) -> list[dict[str, Any]]:
    found = listing.list_runs(folder)
    told = values(found)
    found.remember()
    return told


def as_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is read without any memory."""
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "FEWEST", 10**9)
        return values(listing.list_runs(folder))


def kept(folder: Path) -> dict[str, Any]:
    (file,) = (folder.parent / "cache" / "listings").iterdir()
    return remembered._unpacked(file.read_bytes())


def test_the_second_listing_reads_no_run_that_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listed(folder)
    assert first == as_read(folder, monkeypatch)
    assert len(kept(folder)) == 5, "all but the one that runs"
    read = []
    was = listing.read_run
    monkeypatch.setattr(listing, "read_run", lambda run: read.append(run.id) or was(run))
    monkeypatch.setattr(
        "dgcctl.core.runs.recipe_values.read_bounded", lambda *_: pytest.fail("read")
    )
    found = listing.list_runs(folder)
    assert values([run for run in found if run.state != "running"]) == [
        row for row in first if row["state"] != "running"
    ]
    assert read == ["20260106T000000Z-demo-bbb224"]


def _edit(run: RunDir) -> None:
    """In place, with the date put back, as no program of ours writes."""
    before = run.recipe.stat()
    text = run.recipe.read_text().replace("lr: 0.1", "lr: 0.7")
    with run.recipe.open("r+") as file:
        file.write(text)
    os.utime(run.recipe, ns=(before.st_atime_ns, before.st_mtime_ns))


def _restart(run: RunDir) -> None:
    write_status(run, Status(state="running", epoch=4, epochs=6))


def _note(run: RunDir) -> None:
    labels.note(run, "look at this")


def _replace(run: RunDir) -> None:
    """Another run in its place."""
    other = run.path.with_name("other")
    shutil.copytree(run.path, other)
    write_json(RunDir(other).metrics, {"top1_error": 1.5})
    shutil.rmtree(run.path)
    other.rename(run.path)


@pytest.mark.parametrize(
    "change",
    [
        _edit, _restart, _note, _replace,
        lambda run: labels.tag(run, [], ["paper"]),
        lambda run: write_json(run.metrics, {"top1_error": 3.25, "ema_top1_error": 3.0}),
        lambda run: run.metrics.unlink(),
        lambda run: run.status.write_text("{"),
        lambda run: run.file("sweep.json").unlink(),
        lambda run: write_json(run.file("rerun.json"), {"of": "another"}),
        lambda run: shutil.rmtree(run.path),
    ],
)  # fmt: skip
def test_every_change_is_seen(
    folder: Path, change: Callable[[RunDir], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listed(folder)
    change(RunDir(folder / FIRST))
    after = listed(folder)
    assert after == as_read(folder, monkeypatch) != before
    assert listed(folder) == after
    assert kept(folder).keys() <= {run.id for run in listing.list_runs(folder)}


def test_a_trial_is_one_of_a_search_as_soon_as_its_plan_lies_there(folder: Path) -> None:
    assert listed(folder)[-1]["sweep"] == "s1"
    (folder / "searches" / "s1").mkdir(parents=True)
    assert listed(folder)[-1]["search"] == "s1"


def test_what_was_not_asked_for_is_read_later_and_then_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = listing.list_runs(folder)
    found.remember()
    assert not any("recipe" in entry["read"] for entry in kept(folder).values())
    assert listed(folder) == as_read(folder, monkeypatch)
    assert all("recipe" in entry["read"] for entry in kept(folder).values())


def test_what_changed_just_now_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within one tick of the file system's clock."""
    monkeypatch.setattr(remembered, "_NEW", 3600.0)
    listed(folder)
    assert not (folder.parent / "cache" / "listings").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"\x00" * 100,
     lambda whole: whole.replace(b'"demo"', b'"dema"', 1), lambda whole: whole + b" ",
     lambda whole: remembered._sealed(b'{"format": 0, "status": [], "runs": {}}')],
)  # fmt: skip
def test_a_damaged_cache_changes_no_listing(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    first = listed(folder)
    (file,) = (folder.parent / "cache" / "listings").iterdir()
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    assert listed(folder) == first
    assert len(kept(folder)) == 5, "written anew"


def test_what_json_cannot_give_back_is_read_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is no UTF-8, and a recipe with NaN, a huge number and keys that are no texts."""
    (folder / FIRST).rename(folder / "20260101T000000Z-demo\udcff-aaa111")
    odd = RunDir(folder / "20260103T000000Z-demo-bbb221")
    odd.recipe.write_text(f"name: demo\noptim:\n  lr: .nan\nseed: {10**30}\nmodel:\n  3: four\n")
    assert repr(listed(folder)) == repr(as_read(folder, monkeypatch))
    assert repr(listed(folder)) == repr(as_read(folder, monkeypatch))
    assert len(kept(folder)) == 3


def test_a_cache_that_cannot_be_written_is_none_without_a_word(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "cache").write_text("a file stands here")
    assert listed(folder) == listed(folder)
    assert capfd.readouterr() == ("", "")


def test_small_folders_are_not_remembered_and_old_caches_vanish(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(folder)
    (file,) = (folder.parent / "cache" / "listings").iterdir()
    assert file.stat().st_mode & 0o077 == 0, "recipes are nobody else's"
    old = file.with_name("gone.json")
    old.write_text("{}")
    os.utime(old, (0, time.time() - 40 * 86400))
    labels.note(RunDir(folder / FIRST), "new")
    listed(folder)
    assert not old.exists()
    monkeypatch.setattr(remembered, "FEWEST", 1000)
    assert listing.list_runs(folder).memory is None
