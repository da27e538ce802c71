"""Any network can be converted: it computes what it did, prunes exactly as far as it should, and
comes back from its description.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dgc
from dgc.conversion import start, trial
from dgc.errors import ArgumentError, DgcError, IntegrityError
from dgc.layers import DynamicGroupConv2d, iter_dgc


class Net(nn.Module):
    """Convolutions of many kinds, one of them called twice on images of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.bn = nn.BatchNorm2d(32)
        self.depth = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.wide = nn.Conv2d(32, 64, 5, 1, 2, bias=True)
        self.branch = nn.ModuleDict({"a": nn.Conv2d(64, 64, 1, bias=False)})
        self.shared = nn.Conv2d(64, 64, 3, 1, 1)
        self.squeeze = nn.Conv2d(64, 64, 1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        x = F.relu(self.wide(F.relu(self.depth(x))))
        x = F.relu(self.branch["a"](x))
        x = F.relu(self.shared(x))
        x = F.relu(self.shared(F.max_pool2d(x, 2)))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.fc(x.mean((2, 3)))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def images(count: int = 2, size: int = 24) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 4, 8]),
    bias=st.booleans(),
    channels=st.sampled_from([16, 24, 80, 96]),
    factor=st.sampled_from([0.25, 0.45, 0.5, 0.75]),
    double=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_convolution_is_itself_until_channels_are_switched_off_and_then_keeps_what_it_should(
    kernel: int, stride: int, padding: int, dilation: int, heads: int, bias: bool, channels: int,
    factor: float, double: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, 128, kernel, stride, padding, dilation, bias=bias)
    model = nn.Sequential(conv.double() if double else conv)
    before, x = copy.deepcopy(model), torch.randn(2, channels, 18, 17, dtype=conv.weight.dtype)
    report = dgc.convert(model, x, heads=heads, gate_factor=factor)
    layer = model[0]
    assert isinstance(layer, DynamicGroupConv2d)
    assert trial.off([model(x)], [before(x)]) < (1e-12 if double else 1e-5)
    assert report.difference is not None
    dgc.set_progress(model, 1.0)
    kept = channels - round(channels * (1 - factor))
    selected, _ = layer._switch_off(layer.gates(x))
    assert ((selected > 0).sum(-1) == kept).all(), "not one more and not one less: no ties"


def test_the_strongest_channels_of_each_head_are_kept() -> None:
    conv = nn.Conv2d(16, 64, 3, padding=1)
    sizes = torch.stack([torch.randperm(16) + 1.0 for _ in range(4)])
    with torch.no_grad():
        conv.weight.copy_(sizes.repeat(16, 1)[:, :, None, None].expand_as(conv.weight))
    gates_GC = start.spread(conv.weight, 4)
    assert torch.equal(gates_GC.argsort(1), sizes.argsort(1))


def test_a_network_is_converted_in_place_with_a_reason_for_each_layer_left_alone() -> None:
    model, before = net().train(), net().eval()
    model.bn.eval()
    report = dgc.convert(model, images(), gate_factor=0.5)
    names = [name for name, _ in iter_dgc(model)]
    assert names == ["wide", "branch.a", "shared"] == [layer.name for layer in report.converted]
    assert model.training
    assert not model.bn.training, "every module keeps its own mode"
    why = {layer.name: layer.why for layer in report.left_alone}
    assert why == {
        "stem": "3 input channels, fewer than 16",
        "depth": "depthwise",
        "squeeze": "its input is a single pixel",
    }
    assert "called 2 times" in next(r.why for r in report.converted if r.name == "shared")
    assert trial.off([model.eval()(images())], [before(images())]) < 1e-5
    told = json.loads(json.dumps(report.as_dict()))
    assert (told["converted"], told["left_alone"], len(told["layers"])) == (3, 3, 6)
    assert 0 < told["promised"] < told["dense"]
    assert "3 of 6 convolutions converted" in str(report)
    assert "depthwise" in str(report)


def test_a_model_that_shares_a_module_keeps_sharing_it() -> None:
    block = nn.Conv2d(32, 32, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 32, 1), block, nn.ReLU(), block)
    before = copy.deepcopy(model)
    report = dgc.convert(model, images())
    assert model[1] is model[3]
    assert [layer.name for layer in report.converted] == ["1"]
    assert trial.off([model(images())], [before(images())]) < 1e-5
    again = dgc.rebuild(copy.deepcopy(before), dgc.structure(model))
    assert again[1] is again[3]  # type: ignore[index]


