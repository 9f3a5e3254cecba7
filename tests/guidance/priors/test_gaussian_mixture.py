"""The toy prior's closed forms against derivatives and integrals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.priors.base import Prior, cleaned
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.sampling import sample
from guidance.priors.toy_images import SIZE, toy_pictures


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


def test_a_camera_shifts_the_weights_and_the_answer_stays_exact() -> None:
    facing = torch.tensor([0.0, torch.pi], dtype=torch.float64)
    prior = replace(two_blobs(1, 1, 1), facing=facing)
    blind = prior.read(["", "", "left"])
    posed = replace(blind, camera=torch.tensor([[0.0, 0.1], [torch.pi, 0.1], [torch.pi, 0.1]], dtype=torch.float64))
    x_t = torch.zeros(3, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    t = torch.full((3,), 0.9, dtype=torch.float64)
    answers = prior.predict(x_t, t, [blind, posed])
    x = [cleaned(x_t, answer, *prior.levels(t)).detach().flatten() for answer in answers]
    # From the front the left blob is likelier than without a camera, from behind the right one; a text that has one
    # component alone is not moved.
    assert float(x[1][0]) < float(x[0][0]) < float(x[1][1])
    assert float(x[1][2]) == pytest.approx(float(x[0][2]))
    (score,) = torch.autograd.grad(prior.log_density(x_t, t, posed).sum(), x_t)
    torch.testing.assert_close(answers[1].detach(), -prior.levels(t)[1][:, None, None, None] * score)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    camera = torch.tensor([[0.4, 0.0]], dtype=torch.float64).expand(4001, 2)
    known = replace(prior.read([""] * 4001), camera=camera)
    density = prior.log_density(grid[:, None, None, None], torch.full_like(grid, 0.3), known).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)


# --- the pictures ---


def test_the_pictures_are_what_their_texts_say() -> None:
    prior = toy_pictures()
    assert prior.picture_size == SIZE and prior.check("a red disc") is None
    red, blue = (prior.means[prior.read([text]).tokens[0, 0] > 0] for text in ("red", "blue"))
    assert len(red) == len(blue) == 4
    assert float((red[:, 0] - red[:, 2]).mean()) > 0 > float((blue[:, 0] - blue[:, 2]).mean())
    disc = prior.means[prior.read(["a disc"]).tokens[0, 0] > 0]
    inked = disc[:, 1] < 0.5
    torch.testing.assert_close(inked.float().mean((1, 2)), torch.full((2,), torch.pi * 0.6**2 / 4), rtol=0.02, atol=0)
    assert bool((prior.means.flip(-1) - prior.means).abs().max() < 1e-4), "every picture is its own mirror image"
    with pytest.raises(ValueError, match="does not know 'a dog'; it knows: "):
        prior.check("a dog")
