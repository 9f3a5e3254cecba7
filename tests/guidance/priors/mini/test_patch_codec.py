"""Patches through a linear map: what it keeps comes back, and gradients pass exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from guidance.priors.mini.patch_codec import PatchCodec


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = torch.Generator().manual_seed(9)
    return functional.interpolate(torch.rand(60, 3, 6, 6, generator=rng), (24, 24), mode="bilinear")


def fit_codec(images: torch.Tensor, channels: int, whitening: float = 0.5) -> tuple[PatchCodec, float]:
    codec = PatchCodec(channels, 6)
    return codec, codec.fit(images, whitening)


def test_full_rank_codec_is_lossless(images: torch.Tensor) -> None:
    codec, saved = fit_codec(images, 108)
    assert saved == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(codec.decode(codec.encode(images)), images, rtol=0, atol=1e-3)


def test_encode_inverts_decode(images: torch.Tensor) -> None:
    codec, _ = fit_codec(images, 20)
    latents = codec.encode(images)
    assert latents.shape == (60, 20, 4, 4)
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents, rtol=0, atol=1e-4)


def test_decode_is_the_orthogonal_projection(images: torch.Tensor) -> None:
    codec, saved = fit_codec(images, 10)
    again = codec.decode(codec.encode(images))
    centre = codec.decode(torch.zeros(1, 10, 4, 4))
    lost = (again - images).square().sum() / (images - centre).square().sum()
    assert float(lost) == pytest.approx(1 - saved, rel=1e-2)
    # The error stands at right angles to all that the map can show.
    assert float(codec.encode(centre + again - images).abs().max()) < 1e-4


@pytest.mark.parametrize("evening", [0.0, 0.5, 1.0])
def test_latents_have_unit_variance(images: torch.Tensor, evening: float) -> None:
    codec, _ = fit_codec(images, 12, evening)
    variance = codec.encode(images).transpose(0, 1).flatten(1).var(1)
    assert float(variance.mean()) == pytest.approx(1, rel=1e-3)
    if evening == 1:
        torch.testing.assert_close(variance, torch.ones(12), rtol=1e-3, atol=0)
    else:
        assert bool((variance.diff() < 1e-3).all()), "the leading components stay the larger ones"


def test_basis_is_orthonormal(images: torch.Tensor) -> None:
    codec, _ = fit_codec(images, 12)
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(12), rtol=0, atol=1e-5)


def test_encode_grad_is_the_transpose(images: torch.Tensor) -> None:
    codec, _ = fit_codec(images, 12)
    x = images[:2].clone().requires_grad_()
    pull = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(codec.encode(x), x, pull)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    moved = codec.encode(images[:2] + step) - codec.encode(images[:2])
    assert float((grad * step).sum()) == pytest.approx(float((pull * moved).sum()), rel=1e-4)
