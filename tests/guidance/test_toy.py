"""The toy prior's closed forms against derivatives and integrals."""

from __future__ import annotations

import pytest
import torch

from guidance.prior import Prior
from guidance.sampling import sample
from guidance.toy import ToyPrior


def two_blobs(*shape: int) -> ToyPrior:
    """0.3 N(-2, 0.3^2) + 0.7 N(2, 0.3^2) in every dimension, in double precision."""
    ones = torch.ones(1, *shape, dtype=torch.float64)
    texts = {"": (0.3, 0.7), "left": (1.0, 0.0), "right": (0.0, 2.0)}
    return ToyPrior(torch.cat([-2 * ones, 2 * ones]), torch.tensor([0.3, 0.3], dtype=torch.float64), texts)


def test_it_is_a_prior() -> None:
    assert isinstance(two_blobs(3, 2, 2), Prior)


def test_the_answer_is_minus_sigma_times_the_score() -> None:
    prior = two_blobs(3, 2, 2)
    chance = torch.Generator().manual_seed(1)
    x_t = torch.randn(6, 3, 2, 2, generator=chance, dtype=torch.float64).requires_grad_()
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    for text in ("", "left"):
        condition = prior.read([text] * 6)
        (score,) = torch.autograd.grad(prior.log_density(x_t, t, condition).sum(), x_t)
        (answer,) = prior.predict(x_t, t, [condition])
        torch.testing.assert_close(answer.detach(), -prior.levels(t)[1][:, None, None, None] * score)


def test_the_density_integrates_to_one() -> None:
    prior = two_blobs(1, 1, 1)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for time in (0.02, 0.5, 1.0):
        t = torch.full_like(grid, time)
        density = prior.log_density(grid[:, None, None, None], t, prior.read([""] * len(grid))).exp()
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)


def test_one_gaussian_pulls_straight_to_its_mean() -> None:
    prior = two_blobs(1, 2, 2)
    x_t = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t = torch.full((4,), 0.4, dtype=torch.float64)
    alpha, sigma = prior.levels(t)
    (answer,) = prior.predict(x_t, t, [prior.read(["right"] * 4)])
    a, s = float(alpha[0]), float(sigma[0])
    torch.testing.assert_close(answer, s * (x_t - 2 * a) / (0.09 * a * a + s * s))


def test_all_conditions_are_answered_at_once() -> None:
    prior = two_blobs(1, 2, 2)
    x_t, t = torch.ones(3, 1, 2, 2, dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    conditions = [prior.read([text] * 3) for text in ("", "left", "right")]
    together = prior.predict(x_t, t, conditions)
    apart = torch.cat([prior.predict(x_t, t, [condition]) for condition in conditions])
    torch.testing.assert_close(together, apart)


def test_mistakes_are_named() -> None:
    means, deviations = torch.zeros(2, 1, 1, 1), torch.ones(2)
    with pytest.raises(ValueError, match="texts lack"):
        ToyPrior(means, deviations, {"a": (1.0, 1.0)})
    with pytest.raises(ValueError, match="weighs 1 components; there are 2"):
        ToyPrior(means, deviations, {"": (1.0,)})
    with pytest.raises(ValueError, match="none below 0"):
        ToyPrior(means, deviations, {"": (1.0, -1.0)})
    with pytest.raises(ValueError, match="deviations"):
        ToyPrior(means, -deviations, {"": (1.0, 1.0)})
    with pytest.raises(ValueError, match="does not know 'up'; it knows: left, right"):
        two_blobs(1, 1, 1).read(["up"])


def test_samples_spread_as_the_exact_flow_says() -> None:
    """The probability flow of a Gaussian keeps x_t = alpha m + z D_t, with D_t^2 = alpha^2 std^2 + sigma^2."""
    mean, std, steps = 0.5, 0.15, 300
    prior = ToyPrior(torch.full((1, 3, 1, 1), mean), torch.tensor([std]), {"": (1.0,)})
    noise = torch.randn(400, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    text = prior.read([""] * 400)
    drawn = sample(prior, noise, text, text, 1.0, steps)
    # The last picture is the mean of the clean ones that the last noisy one could be.
    alpha, sigma = (float(level) for level in prior.levels(torch.tensor([0.999 / steps])))
    shrink = alpha * std / (alpha**2 * std**2 + sigma**2) ** 0.5
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.01)
    assert float(drawn.std()) == pytest.approx(shrink * std * float(noise.std()), rel=0.03)
