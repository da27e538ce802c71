"""From an image file, or its pixels, to the input of a plan: of colour, grey, or several at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import dgc
import dgc.runtime
from dgc.data.normalise import Normalise
from dgc.errors import ArgumentError, UsageError
from dgc.hub.registry import ImageSteps
from dgc.jobs.predict import prepare
from dgc.kernels.cpu import library
from dgc.runtime import classify, writer
from dgc.runtime.plan import Preprocessing
from dgcctl.cli.main import main

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
GREY = Preprocessing(24, 20, (0.286,) * 3, (0.353,) * 3, 1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def saved(folder: Path, channels: int, how: Preprocessing | None, size: int = 20) -> Path:
    example = torch.zeros(1, channels, size, size)
    return dgc.save_plan(network(channels), example, folder / "x.dgc", preprocessing=how)


def logits_of(file: Path, photo: Path) -> NDArray[np.float64]:
    (found,), bad = classify.predict(dgc.runtime.load(file), [photo])
    assert bad == []
    by_index = sorted(found["classes"], key=lambda row: row["index"])
    return np.array([row["probability"] for row in by_index])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_network_sees_what_predict_from_a_checkpoint_makes(
    channels: int, tmp_path: Path, photo: Path
) -> None:
    wanted = prepare(photo, ImageSteps(24, 20, GREY.mean, GREY.std, 1))[:, :channels]
    plan = dgc.runtime.load(saved(tmp_path, channels, GREY))
    found = classify.prepare(photo, GREY, channels)
    assert np.array_equal(found, wanted.numpy())
    logits = plan(wanted.numpy())[0].astype(np.float64)
    chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert np.array_equal(logits_of(tmp_path / "x.dgc", photo), chances)
    with torch.no_grad():
        assert np.allclose(network(channels)(wanted).softmax(1)[0], chances, atol=1e-6)


def test_a_network_of_one_channel_is_given_grey_whatever_its_file_says(
    tmp_path: Path, photo: Path
) -> None:
    """Files of before were not held against their network: `channels` is 3 where nobody said 1."""
    of_colour = Preprocessing(24, 20, GREY.mean, GREY.std)
    found = logits_of(forged(tmp_path, 1, of_colour), photo)
    assert np.array_equal(found, logits_of(saved(tmp_path, 1, GREY), photo))


@pytest.mark.parametrize(
    ("channels", "line"),
    [
        (
            8,
            "its network takes images of 8 channels, and an image file has 3, or 1 made grey: call",
        ),
        (
            2,
            "its network takes images of 2 channels, and an image file has 3, or 1 made grey: call",
        ),
    ],
)
def test_an_image_file_for_a_network_of_other_channels_is_one_line(
    channels: int, line: str, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = forged(tmp_path, channels, GREY)
    assert main(["predict", "--plan", str(file), str(photo)]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: x.dgc: {line} it with arrays\n"
    assert said.out == ""


def test_an_image_file_for_a_plan_of_another_size_is_one_line(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = forged(tmp_path, 3, Preprocessing(24, 18, MEAN, STD))
    assert main(["predict", "--plan", str(file), str(photo)]) == 2
    assert capsys.readouterr().err == (
        "error: x.dgc: an image file becomes 18 x 18 pixels, and it has programs for 20 x 20:"
        " export it again with --size 18 too\n"
    )


def forged(folder: Path, channels: int, how: Preprocessing) -> Path:
    """A plan whose preprocessing is not its network's, as no `save_plan` writes it."""
    bare = np.fromfile(saved(folder, channels, None), np.uint8)
    head = writer._HEADER.unpack_from(bare.tobytes())
    sections = {}
    for i in range(head[4]):
        kind, _, start, size, _ = writer._SECTION.unpack_from(bare.tobytes(), 64 + 32 * i)
        sections[kind] = bare[start : start + size].copy()
    sections[writer.PREPROCESSING] = np.frombuffer(writer._preprocessing(how), np.uint8)
    data = writer._laid_out(writer.Kernels(head[2], head[5]), sections)
    data.tofile(folder / "x.dgc")
    return folder / "x.dgc"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            (1, 3, 20, 20),
            r"takes \(images, 1, 20, 20\), given \(1, 3, 20, 20\): images of 3 channels",
        ),
        ((1, 20, 20), r"given \(1, 20, 20\): one image is a batch too \(images\[None\]\)"),
        ((1, 1, 20, 21), r"given \(1, 1, 20, 21\); `dgcctl export --size HxW` adds others"),
    ],
)
def test_an_array_of_another_shape_is_told_what_is_wrong_with_it(
    shape: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    plan = dgc.runtime.load(saved(tmp_path, 1, GREY))
    with pytest.raises(UsageError, match=words) as found:
        plan(np.zeros(shape, np.float32))
    assert ("--size" in str(found.value)) == (shape == (1, 1, 20, 21))


def test_pixels_of_any_form_are_normalised_as_training_does() -> None:
    how = Preprocessing(None, 40, MEAN, STD)
    theirs = Normalise(MEAN, STD, torch.float32, torch.device("cpu"))
    dice = np.random.default_rng(0)
    colour = dice.integers(0, 256, (4, 40, 30, 3), np.uint8)
    grey = dice.integers(0, 256, (4, 40, 30, 1), np.uint8)
    for pixels in (colour, grey):
        wanted = theirs(torch.from_numpy(pixels)).numpy()
        assert np.array_equal(how.normalise(pixels), wanted)
        assert np.array_equal(how.normalise(pixels[1]), wanted[1:2])
    wanted = theirs(torch.from_numpy(grey)).numpy()
    assert np.array_equal(how.normalise(grey[1, ..., 0]), wanted[1:2])
    assert np.array_equal(how.normalise(grey, 1), wanted[:, :1])
    assert how.normalise(grey, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("pixels", "channels", "words"),
    [
        (np.zeros((4, 4, 2), np.uint8), 3, r"should be \(H, W\).*given \(4, 4, 2\)"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), 3, r"given \(1, 1, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), 3, r"should be bytes .* given float32"),
        (np.zeros((4, 4, 3), np.uint8), 1, "pixels of 3 channels for a network of 1"),
        (np.zeros((4, 4), np.uint8), 2, "pixels of 1 channels for a network of 2"),
    ],
)
def test_pixels_that_are_none_are_refused(
    pixels: NDArray[np.uint8], channels: int, words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        Preprocessing(None, 4, MEAN, STD).normalise(pixels, channels)


@pytest.mark.parametrize("size", [(70, 50), (51, 33), (20, 41), (9, 12)], ids=str)
@pytest.mark.parametrize("resize", [24, None])
def test_the_steps_of_the_page_are_those_of_an_image_file(
    size: tuple[int, int], resize: int | None, tmp_path: Path
) -> None:
    """docs/deploy.md, "What an image goes through", word for word."""
    width, height = size
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    image, short = Image.open(tmp_path / "x.png"), resize or 20
    if min(size) != short:
        longer = short * max(size) // min(size)
        sides = (longer, short) if width > height else (short, longer)
        image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (round((side - 20) / 2) for side in image.size)
    cut = np.asarray(image)[top : top + 20, left : left + 20].astype(np.int64)
    grey = (cut @ [19595, 38470, 7471] + 32768) // 65536
    for x, channels, of_file in ((cut, 3, 3), (grey[..., None], 3, 1), (grey[..., None], 1, 1)):
        how = Preprocessing(resize, 20, MEAN, STD, of_file)
        full = np.float32(255)
        mean, std = (np.asarray(v, np.float32)[:channels] for v in (MEAN, STD))
        wanted = ((x.astype(np.float32) / full - mean) / std).transpose(2, 0, 1)[None]
        assert np.array_equal(classify.prepare(tmp_path / "x.png", how, channels), wanted)
