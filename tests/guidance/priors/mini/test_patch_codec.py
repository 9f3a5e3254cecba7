"""Patches through a linear map: what it keeps comes back, and gradients pass exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from guidance.priors.mini.patch_codec import PatchCodec


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    chance = torch.Generator().manual_seed(9)
    return functional.interpolate(torch.rand(60, 3, 6, 6, generator=chance), (24, 24), mode="bilinear")


def fitted(pictures: torch.Tensor, channels: int, evening: float = 0.5) -> tuple[PatchCodec, float]:
    codec = PatchCodec(channels, 6)
    return codec, codec.fit(pictures, evening)


def test_all_components_keep_everything(pictures: torch.Tensor) -> None:
    codec, kept = fitted(pictures, 108)
    assert kept == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(codec.decode(codec.encode(pictures)), pictures, rtol=0, atol=1e-3)


def test_latents_come_back_from_pictures(pictures: torch.Tensor) -> None:
    codec, _ = fitted(pictures, 20)
    latents = codec.encode(pictures)
    assert latents.shape == (60, 20, 4, 4)
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents, rtol=0, atol=1e-4)


def test_what_comes_back_is_the_nearest_picture_it_can_show(pictures: torch.Tensor) -> None:
    codec, kept = fitted(pictures, 10)
    again = codec.decode(codec.encode(pictures))
    centre = codec.decode(torch.zeros(1, 10, 4, 4))
    lost = (again - pictures).square().sum() / (pictures - centre).square().sum()
    assert float(lost) == pytest.approx(1 - kept, rel=1e-2)
    # The error stands at right angles to all that the map can show.
    assert float(codec.encode(centre + again - pictures).abs().max()) < 1e-4


@pytest.mark.parametrize("evening", [0.0, 0.5, 1.0])
def test_latents_have_unit_variance(pictures: torch.Tensor, evening: float) -> None:
    codec, _ = fitted(pictures, 12, evening)
    variance = codec.encode(pictures).transpose(0, 1).flatten(1).var(1)
    assert float(variance.mean()) == pytest.approx(1, rel=1e-3)
    if evening == 1:
        torch.testing.assert_close(variance, torch.ones(12), rtol=1e-3, atol=0)
    else:
        assert bool((variance.diff() < 1e-3).all()), "the leading components stay the larger ones"


def test_rows_stay_orthonormal(pictures: torch.Tensor) -> None:
    codec, _ = fitted(pictures, 12)
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(12), rtol=0, atol=1e-5)


def test_the_gradient_is_the_transposed_map(pictures: torch.Tensor) -> None:
    codec, _ = fitted(pictures, 12)
    x = pictures[:2].clone().requires_grad_()
    pull = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(codec.encode(x), x, pull)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    moved = codec.encode(pictures[:2] + step) - codec.encode(pictures[:2])
    assert float((gradient * step).sum()) == pytest.approx(float((pull * moved).sum()), rel=1e-4)
