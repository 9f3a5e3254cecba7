"""The toy prior's closed forms against derivatives and integrals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.priors.base import Prior, predict_x0
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.sampling import sample_ddim
from guidance.priors.toy_images import IMAGE_SIZE, toy_image_prior


def two_blobs(*shape: int) -> GaussianMixturePrior:
    """0.3 N(-2, 0.3^2) + 0.7 N(2, 0.3^2) in every dimension, in double precision."""
    ones = torch.ones(1, *shape, dtype=torch.float64)
    texts = {"": (0.3, 0.7), "left": (1.0, 0.0), "right": (0.0, 2.0)}
    return GaussianMixturePrior(torch.cat([-2 * ones, 2 * ones]), torch.tensor([0.3, 0.3], dtype=torch.float64), texts)


def test_implements_prior() -> None:
    assert isinstance(two_blobs(3, 2, 2), Prior)


def test_noise_pred_is_minus_sigma_times_score() -> None:
    prior = two_blobs(3, 2, 2)
    rng = torch.Generator().manual_seed(1)
    x_t = torch.randn(6, 3, 2, 2, generator=rng, dtype=torch.float64).requires_grad_()
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    for text in ("", "left"):
        condition = prior.encode_prompt([text] * 6)
        (score,) = torch.autograd.grad(prior.log_density(x_t, t, condition).sum(), x_t)
        (noise_pred,) = prior.predict_noise(x_t, t, [condition])
        torch.testing.assert_close(noise_pred.detach(), -prior.alpha_sigma(t)[1][:, None, None, None] * score)


def test_the_density_integrates_to_one() -> None:
    prior = two_blobs(1, 1, 1)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for time in (0.02, 0.5, 1.0):
        t = torch.full_like(grid, time)
        density = prior.log_density(grid[:, None, None, None], t, prior.encode_prompt([""] * len(grid))).exp()
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)


def test_single_gaussian_noise_pred() -> None:
    prior = two_blobs(1, 2, 2)
    x_t = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t = torch.full((4,), 0.4, dtype=torch.float64)
    alpha, sigma = prior.alpha_sigma(t)
    (noise_pred,) = prior.predict_noise(x_t, t, [prior.encode_prompt(["right"] * 4)])
    a, s = float(alpha[0]), float(sigma[0])
    torch.testing.assert_close(noise_pred, s * (x_t - 2 * a) / (0.09 * a * a + s * s))


def test_batched_conditions_equal_single_ones() -> None:
    prior = two_blobs(1, 2, 2)
    x_t, t = torch.ones(3, 1, 2, 2, dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    conditions = [prior.encode_prompt([text] * 3) for text in ("", "left", "right")]
    together = prior.predict_noise(x_t, t, conditions)
    difference = torch.cat([prior.predict_noise(x_t, t, [condition]) for condition in conditions])
    torch.testing.assert_close(together, difference)


def test_rejects_invalid_arguments() -> None:
    means, stds = torch.zeros(2, 1, 1, 1), torch.ones(2)
    with pytest.raises(ValueError, match="texts lack"):
        GaussianMixturePrior(means, stds, {"a": (1.0, 1.0)})
    with pytest.raises(ValueError, match="weighs 1 components; there are 2"):
        GaussianMixturePrior(means, stds, {"": (1.0,)})
    with pytest.raises(ValueError, match="none below 0"):
        GaussianMixturePrior(means, stds, {"": (1.0, -1.0)})
    with pytest.raises(ValueError, match="stds"):
        GaussianMixturePrior(means, -stds, {"": (1.0, 1.0)})
    with pytest.raises(ValueError, match="does not know 'up'; it knows: left, right"):
        two_blobs(1, 1, 1).encode_prompt(["up"])


def test_ddim_samples_match_the_exact_flow() -> None:
    """The probability flow of a Gaussian keeps x_t = alpha m + z D_t, with D_t^2 = alpha^2 std^2 + sigma^2."""
    mean, std, steps = 0.5, 0.15, 300
    prior = GaussianMixturePrior(torch.full((1, 3, 1, 1), mean), torch.tensor([std]), {"": (1.0,)})
    noise = torch.randn(400, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    text = prior.encode_prompt([""] * 400)
    drawn = sample_ddim(prior, noise, text, text, 1.0, steps)
    # The last picture is the mean of the clean ones that the last noisy one could be.
    alpha, sigma = (float(level) for level in prior.alpha_sigma(torch.tensor([0.999 / steps])))
    shrink = alpha * std / (alpha**2 * std**2 + sigma**2) ** 0.5
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.01)
    assert float(drawn.std()) == pytest.approx(shrink * std * float(noise.std()), rel=0.03)


def test_camera_reweights_components_exactly() -> None:
    facing = torch.tensor([0.0, torch.pi], dtype=torch.float64)
    prior = replace(two_blobs(1, 1, 1), azimuths=facing)
    blind = prior.encode_prompt(["", "", "left"])
    with_camera = replace(
        blind, camera=torch.tensor([[0.0, 0.1], [torch.pi, 0.1], [torch.pi, 0.1]], dtype=torch.float64)
    )
    x_t = torch.zeros(3, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    t = torch.full((3,), 0.9, dtype=torch.float64)
    noise_preds = prior.predict_noise(x_t, t, [blind, with_camera])
    x = [predict_x0(x_t, noise_pred, *prior.alpha_sigma(t)).detach().flatten() for noise_pred in noise_preds]
    # From the front the left blob is likelier than without a camera, from behind the right one; a text that has one
    # component alone is not moved.
    assert float(x[1][0]) < float(x[0][0]) < float(x[1][1])
    assert float(x[1][2]) == pytest.approx(float(x[0][2]))
    (score,) = torch.autograd.grad(prior.log_density(x_t, t, with_camera).sum(), x_t)
    torch.testing.assert_close(noise_preds[1].detach(), -prior.alpha_sigma(t)[1][:, None, None, None] * score)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    camera = torch.tensor([[0.4, 0.0]], dtype=torch.float64).expand(4001, 2)
    known = replace(prior.encode_prompt([""] * 4001), camera=camera)
    density = prior.log_density(grid[:, None, None, None], torch.full_like(grid, 0.3), known).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)


# --- the pictures ---


def test_toy_images_match_their_texts() -> None:
    prior = toy_image_prior()
    assert prior.image_size == IMAGE_SIZE and prior.validate_prompt("a red disc") is None
    red, blue = (prior.means[prior.encode_prompt([text]).text_embeds[0, 0] > 0] for text in ("red", "blue"))
    assert len(red) == len(blue) == 4
    assert float((red[:, 0] - red[:, 2]).mean()) > 0 > float((blue[:, 0] - blue[:, 2]).mean())
    disc = prior.means[prior.encode_prompt(["a disc"]).text_embeds[0, 0] > 0]
    inked = disc[:, 1] < 0.5
    torch.testing.assert_close(inked.float().mean((1, 2)), torch.full((2,), torch.pi * 0.6**2 / 4), rtol=0.02, atol=0)
    assert bool((prior.means.flip(-1) - prior.means).abs().max() < 1e-4), "every picture is its own mirror image"
    with pytest.raises(ValueError, match="does not know 'a dog'; it knows: "):
        prior.validate_prompt("a dog")