def test_what_cannot_be_converted_says_why() -> None:
    tied = nn.Conv2d(32, 32, 3, padding=1)
    tied.weight = (other := nn.Conv2d(32, 32, 3, padding=1)).weight

    class Own(nn.Conv2d):
        pass

    hooked = nn.Conv2d(32, 32, 3)
    hooked.register_forward_pre_hook(lambda module, inputs: None)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), tied, other, Own(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding="same"),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"), nn.Conv2d(32, 32, (3, 1)), nn.Conv2d(32, 32, 7),
        hooked, nn.Conv2d(32, 30, 3), nn.Conv2d(30, 32, 3),
        nn.Conv2d(32, 64, 3, groups=2), nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 3, padding=1),
    )  # fmt: skip
    report = dgc.convert(model, images(size=32), layers={"12": {"gate_factor": 0.97}})
    why = {row.name: row.why for row in report.left_alone}
    assert why == {
        "0": "3 input channels, fewer than 16",
        "1": "shares its weights with another module",
        "2": "shares its weights with another module",
        "3": "is a Own, which may compute something of its own",
        "4": "padding='same'",
        "5": "padding_mode='reflect'",
        "6": "kernel_size 3x1 is not square",
        "7": "kernel 7x7, not 1, 3 or 5",
        "8": "has hooks (weight norm, for example)",
        "9": "30 output channels are no multiple of 4 heads",
        "10": "30 input channels are no multiple of 4 heads",
        "11": "2 groups",
        "12": "its gates would cost what it saves",
    }


def test_gates_take_at_most_a_quarter_of_a_layers_weights() -> None:
    for channels, out, kernel in ((64, 128, 1), (512, 128, 1), (1024, 2048, 1), (64, 32, 3)):
        model = nn.Sequential(nn.Conv2d(channels, out, kernel))
        report = dgc.convert(model, torch.randn(1, channels, 14, 14))
        row = report.converted[0]
        assert row.gate_parameters <= row.weights / 4
    (row,) = dgc.convert(nn.Sequential(nn.Conv2d(64, 64, 3)), torch.randn(1, 64, 9, 9)).converted
    assert (row.squeeze_rate, row.why) == (16, ""), "wide enough: as it was asked for"


# --- what is refused, and leaves the network as it was ------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"exclude": ["branches.*"]}, "exclude: 'branches.*' matches no convolution; near it are bran"),
        ({"include": ["blob"]}, "include: 'blob' matches no convolution; there are stem, depth"),
        ({"layers": {"layer1.*": {}}}, "layers: 'layer1.*' matches no convolution"),
        ({"layers": {"wide": {"gate_fact": 0.5}}}, "unknown key 'gate_fact' (did you mean gate_factor?)"),
        ({"heads": 0}, "heads=0 must be an integer >= 1"),
        ({"gate_factor": 1.5}, "gate_factor=1.5 must be a number in (0, 1]"),
        ({"layers": {"wide": {"heads": "4"}}}, "layers: 'wide': heads='4' must be an integer >= 1"),
        ({"gate_factor": 1.0}, "nothing to convert: of 6 convolutions 3 x its gates would cost"),
        ({"include": ["stem", "depth"]}, "nothing to convert: of 6 convolutions 4 x not in include"),
        ({"example": torch.zeros(1, 1, 24, 24)}, "Net does not take the example (RuntimeError: "),
    ],
)  # fmt: skip
def test_what_is_refused_names_what_is_wrong_and_changes_nothing(
    given: dict[str, Any], said: str
) -> None:
    model = net()
    example = given.pop("example", images())
    kinds, state = [type(m) for m in model.modules()], copy.deepcopy(model.state_dict())
    with pytest.raises(ArgumentError) as raised:
        dgc.convert(model, example, **given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_name_means_a_layer_or_all_of_a_module_and_the_last_one_wins() -> None:
    model = net()
    layers = {"*": {"heads": 2}, "branch": {"gate_factor": 0.25, "heads": 8}}
    report = dgc.convert(model, images(), exclude=["wid?"], layers=layers)
    got = {row.name: (row.heads, row.gate_factor) for row in report.converted}
    assert got == {"branch.a": (8, 0.25), "shared": (2, 0.5)}


def test_no_network_is_converted_twice() -> None:
    model = net()
    dgc.convert(model, images())
    with pytest.raises(ArgumentError, match="Net holds dynamic layers already"):
        dgc.convert(model, images())
    with pytest.raises(ArgumentError, match="the network is a single Conv2d"):
        dgc.convert(nn.Conv2d(32, 32, 3), torch.zeros(1, 32, 8, 8))


def test_a_network_that_uses_its_convolution_otherwise_is_found_out_and_put_back() -> None:
    class Reads(nn.Module):
        """Calls its convolution, and reads its weights as well."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + F.conv2d(x, self.conv.weight, padding=1)

    model = Reads()
    conv = model.conv
    with pytest.raises(DgcError, match="reads its convolutions in another way than calling them"):
        dgc.convert(model, torch.randn(1, 32, 8, 8))
    assert model.conv is conv


def test_a_network_in_which_rounding_grows_is_converted_and_said_to_be_one() -> None:
    class Chaotic(nn.Module):
        """Each layer is right, and the last digits are made large."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(1e5 * self.conv(x))

    torch.manual_seed(0)
    report = dgc.convert(Chaotic(), torch.randn(1, 32, 8, 8))
    assert report.difference is not None
    assert report.difference > trial.BAR
    assert "Rounding grows in this network: in double precision it is off by" in report.note
    assert report.note in str(report)


def test_the_first_layer_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start.take_over

    def wrong(layer: DynamicGroupConv2d, conv: nn.Conv2d) -> None:
        whole(layer, conv)
        if conv.kernel_size == (1, 1):
            layer.weight.data.mul_(1.01)

    monkeypatch.setattr(start, "take_over", wrong)
    with pytest.raises(DgcError, match=r"computes something else: branch\.a is off by 1\.\de-02"):
        dgc.convert(net(), images())


def test_networks_with_other_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(32, 64, 3, padding=1)

        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
            x.mul_(scale)
            return {"out": self.conv(x), "parts": [x, (x.sum(), 3)]}

    x = torch.randn(1, 32, 8, 8)
    given = x.clone()
    assert dgc.convert(Two(), (x, 2.0)).difference is not None
    assert dgc.convert(Two(), {"x": x, "scale": 3.0}).difference is not None
    assert torch.equal(x, given), "the example stays as it was"
    nan = dgc.convert(Two(), torch.full_like(x, torch.nan))
    assert nan.difference is None
    assert "not finite" in nan.note


# --- structure ------------------------------------------------------------------------------------


def converted() -> Net:
    model = net()
    dgc.convert(model, images(), gate_factor=0.25, layers={"shared": {"heads": 2}})
    dgc.set_progress(model, 0.6)
    return model.eval()


def test_a_network_comes_back_bit_for_bit_from_its_structure() -> None:
    model = converted()
    written = json.loads(json.dumps(dgc.structure(model)))
    assert set(written) == {"schema_version", "layers", "keys"}
    again = dgc.rebuild(net(3), written).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(images(5)), model(images(5)))
    assert [str(a) for _, a in iter_dgc(again)] == [str(b) for _, b in iter_dgc(model)]
    assert dgc.structure(again) == dgc.structure(model)


