"""Modules that are on another device only while they work, which the device `meta` stands in for here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from guidance.priors.diffusers.codecs import Autoencoder
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.offload import visiting
from guidance.priors.diffusers.options import Extras
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, Open

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


@pytest.mark.parametrize("kind", ["sd", "sana"])
def test_a_sparing_autoencoder_keeps_nothing_and_changes_nothing(kind: str, opened: Open) -> None:
    """What is kept for the way back does not grow with the number of pictures; values and gradients stay."""
    codec = opened(kind).prior.codec
    assert isinstance(codec, Autoencoder)
    rgb = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def kept(sparing: bool, count: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        held: list[int] = []

        def keep(value: torch.Tensor) -> torch.Tensor:
            held.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            latents = replace(codec, sparing=sparing).encode(rgb[:count])
        (gradient,) = torch.autograd.grad(latents.square().sum(), rgb)
        return sum(held), latents, gradient

    plain, spared = kept(False, 4), kept(True, 4)
    for one, other in zip(plain[1:], spared[1:], strict=True):
        assert (one - other).abs().max() < 1e-4 * one.abs().max()  # Batches of one are summed in another order.
    assert spared[0] < 0.05 * plain[0]
    latents = opened(kind).latents(2)
    torch.testing.assert_close(replace(codec, sparing=True).decode(latents), codec.decode(latents))


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_a_model_works_away_and_lies_here(
    kind: str, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path))
    it = opened(kind)
    prior = open_family(it.folder, CPU, Extras(size=SIZE, offload=True))
    x_t, t = it.latents(2), torch.tensor([0.3, 0.8])
    ours, theirs = (p.predict(x_t, t, [p.read([TEXT] * 2)]) for p in (prior, it.prior))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert isinstance(prior.codec, Autoencoder)
    prior.away, prior.codec = AWAY, replace(prior.codec, away=AWAY)
    text = prior.read([TEXT] * 2)
    assert prior.device == AWAY and text.tokens.device == AWAY
    assert prior.predict(x_t.to(AWAY), t.to(AWAY), [text]).device == AWAY
    assert prior.encode(torch.rand(1, 3, SIZE, SIZE, device=AWAY)).device == AWAY
    parts = (prior.asking.network, prior.codec.vae)
    assert {p.device for part in parts for p in part.parameters()} == {CPU}
