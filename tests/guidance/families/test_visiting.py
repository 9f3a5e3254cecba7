"""Modules that are on another device only while they work, which the device `meta` stands in for here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from guidance.families.visiting import visiting

AWAY = torch.device("meta")


def test_weights_are_there_inside_and_here_outside() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    own = dict(layer.named_parameters()) | dict(layer.named_buffers())
    with visiting(layer, AWAY):
        assert {p.device for p in layer.state_dict().values()} == {AWAY}
        assert layer(torch.zeros(2, 3, device=AWAY)).device == AWAY
    assert all(value is own[name] for name, value in layer.state_dict(keep_vars=True).items())
    with pytest.raises(RuntimeError, match="broken"), visiting(layer, AWAY):
        raise RuntimeError("broken")
    assert all(value is own[name] for name, value in layer.state_dict(keep_vars=True).items())


def test_nowhere_to_go_is_no_change() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    with visiting(layer, None):
        assert layer.weight is weight


def test_weights_that_are_shared_travel_once() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with visiting(nn.ModuleList([first, second]), AWAY):
        assert first.weight is second.weight


def test_gradients_reach_the_module_and_what_it_was_given() -> None:
    """The way back runs after the block, when the weights are at home again."""
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
    double = layer.double()  # Copies in another precision stand for copies on another device.
    with visiting(double, torch.device("cpu")):
        held = {name: value.clone() for name, value in double._parameters.items() if value is not None}
        for name, value in held.items():
            double._parameters[name] = value.float()  # type: ignore[assignment]
        loss = double(x).square().sum()
    assert double.weight.dtype == torch.float64 and isinstance(double.weight, nn.Parameter)
    found = torch.autograd.grad(loss, [x, double.weight])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.float(), other)
