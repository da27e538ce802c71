"""Rows 8 and 9: data folders that are missing, unreadable, empty or full of bad images."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgc.data import open_images, train_loader
from dgc.data.verify import verify
from dgc.errors import DataError
from tests import image_folder
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
NORM = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture
def folder(tmp_path):
    return image_folder.make(tmp_path / "images", classes=3, train=4, val=2)


def refused(**options):
    """The one line of a data set that cannot be opened."""
    with pytest.raises(DataError) as caught:
        open_images(name=options.pop("name", "image_folder"), **options)
    assert caught.value.exit_code == 3
    (line,) = str(caught.value).splitlines()
    return line


# --- row 8 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imagenet", "image_folder"])
def test_missing_folder_names_folder_flag_and_command(name, tmp_path, monkeypatch, fault_table):
    monkeypatch.chdir(tmp_path)
    with fault_table.case(8, "missing folder: path, flag, command; nothing created") as case:
        for given, shown in (
            (tmp_path / "no" / "where", str(tmp_path / "no" / "where")),
            (None, f"{tmp_path}/data/{name}"),
        ):
            with case.run():
                line = refused(name=name, dir=given)
                assert line.startswith(
                    f"{shown}: no such folder for {name}, and it cannot be downloaded"
                )
                assert f"{shown}/{{train,val}}/<class>/" in line
                assert "--data-dir FOLDER (or data.dir=FOLDER)" in line
                assert f"`dgcctl data verify {name} --data-dir {shown}` checks it" in line
                assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DGCCTL_DATA_DIR", str(tmp_path / "all"))
    assert refused(name="imagenet").startswith(f"{tmp_path}/all/imagenet: no such folder")


def test_parts_that_are_missing_or_empty(folder, fault_table):
    def without_val():
        os.rename(folder / "val", folder / "validation")
        return (
            f"{folder}/val: cannot list this folder (No such file or directory); there is"
            " validation: rename it"
        )

    def flat():
        (folder / "val").mkdir()
        (folder / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
        return (
            f"{folder}/val: no class folder in it: images are expected at"
            f" {folder}/val/<class>/<image>.jpg"
        )

    def missing_class():
        (folder / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
        for image in (folder / "validation").iterdir():
            if image.name != "class1":
                os.rename(image, folder / "val" / image.name)
        return (
            f"{folder}: train has 3 classes and val 2; only in train: class1: each class needs both"
        )

    def empty_class():
        (folder / "val" / "class1").mkdir()
        return f"{folder}/val/class1: 0 images in this class folder: fill it or remove it"

    with fault_table.case(8, "split missing, flat, with a class less, with an empty class") as case:
        for damage in (without_val, flat, missing_class, empty_class):
            with case.run():
                said = damage()
                assert refused(dir=folder).startswith(said)


def test_class_count_differs_from_the_network(folder, fault_table):
    with (
        fault_table.case(8, "class count differs from the network: both numbers") as case,
        case.run(),
    ):
        line = refused(dir=folder, num_classes=10)
        assert (
            line == f"{folder}: 3 class folders in {folder}/train, but the network has 10 classes: "
            "set model.num_classes=3 or give another folder with data.dir=FOLDER"
        )


UNREADABLE = """
import os, sys
from dgc.data import open_images  # while the interpreter may still be read
os.setgid(65534); os.setuid(65534)
from dgc.errors import DgcError
try:
    open_images(name="image_folder", dir=sys.argv[1])AND_THEN
except DgcError as error:
    print(error)
    sys.exit(int(error.exit_code))
