"""Which algorithm is taken: the table of dgc.layers.dispatch, and what is refused."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import torch
from torch import nn

import dgc
from dgc.kernels import gpu
from dgc.kernels.cpu import train_passes
from dgc.layers import DynamicGroupConv2d, dispatch
from dgc.layers.backend import BACKENDS, unavailable
from dgc.layers.dispatch import LayerCall

HERE = LayerCall(
    "auto", 1, 0, 400, 300, True, True, "cpu", torch.float32, nchw=True, pixels=256
)  # what the kernels take


def taken(kernels: bool = True, **changes: Any) -> tuple[str, int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_passes, "available", lambda: kernels)
        return dispatch.dynamic(HERE._replace(**changes))


def plain(kernel: int, channels: int, off: int, pixels: int, padding: int, device: str) -> Any:
    return taken(
        backend="plain", kernel=kernel, channels=channels, n_inactive=off,
        pixels=pixels, padding=padding, device=device,
    )  # fmt: skip


def test_the_kernels_are_taken_where_they_fit_and_nowhere_else() -> None:
    assert taken() == ("native", 400)
    assert taken(kernels=False) == ("product", 100)
    for change in (
        {"dtype": torch.float64}, {"dtype": None}, {"nchw": False}, {"backend": "plain"},
    ):  # fmt: skip
        assert taken(**change) == ("product", 100), change
    assert taken(device="cuda") == ("own_weights", 400)
    for change in ({"fusible": False}, {"norms_split": False}):
        assert taken(**change) == ("gathered", 400), change
        assert taken(**change, n_inactive=100) == ("masked", 400), change
        assert taken(**change, kernel=3) == ("masked", 400), change


def test_the_table_is_read_once_for_a_question_and_again_where_the_kernels_change() -> None:
    read = []
    with pytest.MonkeyPatch.context() as patch:
        first = (dispatch.DYNAMIC[0]._replace(needs=(lambda c: bool(read.append(c)),)),)
        patch.setattr(dispatch, "DYNAMIC", first + dispatch.DYNAMIC)
        asked = {"backend": "masked", "channels": 4711}  # what no other test asks
        assert [taken(**asked), taken(**asked)] == [("masked", 4711)] * 2
        assert len(read) == 1
        taken(kernels=False, **asked)
        assert len(read) == 2


def test_plain_pytorch_is_a_function_of_shape_and_n_alone() -> None:
    assert plain(1, 400, 300, 256, 0, "cpu") == ("product", 100)
    assert plain(1, 400, 100, 256, 0, "cpu") == ("product", 400)
    assert plain(1, 400, 300, 256, 1, "cpu")[0] != "product", "the product knows no padding"
    assert plain(3, 128, 70, 784, 1, "cpu") == ("per_sample", 64)
    assert plain(3, 128, 0, 784, 1, "cpu") == ("per_sample", 128)
    assert plain(3, 512, 282, 49, 1, "cpu") == ("per_head", 512)
    assert plain(3, 128, 70, 784, 1, "cuda") == ("all_heads", 128)


def test_every_algorithm_stands_in_the_table_and_can_be_reached() -> None:
    assert {row.algorithm for row in dispatch.DYNAMIC} == set(get_args(dispatch.Algorithm))
    assert {name for row in dispatch.DYNAMIC for name in row.backends} == set(BACKENDS)
    for backend in ("masked", "gathered"):
        assert taken(backend=backend)[0] == backend
        assert taken(backend=backend, fusible=False)[0] == backend


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kernels": False}, "the C++ kernels are not there"),
        ({"device": "cuda"}, "the C++ kernels work on the CPU, and the input is not there"),
        ({"dtype": torch.bfloat16}, "the C++ kernels work in float32"),
        ({"nchw": False}, "the C++ kernels take images that are contiguous"),
        ({"norms_split": False}, "a BatchNorm of the layer is no plain one or has hooks"),
    ],
)
def test_native_by_name_is_native_or_one_line(change: dict[str, Any], why: str) -> None:
    assert taken(backend="native") == ("native", 400)
    assert taken(backend="native", fusible=False) == ("gathered", 400), "a tracer takes it apart"
    with pytest.raises(dgc.errors.ArgumentError, match=re.escape(f"backend='native': {why}")):
        taken(backend="native", **change)


def test_triton_by_name_is_triton_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "installed", lambda: True)
    assert taken(backend="triton", device="cuda")[0] == "triton"
    assert taken(backend="triton", device="cuda", dtype=None)[0] == "triton", "under autocast"
    for change, why in (
        ({"device": "cpu"}, "Triton kernels work on a GPU, and the input is not there"),
        ({"dtype": torch.float64}, "Triton kernels work in float32, bf16 and fp16"),
        ({"norms_split": False}, "a BatchNorm of the layer is no plain one"),
    ):
        with pytest.raises(dgc.errors.ArgumentError, match=f"backend='triton': {why}"):
            taken(backend="triton", **({"device": "cuda"} | change))
    assert taken(backend="auto", device="cuda")[0] != "triton", "by name alone"
    assert unavailable("triton", "cuda") == ""
    assert unavailable("triton") == "Triton kernels work on a GPU, and the device is cpu"
    monkeypatch.setattr(gpu, "installed", lambda: False)
    with pytest.raises(dgc.errors.ArgumentError, match="Triton is not installed"):
        taken(backend="triton", device="cuda")
    assert "Triton is not installed" in unavailable("triton", "cuda")
    assert "work on the CPU, and the device is cuda" in unavailable("native", "cuda")
    assert unavailable("plain", "cuda") == ""


def test_a_layer_of_a_network_is_refused_by_name_too() -> None:
    net = nn.Sequential(DynamicGroupConv2d(8, 8))
    dgc.set_backend(net, "native")
    with pytest.raises(ValueError, match=r"backend='native': .*: use backend='auto'"):
        net.double()(torch.randn(1, 8, 3, 3).double())
    with pytest.warns(dgc.errors.OlderNameWarning, match=r"dgc\.set_method is the older name of"):
        dgc.set_method(net, "plain")
    assert net.double()(torch.randn(2, 8, 3, 3).double()).shape == (2, 8, 3, 3)
    with pytest.warns(dgc.errors.OlderNameWarning, match=r"method= is the older name of backend="):
        assert DynamicGroupConv2d(8, 8, method="masked").backend == "masked"
    with pytest.raises(ValueError, match="backend='fast': one of auto, native"):
        DynamicGroupConv2d(8, 8, backend="fast")  # type: ignore[arg-type]