def test_dense_weights_do_not_go_into_a_converted_network_nor_the_other_way() -> None:
    model, dense = converted(), net()
    assert "wide.heads_weight" in model.state_dict()
    assert "wide.weight" not in model.state_dict()
    assert dict(model.named_parameters())["wide.weight"] is model.wide.weight
    with pytest.raises(RuntimeError, match=r"Missing key.*wide\.heads_weight") as raised:
        model.load_state_dict(dense.state_dict())
    assert "Unexpected key(s) in state_dict: " in str(raised.value)
    with pytest.raises(RuntimeError, match="Missing key"):
        dense.load_state_dict(model.state_dict())
    before = model(images())
    model.load_state_dict(dense.state_dict(), strict=False)
    assert torch.equal(model.wide.weight, converted().wide.weight), "never in silence"
    assert before.isfinite().all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(schema_version=2), "schema_version is 2, and this version reads 1"),
        (lambda s: s["layers"].update(gone=s["layers"]["wide"]), "gone is no convolution of Net"),
        (lambda s: s["layers"]["wide"].update(stride=2), "wide has stride (1, 1), recorded 2"),
        (lambda s: s["layers"]["wide"].update(heads=5), "wide: in_channels=32 is no multiple of"),
        (lambda s: s["layers"]["wide"].pop("heads"), "its layers are not as dgc.structure writes"),
        (lambda s: s["layers"].pop("wide"), "does not have the keys and shapes that were recorded"),
    ],
)
def test_a_structure_that_does_not_fit_is_refused(change: Any, said: str) -> None:
    written = dgc.structure(converted())
    change(written)
    model = net()
    with pytest.raises(IntegrityError) as raised:
        dgc.rebuild(model, written)
    assert said in str(raised.value)
    assert not list(iter_dgc(model)), "the network is as it was"


def test_a_converted_network_trains_and_its_gates_learn() -> None:
    model = net()
    dgc.convert(model, images())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = {name: layer.fc2.clone() for name, layer in iter_dgc(model)}
    dgc.set_progress(model, 0.9)
    for _ in range(2):
        optimizer.zero_grad()
        (F.cross_entropy(model(images(8)), torch.arange(8)) + 1e-4 * dgc.gate_l1(model)).backward()
        optimizer.step()
    for name, layer in iter_dgc(model):
        assert not torch.equal(layer.fc2, before[name])
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_frozen_weights_stay_frozen() -> None:
    model = net()
    model.wide.weight.requires_grad_(False)
    dgc.convert(model, images())
    assert not model.wide.weight.requires_grad
    assert model.shared.weight.requires_grad
