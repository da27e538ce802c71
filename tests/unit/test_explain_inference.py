"""What runs natively, and what is said where something does not."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.errors import UsageError
from dgc.kernels import cpu
from dgc.layers import DynamicGroupConv2d

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)


def block(channels: int) -> nn.Sequential:
    return nn.Sequential(DynamicGroupConv2d(channels, channels, 3, padding=1, heads=2), nn.SiLU())


class Blocked(nn.Module):
    """Two native blocks with something between them that no kernel computes."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.middle, self.behind = block(16), nn.Softplus(), block(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(torch.cumsum(self.middle(self.middle(self.before(x))), 1))


IMAGES = torch.randn(2, 16, 9, 9)


def test_a_network_of_known_operations_is_one_plan() -> None:
    report = dgc.explain_inference(block(16), IMAGES)
    assert (report.plan, report.blockers, report.native, report.layers) == ("whole", (), 1, 1)
    assert str(report).startswith("one native plan, ")


def test_what_stands_in_the_way_is_named_with_its_module_and_count() -> None:
    report = dgc.explain_inference(Blocked(), IMAGES)
    said = report.as_dict()
    assert json.loads(json.dumps(said)) == said
    assert said["plan"] == "parts"
    assert [part["module"] for part in said["parts"]] == ["before", "behind"]
    assert said["native_layers"] == said["dynamic_layers"] == 2
    assert {tuple(b.values()) for b in said["blockers"]} == {
        ("softplus", "middle", 2),
        ("cumsum", "", 1),
    }
    assert "softplus | middle | 2" in str(report)


def test_there_is_one_warning_that_names_it() -> None:
    engine = dgc.compile_for_inference(Blocked())
    with pytest.warns(UserWarning, match="softplus in middle and 1 more; cumsum"):
        engine(IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(IMAGES)
        engine(torch.randn(1, 16, 12, 10))


def test_strict_raises_and_names_it() -> None:
    engine = dgc.compile_for_inference(Blocked(), strict=True)
    with pytest.raises(UsageError, match="no native plan of the whole network: softplus in middle"):
        engine(IMAGES)


class Looks(nn.Module):
    """Asks for what is in its image."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


def test_a_network_that_asks_for_content_cannot_be_followed() -> None:
    report = dgc.explain_inference(Looks(), IMAGES)
    assert report.plan == "none"
    assert "cannot be followed" in report.blockers[0].operation
    assert torch.equal(dgc.compile_for_inference(Looks())(IMAGES.abs()), IMAGES.abs() * 2)
