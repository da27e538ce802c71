"""Each algorithm of the table against the oracle: output and every gradient of a layer, on odd
shapes, ties and strides.
"""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgc.kernels.cpu import train_passes
from dgc.layers import DynamicGroupConv2d, dispatch
from dgc.layers.backend import BACKENDS
from dgc.layers.dispatch import Algorithm, DispatchRow
from tests.unit.test_layers_gradients import gradients, random_layer

# GPU kernels are tested where there is a GPU, and by Triton's interpreter
HERE = [name for name in get_args(Algorithm) if name != "triton"]
# what an algorithm is made for; the others take any shape
_UNPADDED = {"kernel_size": 1, "padding": 0}
ONLY: dict[Algorithm, dict[str, int]] = {"product": _UNPADDED, "own_weights": _UNPADDED}

SHAPES = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 5),
        "per_head": st.integers(1, 5),
        "outs": st.sampled_from([1, 2, 3, 7]),
        "kernel_size": st.sampled_from([1, 2, 3]),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 2),
        "dilation": st.integers(1, 2),
        "off": st.floats(0, 0.99),
        "size": st.tuples(st.integers(5, 9), st.integers(5, 9)),
        "ties": st.booleans(),
        "training": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


def layer_of(algorithm: Algorithm, shape: dict[str, Any]) -> tuple[DynamicGroupConv2d, Tensor]:
    given = shape | ONLY.get(algorithm, {})
    channels = given["heads"] * given["per_head"]
    layer = random_layer(
        given["seed"],
        int(given["off"] * channels),
        in_channels=channels,
        out_channels=given["heads"] * given["outs"],
        gate_factor=1.0,
        **{key: given[key] for key in ("heads", "kernel_size", "stride", "padding", "dilation")},
    )
    if given["ties"]:  # each head weighs all channels the same, so n of them are off with all ties
        with torch.no_grad():
            layer.fc2.zero_()
            layer.fc2_bias.fill_(0.5)
    return layer.train(given["training"]), torch.randn(2, channels, *given["size"]).double()


def against_oracle(
    algorithm: Algorithm, shape: dict[str, Any], channels: Any = dispatch.all_channels
) -> None:
    layer, x = layer_of(algorithm, shape)
    with torch.no_grad():  # stay clear of the ReLU's kink, where float32 may fall to the other side
        x = torch.where(copy.deepcopy(layer).norm(x).abs() < 1e-4, x + 0.01, x)  # type: ignore[misc]
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    expected = gradients(oracle, x)
    dtype = torch.float32 if algorithm == "native" else torch.float64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "DYNAMIC", (DispatchRow(algorithm, BACKENDS, (), channels),))
        found = gradients(layer.to(dtype), x.to(dtype))
    tolerance = 1e-4 if algorithm == "native" else 1e-9
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() <= tolerance * max(1e-2, b.abs().max().item())


@pytest.mark.parametrize("algorithm", HERE)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SHAPES)
def test_an_algorithm_has_the_oracles_output_and_gradients(
    algorithm: Algorithm, shape: dict[str, Any]
) -> None:
    if algorithm == "native" and not train_passes.available():
        pytest.skip("the kernels were not built: no C++ compiler")
    against_oracle(algorithm, shape)


@pytest.mark.parametrize("algorithm", ["product", "per_sample"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SHAPES)
def test_an_algorithm_that_gathers_the_selected_channels_has_them_too(
    algorithm: Algorithm, shape: dict[str, Any]
) -> None:
    def selected(call: dispatch.LayerCall) -> int:
        return call.selected

    against_oracle(algorithm, shape, selected)
