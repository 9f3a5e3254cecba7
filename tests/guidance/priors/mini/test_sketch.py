"""The sketch's background and Wiener estimate, against pictures and Gaussians that are known."""

from __future__ import annotations

import torch

from guidance.priors.base import add_noise, expand_like_latents, make_rng, noise_from_velocity, predict_x0
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.sketch import composite_over_background, expected_velocity


def codec() -> PatchCodec:
    """All components of 4 x 4 patches: nothing is lost."""
    rng = make_rng(3)
    codec = PatchCodec(48, 4)
    codec.fit(torch.rand(64, 3, 16, 16, generator=rng))
    return codec


def test_response_is_the_latent_of_a_unit_color_quarter() -> None:
    known = codec()
    image = torch.rand(1, 3, 8, 8, generator=make_rng(1))
    more = image.clone()
    more[:, 1, 2:4, 4:6] += 0.25  # lower left quarter of the upper right patch
    added = (known.encode(more) - known.encode(image))[0, :, 0, 1]
    torch.testing.assert_close(added, 0.25 * known.response()[2, 1], rtol=0, atol=1e-5)


def test_recovers_the_background_color_at_low_noise() -> None:
    known = codec()
    opacity = torch.zeros(2, 1, 16, 16)
    opacity[:, :, 4:12, 6:10] = 1.0
    solid = torch.rand(2, 3, 16, 16, generator=make_rng(2)) * opacity
    behind = torch.tensor([[0.9, 0.1, 0.4], [0.3, 0.3, 1.0]])[:, :, None, None]
    x = known.encode(solid + (1 - opacity) * behind)
    quarters = torch.nn.functional.pixel_unshuffle(torch.nn.functional.avg_pool2d(opacity, 2), 2)
    sketch = torch.cat([known.encode(solid + (1 - opacity) * 0.5), 2 * quarters - 1], 1)
    one, none = torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 1e-3)
    guess = composite_over_background(x, sketch, known.response(), one, none)
    grey = (x - sketch[:, :48]).square().mean()
    assert float((guess - x).square().mean() / grey) < 1e-3


def test_expected_velocity_is_the_posterior_mean() -> None:
    rng, count = make_rng(5), 400_000
    guess = torch.randn(1, 2, 1, 1, generator=rng).expand(count, 2, 1, 1)
    variance = torch.tensor([0.3, 1.5])[None, :, None, None].expand(count, 2, 1, 1)
    alpha, sigma = torch.full((count,), 0.6), torch.full((count,), 0.8)
    x = guess + variance.sqrt() * torch.randn(count, 2, 1, 1, generator=rng)
    x_t = add_noise(x, torch.randn(x.shape, generator=rng), alpha, sigma)
    v = expected_velocity(x_t, guess, variance, expand_like_latents(alpha), expand_like_latents(sigma))
    error = x - predict_x0(x_t, noise_from_velocity(x_t, v, alpha, sigma), alpha, sigma)
    # The error of a conditional mean is uncorrelated with what it was computed from, and as large as the posterior.
    assert float((error * (x_t - x_t.mean(0))).mean(0).abs().max()) < 0.01
    left = variance[0] * 0.64 / (0.36 * variance[0] + 0.64)
    assert float((error.square().mean(0) - left).abs().max()) < 0.01
