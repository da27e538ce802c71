"""What a plan file is to say of itself is held against the network, one line each, before anything
is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dgc
import dgc.runtime
from dgc.errors import UsageError
from dgc.infer.onnx_file import save_onnx
from dgc.infer.operators import save_pt2
from dgc.kernels.cpu import library
from dgc.runtime.plan import Preprocessing

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
HOW = {"resize": 24, "image_size": 20, "mean": (0.5,) * 3, "std": (0.2,) * 3, "channels": 3}
ABSENT = object()
KEYS = "resize, image_size, mean, std, channels"


def network(channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def save(folder: Path, channels: int = 3, **told: Any) -> Path:
    example = torch.zeros(1, channels, 20, 20)
    return dgc.save_plan(network(channels), example, folder / "x.dgc", **told)


def how(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (HOW | changes).items() if value is not ABSENT}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            {"classes": ["a", "b"]},
            "classes: 2 names, and the network answers with 4 numbers: give one name for each, or none",
        ),
        ({"classes": "four"}, "classes: should be a list of names, given the text 'four'"),
        ({"classes": [0, 1, 2, 3]}, "classes: should be a list of names, and 0 is none"),
        ({"classes": ["a", "b\n", "c", "d"]}, "class name 'b\\n': should be printable"),
        (
            {"preprocessing": how(image_size=32)},
            "preprocessing: image_size 32: an image becomes 32 x 32, the examples are 20 x 20",
        ),
        (
            {"preprocessing": how(resize=18)},
            "preprocessing: resize 18: should be image_size (20) or more, or None",
        ),
        (
            {"preprocessing": how(resize=24.0)},
            "preprocessing: resize 24.0: should be a whole number from 1 to 65,536",
        ),
        (
            {"preprocessing": how(image_size=0)},
            "preprocessing: image_size 0: should be a whole number from 1 to 65,536",
        ),
        (
            {"preprocessing": how(mean=(0.5,))},
            "preprocessing: mean: 1 numbers for an image of 3 channels",
        ),
        (
            {"preprocessing": how(std=(0.2,) * 4)},
            "preprocessing: std: 4 numbers for an image of 3 channels",
        ),
        ({"preprocessing": how(mean=0.5)}, "preprocessing: mean 0.5: should be 3 numbers"),
        (
            {"preprocessing": how(mean=(0, 0, float("nan")))},
            "preprocessing: mean [0.0, 0.0, nan]: should be finite",
        ),
        (
            {"preprocessing": how(std=(0.2, 0.2, 0))},
            "preprocessing: std (0.2, 0.2, 0.0): is divided by, so should be more than 0",
        ),
        ({"preprocessing": how(channels=2)}, "preprocessing: channels 2: should be 1 or 3"),
        ({"preprocessing": how(std=ABSENT)}, f"preprocessing: std is missing: it has {KEYS}"),
        (
            {"preprocessing": how(interpolation="bicubic")},
            f"preprocessing: 'interpolation' is unknown: it has {KEYS}",
        ),
        (
            {"preprocessing": how(crop="none")},
            "preprocessing: crop 'none': should be 'center', which is all there is",
        ),
        ({"preprocessing": 7}, f"preprocessing: resize is missing: it has {KEYS}"),
        (
            {"channels": 8, "preprocessing": how()},
            "preprocessing: is for networks of 3 channels or 1, and this one takes 8: leave it out",
        ),
        (
            {"channels": 1, "preprocessing": how()},
            "preprocessing: channels 3: should be 1, as the network takes",
        ),
        (
            {"channels": 1, "preprocessing": how(channels=1, mean=(0.5, 0.4, 0.5))},
            "preprocessing: mean and std differ by channel, and the network takes 1: give one number"
            " each",
        ),
        (
            {"origin": {"when": {1, 2}}},
            "origin: should be JSON: Object of type set is not JSON serializable",
        ),
        (
            {"origin": {"error": float("nan")}},
            "origin: should be JSON: Out of range float values are not JSON compliant: nan",
        ),
    ],
)
def test_what_contradicts_the_network_is_refused(
    told: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011  its whole text is read
        save(tmp_path, **told)
    assert isinstance(found.value, UsageError)
    assert str(found.value) in (line, line.removesuffix(": nan"))  # Python 3.11 names no value
    assert list(tmp_path.iterdir()) == []


def test_what_agrees_is_written(tmp_path: Path) -> None:
    wanted = Preprocessing(24, 20, (0.5,) * 3, (0.2,) * 3)
    numbers = np.array([0.5, 0.5, 0.5])
    for given in (HOW, wanted, how(channels=ABSENT, crop="center", mean=numbers)):
        plan = dgc.runtime.load(save(tmp_path, classes=list("abcd"), preprocessing=given))
        assert plan.preprocessing == wanted
    grey = {"resize": None, "image_size": np.int64(20), "mean": [0.5], "std": [0.2]}
    plan = dgc.runtime.load(save(tmp_path, channels=1, preprocessing=grey))
    assert plan.preprocessing == Preprocessing(None, 20, (0.5,) * 3, (0.2,) * 3, 1)
    again = asdict(plan.preprocessing)
    assert (
        dgc.runtime.load(save(tmp_path, 1, preprocessing=again)).preprocessing == plan.preprocessing
    )


@pytest.mark.parametrize("saver", [dgc.save_plan, save_pt2, save_onnx])
def test_a_place_that_cannot_be_is_one_line(saver: Callable[..., Path], tmp_path: Path) -> None:
    net, example = network(), torch.zeros(1, 3, 20, 20)
    with pytest.raises(ValueError, match=r"there is no folder .*/absent: make it first") as found:
        saver(net, example, tmp_path / "absent" / "x.dgc")
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        saver(net, example, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("saver", [dgc.save_plan, save_pt2])
def test_a_name_that_the_system_refuses_is_one_line_about_the_file_that_was_asked_for(
    saver: Callable[..., Path], tmp_path: Path
) -> None:
    net, example = network(), torch.zeros(1, 3, 20, 20)
    with pytest.raises(UsageError, match=f"{tmp_path}/x{{300}}: file name too long"):
        saver(net, example, tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_origin_that_is_json_comes_back(tmp_path: Path) -> None:
    told = {"run": "Käse", "numbers": [1, 2.5, None]}
    assert dgc.runtime.load(save(tmp_path, origin=told)).origin == json.loads(json.dumps(told))


@pytest.mark.parametrize(
    ("model", "example", "line"),
    [
        (network().double(), torch.zeros(1, 3, 20, 20), "model: 0.weight is torch.float64: give model.float()"),
        (network().to("meta"), torch.zeros(1, 3, 20, 20), "model: 0.weight is on meta: give model.cpu()"),
        (network().state_dict(), torch.zeros(1, 3, 20, 20), "model: should be a network (nn.Module), given OrderedDict"),
        (network(), (1, 3, 20, 20), "example: should be a batch (B, C, H, W) of images, or a list of such, given int"),
        (network(), torch.zeros(3, 20, 20), "example: should be a batch (B, C, H, W) of images, given (3, 20, 20)"),
        (network(), [], "example: at least one image is needed, for its size"),
    ],
    ids=["float64", "elsewhere", "weights", "sizes", "no batch", "nothing"],
)  # fmt: skip
def test_what_is_no_network_and_no_example_is_one_line(
    model: Any, example: Any, line: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011  its whole text is read
        dgc.save_plan(model, example, tmp_path / "x.dgc")
    assert str(found.value) == line
    assert list(tmp_path.iterdir()) == []


def test_names_hold_for_every_size(tmp_path: Path) -> None:
    """A network may answer with more numbers for a larger image."""
    net = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten())
    sizes = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 5, 5)]
    with pytest.raises(ValueError, match="4 names, and the network answers with 9 numbers"):
        dgc.save_plan(net, sizes, tmp_path / "x.dgc", list("abcd"))
    assert list(tmp_path.iterdir()) == []
