"""The sketch's background and Wiener estimate, against pictures and Gaussians that are known."""

from __future__ import annotations

import torch

from guidance.priors.base import cleaned, generator, noise_from_velocity, noised, per_view
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.sketch import before_background, expected_velocity


def codec() -> PatchCodec:
    """All components of 4 x 4 patches: nothing is lost."""
    chance = generator(3)
    codec = PatchCodec(48, 4)
    codec.fit(torch.rand(64, 3, 16, 16, generator=chance))
    return codec


def test_the_response_is_what_a_colour_adds_in_a_quarter() -> None:
    known = codec()
    picture = torch.rand(1, 3, 8, 8, generator=generator(1))
    more = picture.clone()
    more[:, 1, 2:4, 4:6] += 0.25  # lower left quarter of the upper right patch
    added = (known.encode(more) - known.encode(picture))[0, :, 0, 1]
    torch.testing.assert_close(added, 0.25 * known.response()[2, 1], rtol=0, atol=1e-5)


def test_a_background_is_found_through_little_noise() -> None:
    known = codec()
    opacity = torch.zeros(2, 1, 16, 16)
    opacity[:, :, 4:12, 6:10] = 1.0
    solid = torch.rand(2, 3, 16, 16, generator=generator(2)) * opacity
    behind = torch.tensor([[0.9, 0.1, 0.4], [0.3, 0.3, 1.0]])[:, :, None, None]
    x = known.encode(solid + (1 - opacity) * behind)
    quarters = torch.nn.functional.pixel_unshuffle(torch.nn.functional.avg_pool2d(opacity, 2), 2)
    sketch = torch.cat([known.encode(solid + (1 - opacity) * 0.5), 2 * quarters - 1], 1)
    one, none = torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 1e-3)
    guess = before_background(x, sketch, known.response(), one, none)
    grey = (x - sketch[:, :48]).square().mean()
    assert float((guess - x).square().mean() / grey) < 1e-3


def test_the_velocity_is_that_of_the_posterior_mean() -> None:
    chance, count = generator(5), 400_000
    guess = torch.randn(1, 2, 1, 1, generator=chance).expand(count, 2, 1, 1)
    variance = torch.tensor([0.3, 1.5])[None, :, None, None].expand(count, 2, 1, 1)
    alpha, sigma = torch.full((count,), 0.6), torch.full((count,), 0.8)
    x = guess + variance.sqrt() * torch.randn(count, 2, 1, 1, generator=chance)
    x_t = noised(x, torch.randn(x.shape, generator=chance), alpha, sigma)
    v = expected_velocity(x_t, guess, variance, per_view(alpha), per_view(sigma))
    error = x - cleaned(x_t, noise_from_velocity(x_t, v, alpha, sigma), alpha, sigma)
    # The error of a conditional mean is uncorrelated with what it was computed from, and as large as the posterior.
    assert float((error * (x_t - x_t.mean(0))).mean(0).abs().max()) < 0.01
    left = variance[0] * 0.64 / (0.36 * variance[0] + 0.64)
    assert float((error.square().mean(0) - left).abs().max()) < 0.01
