"""The native convolution against the oracle: random shapes, every instruction set that this machine
has, odd gates.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dgc
from dgc.errors import UsageError
from dgc.infer.conv_params import Conv
from dgc.kernels import cpu
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind
from dgc.layers import DynamicGroupConv2d
from dgc.layers.reference import masked_conv2d
from tests.one_layer import native_conv2d, plan_of

needs_kernels = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = cpu.describe().get("supported", []) if cpu.available() else []
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def shapes(draw: st.DrawFn, most: int) -> dict[str, int]:
    heads = draw(st.integers(1, 8))
    k = draw(st.sampled_from([1, 3, 5]))
    return {
        "batch": draw(st.integers(1, 3)),
        "heads": heads,
        "channels": heads * draw(st.integers(-(-8 // heads), max(most // heads, -(-8 // heads)))),
        "outputs": heads * draw(st.sampled_from([1, 2, 3, 4, 7, 8, 15, 16, 32, 48])),
        "k": k,
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.integers(1, 2)),
        "height": draw(st.integers(1, 20)),
        "width": draw(st.integers(1, 20)),
        "seed": draw(st.integers(0, 2**20)),
    }


@st.composite
def tiled(draw: st.DrawFn, most: int) -> dict[str, int]:
    """Shapes that go by Winograd's tiles."""
    s = draw(shapes(most)) | {"k": 3, "stride": 1, "padding": 1, "dilation": 1}
    s["outputs"] = s["heads"] * draw(st.sampled_from([8, 9, 11, 16, 23, 40]))
    return s | {"height": draw(st.integers(6, 40)), "width": draw(st.integers(6, 40))}


def _operands(s: dict[str, int], kept: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(s["seed"])
    x = torch.randn(s["batch"], s["channels"], s["height"], s["width"], generator=generator)
    w = torch.randn(s["outputs"], s["channels"], s["k"], s["k"], generator=generator)
    gates = torch.rand(s["batch"], s["heads"], s["channels"], generator=generator)
    if kept == "some":
        gates *= torch.rand(gates.shape, generator=generator) < 0.4
    if kept == "one":
        gates *= torch.arange(s["channels"]) == s["seed"] % s["channels"]
    if kept == "none":
        gates.zero_()
    return x, w, gates


def _leaves_pixels(s: dict[str, int]) -> bool:
    reach = s["dilation"] * (s["k"] - 1) + 1
    return min(s["height"], s["width"]) + 2 * s["padding"] >= reach


def _agrees(s: dict[str, int], kept: str) -> None:
    x, w, gates = _operands(s, kept)
    numbers = (s["stride"], s["padding"], s["dilation"])
    wanted = masked_conv2d(x.double(), w.double(), gates.double(), *numbers)
    found = native_conv2d(x, w, gates, *numbers, s["heads"])
    assert found.shape == wanted.shape
    scale = wanted.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)
    assert ((found - wanted).abs() / scale).max() < 1e-5


