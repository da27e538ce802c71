"""Somebody's own image folder through the real commands: what is refused, what is said, what is
found again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dgc.recipe.load import load_recipe
from dgc.run.paths import RunDir
from dgcctl.core.runs import listing
from tests import image_folder
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "model.stages=[1,1]",
    "model.growth=[8,8]",
    "train.batch_size=8",
    "train.epochs=1",
    "train.threads=1",
    "eval.batch_size=20",
)
OWN = ("data.name=image_folder", "model.num_classes=3")
Called = subprocess.CompletedProcess[str]
Dgcctl = Callable[..., Called]


@pytest.fixture
def dgcctl(tmp_path: Path) -> Dgcctl:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DGCCTL_")}
    env = {
        **clean,
        "DGCCTL_RUNS_DIR": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }

    def call(*arguments: str, at: Path = tmp_path) -> Called:
        command = [sys.executable, "-m", "dgcctl", *arguments]
        return subprocess.run(
            command, cwd=at, env=env, capture_output=True, text=True, check=False, timeout=GUARD
        )

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder.make(tmp_path / "photos", classes=3, train=6, val=3)


def error_of(done: Called) -> str:
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return line


def only_run(folder: Path) -> RunDir:
    (run,) = listing.iterate(folder / "runs")
    return run


@pytest.mark.parametrize(
    "command",
    [
        ("train", "demo"),
        ("train", "demo", "--dry-run"),
        ("sweep", "demo", "seed=0,1"),
        ("launch", "slurm", "demo", "--dry-run"),
        ("data", "verify", "fashion_mnist"),
    ],
)
def test_the_embedded_set_takes_no_folder(
    command: tuple[str, ...], dgcctl: Dgcctl, photos: Path
) -> None:
    done = dgcctl(*command, "--data-dir", str(photos))
    assert done.returncode == 2, done.stderr
    assert str(photos) in error_of(done)
    assert (
        "fashion_mnist comes with the package and has no folder: did you mean"
        " data.name=image_folder?" in done.stderr
    )
    assert done.stdout == ""
    assert not (photos.parent / "runs").exists()


def test_own_images_from_training_to_evaluation_elsewhere(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    done = dgcctl("train", "demo", *TINY, *OWN, "data.dir=photos")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("expectation left out: it was made for ") == 1
    assert (
        done.stderr.count(
            "data.mean: not known for these images: ImageNet's [0.485, 0.456, 0.406] is used"
        )
        == 1
    )
    assert "expected" not in done.stdout
    assert "top-1 error" in done.stdout
    assert "top-5" not in done.stdout + done.stderr  # of three classes, five are no test

    run = only_run(tmp_path)
    recipe = load_recipe(run.recipe)
    assert (recipe.data.dir, recipe.data.mean, recipe.expect) == (
        "photos",
        (0.485, 0.456, 0.406),
        (),
    )
    assert recipe.title.startswith("demo, changed: data.name = image_folder")
    assert "expectation left out" in run.log.read_text()
    data = json.loads(run.data.read_text())
    assert (data["dir"], data["dir_given"]) == (str(photos), "photos")

    elsewhere = tmp_path / "elsewhere"
    # another folder of the same relative name
    image_folder.make(elsewhere / "photos", classes=3, train=1, val=1)
    done = dgcctl("eval", "--run", run.id, at=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "9 images" in done.stdout
    done = dgcctl("runs", "verify", run.id, at=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_without_anything_to_hold_against_starts_nothing(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    done = dgcctl("train", "demo", *TINY, *OWN, "--data-dir", str(photos), "--check")
    assert done.returncode == 2
    assert (
        error_of(done)
        == "error: --check: there is nothing to hold the result against: the expectation was left"
        " out: it was made for data.name = fashion_mnist, and this run has image_folder: nothing"
        " was started; leave --check out"
    )
    done = dgcctl("train", "demo", "expect=[]", "--check")
    assert done.returncode == 2
    assert "the recipe has no expect: section" in error_of(done)
    assert not (tmp_path / "runs").exists()


def test_a_moved_folder_is_named_to_resume_and_to_sweep(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    done = dgcctl("sweep", "demo", *(text for text in TINY if "batch" not in text), *OWN, "train.batch_size=8,6",
                  "train.max_steps=2", "--data-dir", str(photos))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("expectation left out") == 1  # two trials, one word
    swept = [load_recipe(run.recipe).data.dir for run in listing.iterate(tmp_path / "runs")]
    assert swept == [str(photos)] * 2

    run, other = listing.iterate(tmp_path / "runs")
    moved = photos.rename(tmp_path / "moved")
    for path in (run.status, other.status):
        path.write_text(path.read_text().replace('"done"', '"stopped"'))
    done = dgcctl("resume", run.id)
    assert done.returncode == 3
    assert "--data-dir FOLDER" in error_of(done)
    done = dgcctl("resume", run.id, "--data-dir", "moved")
    assert done.returncode == 0, done.stderr
    assert moved.is_dir()


def nasty(photos: Path) -> bytes:
    """A folder as it comes from other people's machines. Returns the class folder whose name is not
    UTF-8.
    """
    odd = os.fsencode(photos / "train") + b"/caf\xe9\x1b]0;title\x07"
    for split in (b"train", b"val"):
        os.rename(
            os.fsencode(photos) + b"/" + split + b"/class1",
            odd.replace(b"/train/", b"/" + split + b"/"),
        )
    whole = (photos / "train" / "class0" / "000.jpg").read_bytes()
    Path(os.fsdecode(odd + b"/li\nne.jpg")).write_bytes(whole)
    Path(os.fsdecode(odd + b"/cut\n\xff.jpg")).write_bytes(whole[:50])
    (photos / "train" / "class0" / "nowhere.jpg").symlink_to("absent.jpg")
    for name in ("._000.jpg", ".DS_Store", "Thumbs.db", "a.heic", "b.HEIC", "notes.txt"):
        (photos / "train" / "class0" / name).write_bytes(b"\0\5\x16\7")
    (photos / "train" / "__MACOSX").mkdir()
    (photos / "val" / "__MACOSX").mkdir()
    (photos / "train" / "__MACOSX" / "._x.jpg").write_bytes(b"x")
    return odd


def test_a_folder_from_other_peoples_machines(dgcctl: Dgcctl, photos: Path, tmp_path: Path) -> None:
    """Names that are not UTF-8 or hold escapes, leftovers, a dangling link, a last batch of one:
    one way through.
    """
    nasty(photos)
    train = ("train", "demo", *TINY, *OWN, "train.batch_size=6", "data.dir=photos")

    done = dgcctl(*train)
    assert done.returncode == 3
    assert error_of(done).startswith(f"error: {photos.name}/train/")
    assert "\x1b" not in done.stderr
    assert list(listing.iterate(tmp_path / "runs")) == []

    done = dgcctl(
        "data", "verify", "image_folder", "--data-dir", "photos", "--write-quarantine", "bad.txt"
    )
    assert done.returncode == 3
    assert "\x1b" not in done.stdout + done.stderr
    assert "passed over" in done.stdout
    assert "2 .heic, 1 .txt, 5 left by other systems" in done.stdout
    listed = (tmp_path / "bad.txt").read_text("utf-8").splitlines()[1:]
    assert sorted(line.split("\t")[0] for line in listed) == [
        "train/caf\\xe9\\x1b]0;title\\x07/cut\\n\\xff.jpg", "train/class0/nowhere.jpg"
    ]  # fmt: skip

    done = dgcctl(*train, "data.quarantine=bad.txt")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for said in ("2 files are left out, as data.quarantine says", "2 .heic files are passed over: they cannot be read",
                 "the last batch of an epoch would hold 1 of 19 images"):  # fmt: skip
        assert done.stderr.count(said) == 1, done.stderr
    run = only_run(tmp_path)
    data = json.loads(run.data.read_text())
    assert data["classes"] == ["caf\\xe9\\x1b]0;title\\x07", "class0", "class2"]
    assert sorted(data["quarantined"]) == sorted(line.split("\t")[0] for line in listed)
    assert data["skipped"] == {".heic": 2, ".txt": 1, "left by other systems": 5}
    assert (data["train"]["samples"], data["quarantine"]) == (19, str(tmp_path / "bad.txt"))
    assert listing.read_run(run).status.step == 3  # 19 images, 6 at a time

    (tmp_path / "elsewhere").mkdir()
    done = dgcctl("eval", "--run", run.id, "--per-class", at=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "2 files are left out, as data.quarantine says" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "caf" in done.stdout


def test_one_image_a_batch_is_one_line_where_the_network_cannot_take_it(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    small = ("data.image_size=2", "data.augment=none", "train.batch_size=1", "train.max_steps=1")
    done = dgcctl("train", "demo", *TINY, *OWN, *small, "--data-dir", str(photos))
    assert done.returncode == 2, done.stderr
    assert error_of(done).startswith(
        "error: train.batch_size = 1 gives each step one image (processes: 1, "
    )
    assert list(listing.iterate(tmp_path / "runs")) == []


def test_what_was_found_and_what_was_passed_over_is_said_at_the_start(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    (photos / "train" / "class0" / "picture").write_bytes(b"x")
    for name in ("notes.txt", ".DS_Store"):
        (photos / "val" / "class1" / name).write_bytes(b"x")
    done = dgcctl("train", "demo", *TINY, *OWN, "data.dir=photos", "train.max_steps=1")
    assert done.returncode == 0, done.stderr
    found = (
        f"found 3 classes, 18 images to train on and 9 to evaluate, in {photos}; 1 files passed"
        " over that other"
    )
    assert done.stderr.count(found) == 1, done.stderr
    said = (
        "warning: 2 files are passed over, as no image's name ends so: 1 .txt, 1 without extension"
    )
    assert done.stderr.count(said) == 1, done.stderr


def test_a_wrong_folder_or_number_of_classes_is_found_before_a_run_is_made(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    done = dgcctl("train", "demo", *TINY, "data.name=image_folder", "data.dir=photos")
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        error_of(done)
        == "error: photos: 3 class folders in photos/train, but the network has 10 classes: "
        "set model.num_classes=3 or give another folder with data.dir=FOLDER"
    )
    done = dgcctl("train", "demo", *TINY, *OWN, "data.dir=fotos")
    assert done.returncode == 3
    assert error_of(done).startswith(f"error: {tmp_path}/fotos: no such folder for image_folder")
    assert "run 2" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_removed_again_names_no_checkpoint(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    image = photos / "train" / "class2" / "001.jpg"
    image.write_bytes(image.read_bytes()[:50])
    done = dgcctl("train", "demo", *TINY, *OWN, "data.dir=photos", "train.batch_size=18")
    assert done.returncode == 3
    assert "last checkpoint" not in done.stderr
    assert error_of(done).endswith("; nothing was trained, and its run was removed")
    assert list(listing.iterate(tmp_path / "runs")) == []


def test_folders_that_are_wrong_are_no_files_and_never_written_to_the_list(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    bad = photos / "train" / "class0" / "000.jpg"
    bad.write_bytes(b"")
    (photos / "val").rename(photos / "valid")
    verify = (
        "data",
        "verify",
        "image_folder",
        "--data-dir",
        "photos",
        "--write-quarantine",
        "bad.txt",
    )
    done = dgcctl(*verify)
    assert done.returncode == 3
    assert (
        error_of(done)
        == f"error: {photos}/val: cannot list this folder (No such file or directory); there is"
        " valid: rename it to val, or link it: `ln -s valid val` in that folder (and 1 file"
        " that cannot be used)"
    )
    assert [
        line.split("\t")[0] for line in (tmp_path / "bad.txt").read_text().splitlines()[1:]
    ] == ["train/class0/000.jpg"]
    assert "damaged  1" in done.stdout
    (photos / "valid").rename(photos / "val")
    for image in (photos / "val" / "class1").iterdir():
        image.unlink()
    bad.unlink()
    found = json.loads(dgcctl(*verify, "--json").stdout)
    assert found["bad"] == []
    assert [row["file"] for row in found["structure"]] == ["val/class1"]
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 1


def test_classes_that_lie_directly_in_the_folder_are_met_with_advice(
    dgcctl: Dgcctl, photos: Path
) -> None:
    for part in ("train", "val"):
        done = dgcctl("data", "verify", "image_folder", "--data-dir", str(photos / part))
        assert done.returncode == 3
        advice = (
            f"the class folders lie directly in {photos / part}: move them to train/ and hold some"
            " images of each"
        )
        assert advice in error_of(done)


def test_an_evaluation_names_its_images_and_says_when_they_are_others(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    assert (
        dgcctl("train", "demo", *TINY, *OWN, "data.dir=photos", "train.max_steps=1").returncode == 0
    )
    warning = "warning: these are not the images of the run: "
    done = dgcctl("eval", "--run", "latest", "--limit", "5", "--json")
    assert warning not in done.stderr
    data = json.loads(done.stdout)["data"]
    assert (data["name"], data["dir"], data["samples"], data["same"]) == (
        "image_folder",
        str(photos),
        5,
        True,
    )

    image = photos / "val" / "class0" / "000.jpg"
    image.write_bytes((photos / "val" / "class0" / "001.jpg").read_bytes())
    done = dgcctl("eval", "--run", "latest")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{warning}as many, with another content, in {photos}") == 1, (
        done.stderr
    )
    assert f"image_folder, {photos}" in done.stdout
    image.unlink()
    done = dgcctl("eval", "--run", "latest", "--limit", "5")
    assert done.stderr.count(f"{warning}8 instead of 9, in {photos}") == 1, done.stderr


def test_moved_images_are_named_to_verify_and_to_rerun(
    dgcctl: Dgcctl, photos: Path, tmp_path: Path
) -> None:
    assert (
        dgcctl("train", "demo", *TINY, *OWN, "data.dir=photos", "train.max_steps=1").returncode == 0
    )
    run = only_run(tmp_path)
    moved = photos.rename(tmp_path / "moved")
    again = ("rerun", run.id, "--current-code", "--allow-change")
    done = dgcctl(*again)
    assert done.returncode == 3
    assert "name another folder with --data-dir FOLDER" in error_of(done)
    assert only_run(tmp_path).id == run.id  # nothing is left of what could not start

    done = dgcctl("runs", "verify", run.id, "--data-dir", "moved", "--json")
    assert done.returncode == 0, done.stderr
    assert [
        row["outcome"] for row in json.loads(done.stdout)["checks"] if row["name"] == "data digest"
    ] == ["ok"]
    done = dgcctl(*again, "--check", "--data-dir", "moved")
    assert done.returncode == 0, done.stderr
    assert f"data.dir: photos in the record, now {moved}" in done.stderr
    assert "bitwise equal" in done.stdout

    (moved / "val" / "class0" / "000.jpg").unlink()
    done = dgcctl(*again, "--data-dir", "moved")
    assert done.returncode == 4
    assert error_of(done).startswith(
        f"error: {moved}: these are not the images of {run.id}: their digest was "
    )
    assert len(list(listing.iterate(tmp_path / "runs"))) == 2
