"""`bench --model`: a network of torchvision, dense and converted, in milliseconds and MACs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dgc.bench import foreign_layers, foreign_report, timing
from dgc.bench import foreign_networks as foreign
from dgc.bench.rows import read_report
from dgc.infer import NativeModule
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind
from dgcctl.cli import main

NAME = "torchvision/squeezenet1_1"
needs_kernels = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


@needs_kernels
def test_a_network_is_measured_dense_and_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "SIZE", 64)
    monkeypatch.setattr(foreign, "ENGINES", ("dense_eager",))
    monkeypatch.setattr(timing, "REST_S", 0.0)
    monkeypatch.setattr(timing, "WARM_S", 0.0)
    out = tmp_path / "foreign.json"
    words = ["--network", NAME, "--gate-factor", "0.5", "--out", str(out), "--budget", "0"]
    assert foreign_report.main([*words, "--threads", "1"]) == 0
    rows = {row.name: row for row in read_report(out, "foreign").rows}
    ours = rows["native_0.5"]
    assert (ours.variant, ours.engine, ours.more["gate_factor"]) == ("dgc", "native", 0.5)
    assert ours.ratio_to == "dense_eager"
    assert ours.ratio is not None
    assert ours.median == pytest.approx(ours.ratio * (rows["dense_eager"].median or 0))
    assert ours.more["macs"] < rows["dense_native"].more["macs"]
    assert f"| {NAME} | 0.5 | 1 | 1 |" in capsys.readouterr().out

    assert foreign_report.main([*words, "--layers"]) == 0
    shown = capsys.readouterr().out
    assert f"| {NAME} | 0.5 | 1 | 1 |" in shown  # those of before are kept
    assert "3 input channels, fewer than 16" in shown
    assert "mean, linear, gates, select, conv" in shown
    layers = read_report(out, "foreign").beside["layers"][NAME]["0.5"]
    assert sum(row["why"].startswith("converted") for row in layers) == 25
    assert all(row["ms"] is not None for row in layers)


@needs_kernels
def test_every_millisecond_of_a_plan_belongs_to_a_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    found = foreign_layers.parts(net, torch.randn(1, 3, 9, 9), rounds=2)
    assert found is not None
    assert {"0", "2"} <= set(found)
    assert "conv" in found["0"].kinds


def test_a_bar_is_missed_where_the_time_is_too_long() -> None:
    assert foreign.BARS["torchvision/resnet50"] == {0.25: 1.6, 0.5: 1.15}
    assert len(foreign.BARS) == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gate-factor", "0.5"], "--gate-factor is for --model torchvision/NAME or timm/NAME"),
        (["--model", "vgg"], "--model 'vgg': there are 'condensenet', 'resnet18', 'densenet86',"),
        (["--model", NAME, "--model", "resnet18"], "have a table of their own: ask twice"),
        (["--model", NAME, "--train"], "--model of another library: leave out --train"),
        (["--model", "torchvision/resnet51"], "model.name = torchvision/resnet51: torchvision has"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["bench", *words]) == 2
    assert said in capfd.readouterr().err


class Dense(nn.Module):
    """A dense block as torchvision writes it: each layer reads a concatenation of all before."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4 + 4 * i, 4, 3, padding=1) for i in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)).relu())
        return torch.cat(found, 1)


@needs_kernels
def test_a_dense_block_copies_nothing_for_its_concatenations() -> None:
    net, x = Dense().eval(), torch.randn(2, 4, 12, 12)
    engine = NativeModule(net, strict=True)
    with torch.inference_mode():
        assert torch.allclose(engine(x), net(x), atol=1e-5)
    plan = engine.plan_for(x)
    assert plan is not None
    assert [op.kind for op in plan.ops].count(Kind.PACK) == 0
