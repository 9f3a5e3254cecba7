"""The way back through an autoencoder on the pretended device: gradients do not vanish, memory stays in its budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from guidance.priors.diffusers import codecs
from guidance.priors.diffusers.codecs import VAECodec
from guidance.priors.diffusers.gradient_scaling import scale_for
from tests.support.guidance.tiny_models import vae


def gradient(codec: VAECodec, size: float) -> Tensor:
    """Of the pictures, where that of the latents has entries of about `size`; divided by it."""
    rng = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 32, 32, generator=rng).to("cuda").requires_grad_()
    latents = codec.encode(rgb)
    pull = (size * torch.randn(latents.shape, generator=rng)).to(latents)
    (found,) = torch.autograd.grad((latents * pull).sum(), [rgb])
    return found.cpu().double() / size


def codec_in(precision: torch.dtype) -> VAECodec:
    torch.manual_seed(3)
    return VAECodec.from_vae(vae().eval().requires_grad_(False).to("cuda", precision))


@pytest.mark.parametrize("sparing", [False, True])
@pytest.mark.parametrize("size", [1e-10, 1e-6, 1.0, 1e5])
def test_gradients_of_any_size_come_through_half_precision(size: float, sparing: bool) -> None:
    truth = gradient(codec_in(torch.float32), 1.0)
    found = gradient(replace(codec_in(torch.float16), checkpoint_per_image=sparing), size)
    assert float((found - truth).norm() / truth.norm()) < 0.03


def test_the_scale_is_a_power_of_two_and_harms_nothing() -> None:
    for values, wanted in (([3.0, -5.0], 1 / 8), ([0.0, 0.0], 1.0), ([float("nan"), 1.0], 1.0), ([2.0**-30], 2.0**29)):
        assert float(scale_for(torch.tensor(values))) == wanted


def test_large_pictures_are_encoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the budget less is kept for the way back, and the gradient is the same."""
    codec = codec_in(torch.float32)
    rgb = torch.rand(4, 3, 24, 24, device="cuda").requires_grad_()  # Attention of small pictures takes little.
    kept, grads = [], []
    for budget in (1 << 40, 0):
        monkeypatch.setattr(codecs, "GRAPH_BUDGET", budget)
        before = torch.cuda.memory_allocated()
        latents = codec.encode(rgb)
        kept.append(torch.cuda.memory_allocated() - before)
        grads.append(torch.autograd.grad(latents.square().sum(), [rgb])[0].cpu())
    assert kept[1] < kept[0] / 5
    torch.testing.assert_close(grads[0], grads[1])
    assert 0.3 < codec.graph_bytes(rgb) / kept[0] < 3


def test_without_a_gradient_all_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "GRAPH_BUDGET", 0)
    monkeypatch.setattr(codecs, "checkpoint", None)
    assert codec_in(torch.float32).encode(torch.rand(2, 3, 32, 32, device="cuda")).shape == (2, 4, 16, 16)
