"""Image files of every kind that people have, made by Pillow: read rightly, or refused in words."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from dgc.data import transforms
from dgc.errors import DataError
from dgc.runtime import image_file
from dgc.runtime.image_file import read_rgb

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)  # each grey once


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    image = read_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(path: Path) -> np.ndarray:
    """The one channel of a picture whose three are equal."""
    found = pixels(path)
    assert np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(found[..., 0], found[..., 2])
    return found[..., 0]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_of_16_bits_keeps_its_upper_8(ending: str, tmp_path: Path) -> None:
    deep = LEVELS.astype(np.uint16) * 256 + 77
    path = tmp_path / f"deep.{ending}"
    if ending == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + deep.astype(">u2").tobytes())
    else:
        saved(path, Image.fromarray(deep))
    assert np.array_equal(grey(path), LEVELS)


def tiff(samples: np.ndarray, bits: int, photometric: int, kind: int = 1) -> bytes:
    """An uncompressed grey TIFF of 16 x 16: little endian, one strip."""
    data = samples.tobytes()
    entries = [(256, 3, 16), (257, 3, 16), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
               (277, 3, 1), (278, 3, 16), (279, 4, len(data)), (339, 3, kind)]  # fmt: skip
    table = len(entries).to_bytes(2, "little")
    for tag, form, value in entries:
        table += tag.to_bytes(2, "little") + form.to_bytes(2, "little") + (1).to_bytes(4, "little")
        table += value.to_bytes(4, "little")
    return b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + table + bytes(4)


def test_a_tiff_whose_zero_is_white(tmp_path: Path) -> None:
    (tmp_path / "white.tif").write_bytes(tiff(LEVELS.astype("<u2") << 8, 16, 0))
    assert np.array_equal(grey(tmp_path / "white.tif"), 255 - LEVELS)


def test_a_tiff_of_12_bits(tmp_path: Path) -> None:
    # two samples in three bytes, upper bits first
    twelve = LEVELS.reshape(-1, 2).astype(np.uint16) << 4
    first, second = twelve[:, 0], twelve[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(
        np.uint8
    )
    (tmp_path / "twelve.tif").write_bytes(tiff(packed, 12, 1))
    assert np.array_equal(grey(tmp_path / "twelve.tif"), LEVELS)


def test_colour_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    colour = np.stack([LEVELS, 255 - LEVELS, LEVELS.T], 2)
    deep = (colour.astype(np.uint16) * 256 + 200).astype(">u2")
    body = b"P6 16 16 65535\n" + deep.tobytes()
    (tmp_path / "deep.ppm").write_bytes(body)
    # Pillow rounds in this format
    assert np.abs(pixels(tmp_path / "deep.ppm").astype(int) - colour).max() <= 1
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(deep))
    assert np.array_equal(pixels(tmp_path / "deep.png"), colour)


def png_of_16_bits(samples_HWC: np.ndarray) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    height, width, _ = samples_HWC.shape
    rows = b"".join(b"\0" + row.tobytes() for row in samples_HWC)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (
            LEVELS.astype(np.float32) / 255,
            "floating-point samples (mode F): convert it to 8 or 16 bits a sample",
        ),
        (
            LEVELS.astype(np.int32) * 1000,
            "samples of 32 bits or with a sign (mode I): convert it to 8 or 16 bits",
        ),
    ],
)
def test_samples_without_an_agreed_white_are_refused(
    samples: np.ndarray, said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "odd.tif", Image.fromarray(samples))
    for ask in (read_rgb, image_file.check):
        with pytest.raises(DataError) as caught:
            ask(path)
        assert str(caught.value).startswith(said)


def test_a_colour_space_that_pillow_cannot_convert_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "lab.tif", Image.new("LAB", (8, 8)))
    with pytest.raises(DataError, match=r"samples \(mode LAB\): convert it"):
        read_rgb(path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_reach_from_black_to_white(bits: int, tmp_path: Path) -> None:
    top = 2**bits - 1
    samples = np.arange(64, dtype=np.uint8).reshape(8, 8) % (top + 1)
    path = tmp_path / "few.png"
    if bits == 1:
        saved(path, Image.fromarray(samples * 255).convert("1"))
    else:
        path = tmp_path / "few.pgm"
        path.write_bytes(f"P5 8 8 {top}\n".encode() + samples.tobytes())
    assert np.array_equal(grey(path), (samples.astype(int) * 255 / top).round().astype(np.uint8))


def test_transparency_is_dropped_alike_in_every_form(tmp_path: Path) -> None:
    """As torchvision does: the colour under it shows, be it in a palette, beside grey, or beside
    RGB.
    """
    colours = np.zeros((8, 8, 4), np.uint8)
    colours[..., :3] = 200
    colours[:4, :, 3] = 255  # the lower half cannot be seen
    rgba = Image.fromarray(colours)
    for name, image in (("rgba", rgba), ("la", rgba.convert("LA"))):
        assert (pixels(saved(tmp_path / f"{name}.png", image)) == 200).all()
    palette = Image.fromarray(np.eye(8, dtype=np.uint8))
    palette.putpalette([200] * 6)
    saved(tmp_path / "palette.png", palette, transparency=bytes([0, 128]))
    with warnings.catch_warnings(), image_file.quiet():
        assert (pixels(tmp_path / "palette.png") == 200).all()


def test_cmyk_of_a_jpeg_and_of_a_tiff_is_the_same_colour(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for ending in ("tif", "jpg"):
        assert (
            np.abs(pixels(saved(tmp_path / f"red.{ending}", red)).astype(int) - [255, 0, 0]).max()
            <= 3
        )


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_a_moving_picture_the_first_one_counts(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (255, 0)]
    path = saved(tmp_path / f"moving.{ending}", frames[0], save_all=True, append_images=frames[1:])
    assert (pixels(path) >= 254).all()


def test_an_exif_orientation_is_not_applied_but_counted(tmp_path: Path) -> None:
    """So do torchvision, and with it every published figure; training, evaluation and predict
    agree.
    """
    image, exif = Image.fromarray(np.stack([LEVELS] * 3, 2)), Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned.png", image, exif=exif)
    plain = saved(tmp_path / "plain.png", image)
    assert np.array_equal(pixels(turned), pixels(plain))
    assert (image_file.check(turned), image_file.check(plain)) == (True, False)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "webp", "avif"])
def test_rarer_endings_are_read_where_pillow_can(ending: str, tmp_path: Path) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(ending, ending.upper())
    if ending == "avif" and not features.check("avif"):
        assert ".avif" not in image_file.extensions()
        return
    path = saved(tmp_path / f"a.{ending}", Image.new("RGB", (16, 16), (250, 10, 10)), format=kind)
    assert f".{ending}" in image_file.extensions()
    assert pixels(path)[0, 0, 0] > 200
    assert ".heic" not in image_file.extensions() or ".heic" in Image.registered_extensions()


# --- very long images -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (32, 32), (3000, 20), (20, 3000), (257, 256)]
)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (36, 32), (None, 32)])
def test_long_images_have_the_pixels_of_the_whole(
    size: tuple[int, int], resize: int | None, crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of very long images, forced on ordinary ones, gives what the whole image gives, to
    rounding.
    """
    random = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    whole = np.asarray(transforms.fit(Image.fromarray(random), resize, crop))
    monkeypatch.setattr("dgc.runtime.fit._MAX_SCALED", 0)
    windowed = np.asarray(transforms.fit(Image.fromarray(random), resize, crop))
    assert np.abs(whole.astype(int) - windowed).max() <= 1


STRIP = """
import resource, sys
from PIL import Image
from dgc.data import transforms
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for size in ((1, 60_000), (60_000, 1), (2, 40_000_000)):
    assert transforms.fit(Image.new("RGB", size, 9), 256, 224).size == (224, 224)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_strip_takes_no_gigabytes() -> None:
    limit = 8 << 30  # so that a fault ends here, and not with the machine's memory

    done = subprocess.run(
        [sys.executable, "-c", STRIP],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr[-500:]
    # KiB; the largest of them holds 320 MB itself, all of it scaled 15 TB
    assert int(done.stdout) < 1_000_000


def test_what_is_read_is_what_was_saved() -> None:
    """Ordinary files are untouched by all of the above."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8))
    body = io.BytesIO()
    image.save(body, "PNG")
    assert np.array_equal(np.asarray(image_file._decode(body.getvalue())), np.asarray(image))
