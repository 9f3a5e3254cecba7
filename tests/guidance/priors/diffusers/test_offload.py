"""Modules that are on another device only while they work, which the device `meta` stands in for here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from guidance.priors.diffusers.codecs import VAECodec
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.offload import on_device
from guidance.priors.diffusers.options import PriorOptions
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, LoadPipeline

AWAY = torch.device("meta")


def test_weights_move_only_inside_the_context() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    own = dict(layer.named_parameters()) | dict(layer.named_buffers())
    with on_device(layer, AWAY):
        assert {p.device for p in layer.state_dict().values()} == {AWAY}
        assert layer(torch.zeros(2, 3, device=AWAY)).device == AWAY
    assert all(value is own[name] for name, value in layer.state_dict(keep_vars=True).items())
    with pytest.raises(RuntimeError, match="broken"), on_device(layer, AWAY):
        raise RuntimeError("broken")
    assert all(value is own[name] for name, value in layer.state_dict(keep_vars=True).items())


def test_none_device_is_a_no_op() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    with on_device(layer, None):
        assert layer.weight is weight


def test_shared_weights_are_copied_once() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with on_device(nn.ModuleList([first, second]), AWAY):
        assert first.weight is second.weight


def test_grads_reach_parameters_and_inputs() -> None:
    """The way back runs after the block, when the weights are at home again."""
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
    double = layer.double()  # Copies in another precision stand for copies on another device.
    with on_device(double, torch.device("cpu")):
        held = {name: value.clone() for name, value in double._parameters.items() if value is not None}
        for name, value in held.items():
            double._parameters[name] = value.float()  # type: ignore[assignment]
        loss = double(x).square().sum()
    assert double.weight.dtype == torch.float64 and isinstance(double.weight, nn.Parameter)
    found = torch.autograd.grad(loss, [x, double.weight])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other)


@pytest.mark.parametrize("kind", ["sd", "sana"])
def test_checkpoint_per_image_saves_memory_and_keeps_results(kind: str, load_pipeline: LoadPipeline) -> None:
    """What is kept for the way back does not grow with the number of pictures; values and gradients stay."""
    codec = load_pipeline(kind).prior.codec
    assert isinstance(codec, VAECodec)
    rgb = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def kept(sparing: bool, count: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        held: list[int] = []

        def keep(value: torch.Tensor) -> torch.Tensor:
            held.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            latents = replace(codec, checkpoint_per_image=sparing).encode(rgb[:count])
        (grad,) = torch.autograd.grad(latents.square().sum(), rgb)
        return sum(held), latents, grad

    plain, spared = kept(False, 4), kept(True, 4)
    for one, other in zip(plain[1:], spared[1:], strict=True):
        assert (one - other).abs().max() < 1e-4 * one.abs().max()  # Batches of one are summed in another order.
    assert spared[0] < 0.05 * plain[0]
    latents = load_pipeline(kind).latents(2)
    torch.testing.assert_close(replace(codec, checkpoint_per_image=True).decode(latents), codec.decode(latents))


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_execution_device_differs_from_storage_device(
    kind: str, load_pipeline: LoadPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path))
    it = load_pipeline(kind)
    prior = load_diffusers_prior(it.folder, CPU, PriorOptions(image_size=SIZE, cpu_offload=True))
    x_t, t = it.latents(2), torch.tensor([0.3, 0.8])
    ours, theirs = (p.predict_noise(x_t, t, [p.encode_prompt([TEXT] * 2)]) for p in (prior, it.prior))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert isinstance(prior.codec, VAECodec)
    prior.execution_device, prior.codec = AWAY, replace(prior.codec, execution_device=AWAY)
    text = prior.encode_prompt([TEXT] * 2)
    assert prior.device == AWAY and text.text_embeds.device == AWAY
    assert prior.predict_noise(x_t.to(AWAY), t.to(AWAY), [text]).device == AWAY
    assert prior.encode(torch.rand(1, 3, SIZE, SIZE, device=AWAY)).device == AWAY
    parts = (prior.adapter.network, prior.codec.vae)
    assert {p.device for part in parts for p in part.parameters()} == {CPU}
