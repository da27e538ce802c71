"""The average of the weights: torch's AveragedModel, and everything back in its place."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dgc.train.ema import WeightAverage


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def test_it_is_the_average_that_torch_makes() -> None:
    net = small()
    step = 0

    def rule(average: torch.Tensor, new: torch.Tensor, _: object) -> torch.Tensor:
        decay = min(0.5, (1 + step) / (10 + step))
        return decay * average + (1 - decay) * new if average.is_floating_point() else new

    theirs = AveragedModel(net, avg_fn=rule, use_buffers=True)
    theirs.n_averaged += 1  # type: ignore[operator]  # else it begins with a copy of the first update
    ours = WeightAverage(net, 0.5)
    for step in range(1, 20):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        net(torch.randn(4, 5))
        ours.update(step)
        theirs.update_parameters(net)
    wanted = theirs.module.state_dict()
    assert ours.tensors().keys() == wanted.keys()
    for name, value in ours.tensors().items():
        torch.testing.assert_close(value, wanted[name], msg=name)


def test_inside_the_network_has_it_and_outside_its_own_to_the_bit() -> None:
    net = small()
    ours = WeightAverage(net, 0.9)
    with torch.no_grad():
        net[0].weight += 1
    ours.update(1)
    raw = {name: value.clone() for name, value in net.state_dict().items()}
    kept = {name: value.clone() for name, value in ours.tensors().items()}
    addresses = [parameter.data_ptr() for parameter in net.parameters()]
    with ours.in_its_place():
        assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(value, raw[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in ours.tensors().items())
    assert addresses == [parameter.data_ptr() for parameter in net.parameters()]