@needs_kernels
@pytest.mark.parametrize("isa", ISAS)
@SETTINGS
@given(s=shapes(most=96), kept=st.sampled_from(["all", "some", "one", "none"]))
def test_the_kernels_agree_with_the_oracle(isa: str, s: dict[str, int], kept: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assume(_leaves_pixels(s))
        patch.setenv(library.FORCE, isa)
        _agrees(s, kept)


@needs_kernels
@pytest.mark.parametrize("isa", ISAS)
@settings(SETTINGS, max_examples=50)
@given(s=tiled(most=64), kept=st.sampled_from(["all", "some", "one", "none"]))
def test_convolution_by_tiles_agrees_with_the_oracle(
    isa: str, s: dict[str, int], kept: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.FORCE, isa)
        _agrees(s, kept)


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
@settings(SETTINGS, max_examples=300)
@given(s=tiled(most=1024), kept=st.sampled_from(["all", "some", "one", "none"]))
def test_convolution_by_tiles_agrees_with_the_oracle_on_wide_layers(
    isa: str, s: dict[str, int], kept: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.FORCE, isa)
        _agrees(s, kept)


@needs_kernels
@pytest.mark.parametrize(
    ("size", "stride", "kind"),
    [
        ((12, 12), 1, Kind.WINO),
        ((13, 30), 1, Kind.WINO),
        ((6, 7), 1, Kind.WINO),
        ((5, 6), 1, Kind.CONV),
        ((24, 24), 2, Kind.CONV),
    ],
)
def test_which_shapes_go_by_tiles(size: tuple[int, int], stride: int, kind: Kind) -> None:
    conv = Conv(
        torch.randn(32, 16, 3, 3), None, stride, (1, 1), (1, 1), 2, fc1=torch.rand(1, 2, 16)
    )
    assert kind in [op.kind for op in plan_of(conv, (16, *size), torch.rand(1, 2, 16)).ops]


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
@settings(SETTINGS, max_examples=600)
@given(s=shapes(most=1024), kept=st.sampled_from(["all", "some", "one", "none"]))
def test_the_kernels_agree_with_the_oracle_on_wide_layers(
    isa: str, s: dict[str, int], kept: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assume(_leaves_pixels(s))
        patch.setenv(library.FORCE, isa)
        _agrees(s, kept)


@needs_kernels
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "k", "stride"),
    [
        (1024, 64, 7, 1, 1),
        (512, 512, 7, 3, 1),
        (64, 64, 56, 3, 1),
        (64, 128, 56, 3, 2),
        (64, 128, 56, 1, 2),
    ],
)
def test_the_shapes_of_the_networks(
    isa: str,
    channels: int,
    outputs: int,
    size: int,
    k: int,
    stride: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    s = {"batch": 1, "heads": 4, "channels": channels, "outputs": outputs, "k": k, "stride": stride}
    _agrees(
        s | {"padding": k // 2, "dilation": 1, "height": size, "width": size, "seed": 3}, "some"
    )


@needs_kernels
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [7, 30, 31])
@pytest.mark.parametrize("at", [(2, 3), (0, 0), (6, 6), (5, 0)])
def test_nan_stays_in_its_sample(k: int, size: int, at: tuple[int, int]) -> None:
    x, w, gates = torch.randn(3, 32, size, size), torch.randn(64, 32, k, k), torch.rand(3, 4, 32)
    x[1, 5, at[0], at[1]] = torch.nan
    found = native_conv2d(x, w, gates, 1, k // 2, 1, 4)
    wanted = masked_conv2d(x, w, gates, 1, k // 2, 1)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert found[1].isnan().any()
    assert not found[[0, 2]].isnan().any()


@needs_kernels
@pytest.mark.parametrize("size", [5, 14, 33])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(size: int, batch: int) -> None:
    torch.manual_seed(0)
    layer = DynamicGroupConv2d(48, 96, 3, padding=1, heads=3).eval()
    layer.set_inactive(30)
    engine = dgc.compile_for_inference(layer)
    x = torch.randn(batch, 48, size, size)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found.append(engine(x))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], f) for f in found[1:])


@needs_kernels
def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.FORCE, "sse9")
    with pytest.raises(UsageError, match=r"DGC_NATIVE_ISA=sse9: unknown word 'sse9'"):
        library.load()


@needs_kernels
def test_describe_names_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lowest = ISAS[0]
    monkeypatch.setenv(library.FORCE, lowest)
    facts = cpu.describe()
    assert facts["available"] is True
    assert facts["isa"] == lowest
    assert facts["why_not"] is None


def test_without_kernels_everything_runs_and_one_warning_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "_open", lambda: (None, None, "the kernels were not built"))
    layer = DynamicGroupConv2d(8, 8, 1).eval()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert dgc.compile_for_inference(layer) is layer
    assert [str(w.message) for w in said] == ["no native kernels: the kernels were not built"]
    assert cpu.available() is False
    assert cpu.describe()["why_not"] == "the kernels were not built"
