"""Files that a training starts from: whatever PyTorch's users save, by what is in it and not by its
name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dgc
from dgc.errors import IntegrityError
from dgc.hub import initial


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 32, 3), nn.Flatten())


@pytest.mark.parametrize("name", ["own.pt", "own.safetensors"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"net": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
)
def test_what_training_scripts_save_is_read(name: str, wrapped: Any, tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(wrapped(state), tmp_path / name)
    found = initial.tensors(tmp_path / name)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_what_is_no_state_dict_says_what_to_save(tmp_path: Path) -> None:
    torch.save({"mine": network().state_dict(), "epoch": 3}, tmp_path / "own.pt")
    with pytest.raises(IntegrityError, match=r"no tensors \(mine, epoch\): save model.state_dict"):
        initial.tensors(tmp_path / "own.pt")


@pytest.mark.parametrize("prefix", ["model.", "net."])
def test_the_name_under_which_a_training_module_holds_the_network_is_left_out(
    prefix: str, tmp_path: Path
) -> None:
    net, fresh = network(), network()
    state = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    initial.load(fresh, initial.unnamed(tmp_path / "last.ckpt"), ())
    assert torch.equal(fresh.get_parameter("0.weight"), net.get_parameter("0.weight"))
    torch.save({"other.weight": torch.ones(2), "other.bias": torch.ones(2)}, tmp_path / "no.pt")
    with pytest.raises(IntegrityError, match=r"other\.weight is unknown"):
        initial.load(fresh, initial.unnamed(tmp_path / "no.pt"), ())
    state["criterion.weight"] = torch.ones(2)
    torch.save(state, tmp_path / "more.ckpt")
    with pytest.raises(IntegrityError, match=r"0\.weight is missing; 0\.bias is missing"):
        initial.load(fresh, initial.unnamed(tmp_path / "more.ckpt"), ())


def test_weights_of_a_converted_network_without_its_structure_say_what_is_missing(
    tmp_path: Path,
) -> None:
    net = network()
    dgc.convert(net, torch.randn(1, 16, 8, 8))
    torch.save(net.state_dict(), tmp_path / "bare.pt")
    start = initial.unnamed(tmp_path / "bare.pt", "model.init")
    with pytest.raises(
        IntegrityError, match=r"converted network, and nothing says how .* put structure.json"
    ) as caught:
        initial.load(network(), start, ())
    assert "model.reset" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_the_structure_beside_weights_is_read_whatever_their_form(
    name: str, tmp_path: Path
) -> None:
    net = network()
    dgc.convert(net, torch.randn(1, 16, 8, 8))
    torch.save(net.state_dict(), tmp_path / name)
    (tmp_path / "structure.json").write_text(json.dumps(dgc.structure(net)))
    assert set(initial.told_structure(tmp_path / name)["layers"]) == {"0"}