"""


def opened_by_a_stranger(folder: Path, and_then: str = "") -> subprocess.CompletedProcess[str]:
    """An image folder as a user opens it who owns nothing of it."""
    return subprocess.run(
        [sys.executable, "-c", UNREADABLE.replace("AND_THEN", and_then), folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


@pytest.fixture
def open_place():
    """A folder that everybody may enter; pytest's own is closed again whenever another pytest
    starts.
    """
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become somebody who may not read a folder of his own"
)
@pytest.mark.parametrize("part", ["", "train", "train/class1"])
def test_unreadable_folder(part, open_place, fault_table):
    folder = image_folder.make(open_place / "images", train=1, val=1)
    (folder / part).chmod(0)
    with fault_table.case(8, "folder with mode 000: named") as case, case.run():
        done = opened_by_a_stranger(folder)
        (folder / part).chmod(0o755)
        assert done.returncode == 3, done.stderr
        expected = (
            "this folder may not be read"
            if not part
            else "cannot list this folder (Permission denied)"
        )
        assert done.stdout.startswith(f"{folder / part}: {expected}")


# --- row 9 ----------------------------------------------------------------------------------------


def png(width, height, pixels=b""):
    """A PNG with these sides in its header and whatever data."""

    def chunk(kind, data, crc=None):
        body = kind + data
        return (
            len(data).to_bytes(4, "big")
            + body
            + (zlib.crc32(body) if crc is None else crc).to_bytes(4, "big")
        )

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels, crc=None)
        + chunk(b"IEND", b"")
    )


def spoil(folder):
    """Put one of each bad file into train/class0. Returns name -> what verify must say."""
    place = folder / "train" / "class0"
    whole = (place / "000.jpg").read_bytes()
    (place / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "empty.jpg").write_bytes(b"")
    (place / "page.jpg").write_bytes(b"<!DOCTYPE html><html>quota exceeded</html>")
    (place / "text.jpg").write_bytes(b"hello world, this is no image")
    data = bytearray(png(8, 8, zlib.compress(bytes(8 * 25))))
    data[data.index(b"IDAT") + 6] ^= 1
    (place / "crc.png").write_bytes(data)
    (place / "bomb.png").write_bytes(png(20_000, 20_000, zlib.compress(b"")))
    (place / "big.png").write_bytes(png(9_500, 9_500, zlib.compress(b"")))
    (place / "loop.jpg").symlink_to("loop.jpg")
    (place / "nowhere.jpg").symlink_to("absent.jpg")
    (place / "up").symlink_to("../..")
    (place / "self").symlink_to("self")
    return {
        "cut.jpg": "cut short (",
        "empty.jpg": "empty (0 bytes)",
        "page.jpg": "an HTML page, not an image",
        "text.jpg": "not an image (begins with b'hello wo')",
        "crc.png": "damaged (",
        "bomb.png": "more than 89,478,485 pixels: a decompression bomb",
        "big.png": "9500 x 9500 pixels, more than 89,478,485: a decompression bomb",
        "loop.jpg": "a symbolic link that leads to itself",
        "nowhere.jpg": "a symbolic link that leads nowhere",
        "up": "a symbolic link that leads back to a folder above it",
        "self": "cannot be followed (Too many levels of symbolic links)",
    }


def good_odd_ones(folder):
    """Files that are odd, and fine: CMYK, grey, palette, 16 bit, upper case, one folder deeper."""
    place = folder / "val" / "class1"
    pixels = np.arange(48 * 48 * 4, dtype=np.uint8).reshape(48, 48, 4)
    Image.fromarray(pixels, "CMYK").save(place / "cmyk.jpg")
    Image.fromarray(pixels[..., 0]).save(place / "grey.JPG")
    Image.fromarray(pixels[..., 0]).convert("P").save(place / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16)).save(place / "deep.png")
    (place / "more").mkdir()
    Image.fromarray(pixels[..., :3]).save(place / "more" / "alpha.webp")
    (place / "notes.txt").write_text("no image, and nobody says so")
    return 5


def test_verify_lists_all_bad_files_in_one_pass(folder, fault_table):
    expected = spoil(folder)
    odd = good_odd_ones(folder)
    with (
        fault_table.case(9, "verify: every bad file in one pass, odd ones pass") as case,
        case.run(),
    ):
        found = verify("image_folder", folder)
        bad = {item["file"]: item["reason"] for item in found["bad"]}
        assert set(bad) == {f"train/class0/{name}" for name in expected}
        for name, said in expected.items():
            assert bad[f"train/class0/{name}"].startswith(said), name
        assert (found["train"]["samples"], found["val"]["samples"]) == (12, 6 + odd)
        assert found["classes"] == 3


def test_odd_images_become_rgb(folder):
    good_odd_ones(folder)
    images = open_images(name="image_folder", dir=folder, image_size=32)
    pixels = images.val.pixels(0, 0, np.arange(len(images.val)))
    assert pixels.shape == (11, 32, 32, 3)
    names = [images.val.name_of(index) for index in range(len(images.val))]
    assert f"{folder}/val/class1/more/alpha.webp" in names


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["cut.jpg", "page.jpg", "bomb.png", "crc.png", "loop.jpg"])
def test_training_stops_at_a_bad_file_and_names_it(name, workers, folder, fault_table):
    reason = spoil(folder)[name]
    for other in (folder / "train" / "class0").iterdir():
        if not other.name.startswith("0") and other.name != name:
            other.unlink()
    with (
        fault_table.case(9, "training stops at a bad file: path, sample, what to do") as case,
        case.run(),
    ):
        images = open_images(name="image_folder", dir=folder)
        index = [images.train.name_of(number) for number in range(13)].index(
            f"{folder}/train/class0/{name}"
        )
        loader = train_loader(images.train, seed=0, batch_size=4, workers=workers, **NORM)
        with pytest.raises(DataError) as caught:
            list(loader.epoch(2))
        loader.close()
        (line,) = str(caught.value).splitlines()
        assert caught.value.exit_code == 3
        assert line.startswith(f"{folder}/train/class0/{name} (sample {index}): {reason}")
        command = f"`dgcctl data verify image_folder --data-dir {folder}`"
        assert f"or list it in data.quarantine; {command} finds all such files" in line
        assert "epoch 2 step " in line


def test_a_quarantined_file_is_left_out_and_recorded(folder, tmp_path, fault_table):
    bad = spoil(folder)
    listed = tmp_path / "bad.txt"
    with (
        fault_table.case(
            9, "quarantine: written by verify, left out of training, recorded"
        ) as case,
        case.run(),
    ):
        assert (
            "train/class0/self: cannot be followed (Too many levels of symbolic links) (and 1 more"
            in refused(dir=folder)
        )
        done = run_tool(
            "verify", "image_folder", "--data-dir", folder, "--write-quarantine", listed
        )
        assert done.returncode == 3
        assert f"{folder}: {len(bad)} of its files cannot be used" in done.stderr
        images = open_images(name="image_folder", dir=folder, quarantine=listed)
        assert len(images.train) == 12
        assert set(images.describe()["quarantined"]) == {f"train/class0/{name}" for name in bad}
        assert len(list(train_loader(images.train, seed=0, batch_size=4, **NORM).epoch(0))) == 3


def test_lines_of_a_quarantine_that_name_nothing_are_said(folder, tmp_path):
    listed = tmp_path / "typed.txt"
    listed.write_text("train/class0/000.jpg\tbad\nval/class0/nosuch.jpg\tgone\nclass1/001.jpg\n")
    images = open_images(name="image_folder", dir=folder, quarantine=listed)
    assert len(images.train) == 11
    assert [text for level, text in images.notes() if level == "warning"] == [
        f"2 lines of data.quarantine leave nothing out, for {folder} has no such file:"
        " class1/001.jpg and 1 more; names are relative to it, as train/<class>/<image>",
        "1 file is left out, as data.quarantine says",
    ]


def test_halves_that_are_one_folder_are_said(folder):
    shutil.rmtree(folder / "val")
    (folder / "val").symlink_to("train")
    images = open_images(name="image_folder", dir=folder)
    assert images.notes() == [
        (
            "warning",
            f"{folder}: train and val are the same folder, so errors are those of images that the"
            " network was trained on",
        )
    ]


def test_verify_names_images_that_lie_in_both_halves(folder):
    assert verify("image_folder", folder)["in_both"] == []
    shutil.copy(folder / "train/class0/001.jpg", folder / "val/class0/copied.jpg")
    shutil.copy(folder / "train/class2/003.jpg", folder / "val/class1/other.jpg")
    assert verify("image_folder", folder)["in_both"] == [
        ["train/class0/001.jpg", "val/class0/copied.jpg"],
        ["train/class2/003.jpg", "val/class1/other.jpg"],
    ]
    done = run_tool("verify", "image_folder", "--data-dir", folder)
    assert done.returncode == 0


def test_a_named_pipe_is_no_image_and_nobody_waits_for_it(folder):
    os.mkfifo(folder / "train/class1/pipe.png")
    why = "a named pipe, socket or device: no image can be read from it"
    assert verify("image_folder", folder)["bad"] == [
        {"file": "train/class1/pipe.png", "reason": why}
    ]
    loader = train_loader(
        open_images(name="image_folder", dir=folder).train, seed=0, batch_size=4, **NORM
    )
    with pytest.raises(DataError, match=why):
        list(loader.epoch(0))


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("cafe\u0301", "caf\u00e9", r"only in train: 'cafe\u0301'; only in val: 'caf\xe9'"),
        ("b", "b ", "only in train: b; only in val: 'b '"),
    ],
)
def test_names_that_look_alike_are_told_apart(train, val, said, folder):
    (folder / "train/class1").rename(folder / "train" / train)
    (folder / "val/class1").rename(folder / "val" / val)
    assert said in refused(dir=folder)


def test_quarantine_file_that_cannot_be_read(folder, tmp_path):
    assert refused(dir=folder, quarantine=tmp_path / "none.txt").startswith(
        f"{tmp_path}/none.txt: cannot read the quar"
    )


def run_tool(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "dgc.jobs.data_sets", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


def test_the_tool_answers_in_json_and_with_one_line(folder, tmp_path, fault_table):
    (folder / "train" / "class0" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    answer = tmp_path / "answer.json"
    with fault_table.case(9, "`python -m dgc.data`: JSON answer; one error line") as case:
        with case.run():
            done = run_tool("verify", "image_folder", "--data-dir", folder, "--json", answer)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            found = json.loads(answer.read_text())
            assert [item["file"] for item in found["bad"]] == ["train/class0/cut.jpg"]
            assert (found["schema_version"], found["train"]["digest_of"]) == (1, "content")
        with case.run():
            done = run_tool(
                "download", "cifar10", DGCCTL_OFFLINE="1", DGCCTL_DATA_DIR=str(tmp_path / "d")
            )
            assert done.returncode == 3
            (line,) = done.stderr.splitlines()
            assert line.startswith(
                f"error: {tmp_path}/d/cifar10: cifar10 is not there and cannot be fetched:"
                " DGCCTL_OFF"
            )
            assert not (tmp_path / "d").exists()


# --- other people's folders -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_a_half_of_another_name_is_named(name, folder):
    os.rename(folder / "val", folder / name)
    assert (
        refused(dir=folder)
        == f"{folder}/val: cannot list this folder (No such file or directory); there is {name}:"
        f" rename it to val, or link it: `ln -s {name} val` in that folder; `dgcctl data verify"
        f" image_folder --data-dir {folder}` lists all that is wrong"
    )
    (folder / "val").symlink_to(name)
    assert len(open_images(name="image_folder", dir=folder).val) == 6


def test_classes_without_halves_are_named(folder):
    assert refused(dir=folder / "train").startswith(
        f"{folder}/train/train: cannot list this folder (No such file or directory); the class"
        f" folders lie directly in {folder}/train: move them to train/ and hold some images of each"
        " back in val/ (and 1 more like this)"
    )
    (folder / "other" / "deeper").mkdir(parents=True)
    assert "; found there: deeper (and 1 more like this)" in refused(dir=folder / "other")


def test_a_class_of_one_half_is_named_with_its_side(folder):
    os.rename(folder / "val" / "class1", folder / "val" / "other")
    assert (
        refused(dir=folder)
        == f"{folder}: train has 3 classes and val 3; only in train: class1; only in val: other:"
        " each class needs both"
    )


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (
            [f"train/class1/{number:03d}.jpg" for number in range(4)],
            (
                "train: data.quarantine leaves out 4 files (8 are left), and so every image of"
                " class1: "
            ),
        ),
        (
            [f"val/class{label}/{number:03d}.jpg" for label in range(3) for number in range(2)],
            "val: data.quarantine leaves out all of its 6 files: nothing is left to use",
        ),
    ],
)
def test_a_quarantine_that_empties_a_class_or_a_half_is_refused(out, said, folder, tmp_path):
    (tmp_path / "bad.txt").write_text("\n".join(out[:-1]))
    if out[0].startswith("train"):  # of val each class would be empty before all of it is
        kept = open_images(name="image_folder", dir=folder, quarantine=tmp_path / "bad.txt")
        assert kept.notes() == [("warning", "3 files are left out, as data.quarantine says")]
    (tmp_path / "bad.txt").write_text("\n".join(out))
    assert refused(dir=folder, quarantine=tmp_path / "bad.txt").startswith(f"{folder}/{said}")


def test_a_class_of_pictures_that_cannot_be_read_here_says_so(folder):
    for image in (folder / "train" / "class2").iterdir():
        image.rename(image.with_suffix(".svg"))
    line = refused(dir=folder)
    assert line.startswith(
        f"{folder}/train/class2: 0 images in this class folder (4 .svg files that cannot be read"
        " here)"
    )


def test_a_file_that_cannot_be_read_is_named_before_the_first_step(folder):
    (folder / "train" / "class1" / "nowhere.jpg").symlink_to("absent.jpg")
    with pytest.raises(DataError) as caught:
        open_images(name="image_folder", dir=folder).describe()
    assert str(caught.value).startswith(
        f"{folder}/train/class1/nowhere.jpg (sample 8): a symbolic link that leads nowhere"
    )


@pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become somebody who may not read a folder of his own"
)
def test_a_folder_behind_a_closed_door(open_place):
    folder = image_folder.make(open_place / "images", train=1, val=1)
    open_place.chmod(0o700)
    done = opened_by_a_stranger(folder)
    assert (done.returncode, done.stdout) == (
        3,
        f"{folder}: cannot be looked at (Permission denied)\n",
    ), done.stderr


@pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become somebody who may not read a folder of his own"
)
def test_unreadable_file(open_place):
    folder = image_folder.make(open_place / "images", train=1, val=1)
    (folder / "train" / "class1" / "000.jpg").chmod(0)
    done = opened_by_a_stranger(folder, ".describe()")
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith(
        f"{folder}/train/class1/000.jpg (sample 1): cannot be read (Permission denied): "
    )
