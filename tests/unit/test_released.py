"""Checkpoints in the released format: both containers, all four key lists, and what is refused by
name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dgc
from dgc.errors import IntegrityError, UsageError
from dgc.models import RELEASED, create_model, load_released
from dgc.models.released import from_released, to_released
from tests import golden

TINY = {"stages": (2, 2, 2)}


@pytest.mark.parametrize("container", ["legacy", "zip"])
def test_the_tiny_network_gives_the_released_logits(container: str) -> None:
    model = load_released(golden.HERE / f"tiny_dydensenet.{container}.tar", "dydensenet", **TINY)
    images, _ = golden.fashion_images(64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images.float()), golden.tiny_logits(), rtol=1e-5, atol=1e-5
        )
    assert sum(layer.n_inactive for _, layer in dgc.iter_dgc(model)) > 0


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_keys_load_strictly_and_come_back(name: str) -> None:
    listed = golden.released_keys()[name]["state_dict"]
    state = {
        key: torch.zeros(shape, dtype=getattr(torch, dtype))
        for key, (shape, dtype) in listed.items()
    }
    model = create_model(name)
    model.load_state_dict(from_released(state, model), strict=True)
    back = to_released(model.state_dict())
    assert {
        f"module.{key}": [list(value.shape), str(value.dtype)[6:]] for key, value in back.items()
    } == listed


def test_heads_keep_their_rows_both_ways() -> None:
    state = {
        key: torch.randn(value.shape)
        for key, value in create_model("dyresnet18", stem="cifar").state_dict().items()
    }
    again = from_released(to_released(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    theirs = to_released(state)["layer1.0.conv1.headconv_2.conv.weight"]
    assert torch.equal(theirs, state["layer1.0.conv1.weight"][32:48])


def tiny_state() -> dict[str, Tensor]:
    return to_released(create_model("dydensenet", **TINY).state_dict())


def damaged(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Tensor]:
    state = tiny_state()
    change(state)
    return state


FIRST = "features.denseblock_1.denselayer_1.conv_1."
WEIGHT = FIRST + "headconv_1.fc2.weight"
CASES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda s: s.pop(FIRST + "_inactive_channels"),
        f"1 keys differ: missing {FIRST}_inactive_channels",
    ),
    "extra": (lambda s: s.update(extra=torch.ones(1)), "1 keys differ: extra extra"),
    "transposed": (lambda s: s.update({WEIGHT: s[WEIGHT].t()}), f"{WEIGHT} is 2x16, must be 16x2"),
    "half": (
        lambda s: s.update({WEIGHT: s[WEIGHT].half()}),
        f"{WEIGHT} is torch.float16, must be torch.float32",
    ),
    "nan": (lambda s: s[WEIGHT].fill_(torch.nan), f"{WEIGHT} holds NaN or Inf"),
    "a head gone": (
        lambda s: [s.pop(key) for key in list(s) if "headconv_3" in key],
        (
            "24 keys differ: missing"
            " features.denseblock_1.denselayer_1.conv_1.headconv_3.conv.weight; missing"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_named(case: str) -> None:
    change, text = CASES[case]
    with pytest.raises(IntegrityError) as caught:
        from_released(damaged(change), create_model("dydensenet", **TINY))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_at_most_five_keys_are_named_and_the_fitting_model() -> None:
    other = to_released(create_model("cifar100_dydensenet86_h4").state_dict())
    with pytest.raises(IntegrityError) as caught:
        from_released(other, create_model("cifar10_dydensenet86_h4"))
    assert "classifier.weight is 100x800, must be 10x800" in str(caught.value)
    assert str(caught.value).endswith("(the checkpoint is for model cifar100_dydensenet86_h4)")
    with pytest.raises(
        IntegrityError, match=r"and \d+ more \(the checkpoint is for model cifar100"
    ):
        from_released(other, create_model("imagenet_dyresnet18_h4"))


def test_an_impossible_number_of_inactive_channels_is_refused(tmp_path: Path) -> None:
    state = damaged(lambda s: s[FIRST + "_inactive_channels"].fill_(16))
    torch.save({"state_dict": state}, tmp_path / "n.tar")
    with pytest.raises(
        IntegrityError, match=r"inactive_channels is 16.0, must be a whole number from 0 to 15"
    ):
        load_released(tmp_path / "n.tar", "dydensenet", **TINY)


class Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("canary"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        torch.save(
            {"state_dict": Canary()}, tmp_path / "bad.tar", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(IntegrityError, match="not a released checkpoint"):
            load_released(tmp_path / "bad.tar", "dydensenet")
        assert not Path("canary").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_released(tmp_path / "none.tar", "dydensenet")
    (tmp_path / "text.tar").write_text("<html>")
    with pytest.raises(IntegrityError, match="not a released checkpoint"):
        load_released(tmp_path / "text.tar", "dydensenet")
    torch.save({"state_dict": [1, 2]}, tmp_path / "list.tar")
    with pytest.raises(IntegrityError, match="holds no 'state_dict' of tensors"):
        load_released(tmp_path / "list.tar", "dydensenet")
