"""Inversion against exact flows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import ViewBatch
from guidance.objectives.inversion import DDIMInversion, ancestral_std, ddim_step, permute_noise
from guidance.priors.base import add_noise, expand_like_latents, predict_x0
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import RectifiedFlowSchedule, ScaledLinearSchedule, Schedule
from tests.support.guidance.inversion_oracles import (
    RecordingPrior,
    column,
    numbered_views,
    scalar_mixture,
    six_views,
    three_component_prior,
)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    return three_component_prior()


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    return six_views(prior)


# --- one step ---


@pytest.mark.parametrize(
    "schedule", [ScaledLinearSchedule(), RectifiedFlowSchedule(), RectifiedFlowSchedule(3.0)], ids=repr
)
def test_ddim_step_keeps_noise_and_x0(view: ViewBatch, schedule: Schedule) -> None:
    prior = scalar_mixture([0.0], [1.0], {"": (1,)}, schedule)
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    torch.testing.assert_close(ddim_step(prior, view.latents, view.noise, None, view.t), x_t)
    then = view.t.flip(0)
    moved = ddim_step(prior, x_t, view.noise, view.t, then)
    torch.testing.assert_close(moved, add_noise(view.latents, view.noise, *prior.alpha_sigma(then)))
    noise_pred = view.extra_noise  # The same for an answer that is not the drawn noise.
    moved = ddim_step(prior, x_t, noise_pred, view.t, then)
    torch.testing.assert_close(
        predict_x0(moved, noise_pred, *prior.alpha_sigma(then)), predict_x0(x_t, noise_pred, alpha, sigma)
    )


# --- the exact flow ---


def test_the_flow_of_a_gaussian_is_its_closed_form() -> None:
    prior = scalar_mixture([0.7, 0.0], [0.4, 1.0], {"": (1, 0)})
    x, t = column(-2, 0.3, 1, 5), torch.tensor([0.02, 0.4, 0.7, 1.0], dtype=torch.float64)
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(t))
    spread = (alpha**2 * 0.16 + sigma**2).sqrt()
    text = prior.encode_prompt([""] * 4)
    x_t = prior.flow_map(x, None, t, text)
    torch.testing.assert_close(x_t, alpha * 0.7 + (x - 0.7) * spread / 0.4)
    torch.testing.assert_close(prior.flow_map(prior.flow_map(x_t, t, t.flip(0), text), t.flip(0), t, text), x_t)


@pytest.mark.parametrize("schedule", [ScaledLinearSchedule(), RectifiedFlowSchedule(3.0)], ids=repr)
def test_flow_map_composes(schedule: Schedule) -> None:
    prior = scalar_mixture([0.5, 0.5], [0.3, 0.3], {"": (0.3, 0.7), "y": (1, 0)}, schedule)
    x, t = column(-2, 0.3, 1), torch.tensor([0.1, 0.6, 1.0], dtype=torch.float64)
    numerical, exact = (prior.flow_map(x, None, t, prior.encode_prompt([text] * 3)) for text in ("", "y"))
    torch.testing.assert_close(numerical, exact, rtol=0, atol=1e-8)
    mixed = prior.flow_map(x, None, t, prior.encode_prompt(["", "y", ""]))
    torch.testing.assert_close(mixed, torch.stack([numerical[0], exact[1], numerical[2]]), rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [ScaledLinearSchedule(), RectifiedFlowSchedule()], ids=repr)
def test_mixture_flow_preserves_quantiles(schedule: Schedule) -> None:
    """On a line the flow is monotone, so it carries quantiles of clean data to those of noised data."""
    means, stds, weights = (torch.tensor(row, dtype=torch.float64) for row in ([-2, 2], [0.2, 0.4], [0.3, 0.7]))
    prior = scalar_mixture(means.tolist(), stds.tolist(), {"": (0.3, 0.7)}, schedule)
    x = torch.linspace(-2.6, 3, 29, dtype=torch.float64)[:, None, None, None]
    t = torch.linspace(0.1, 1, 29, dtype=torch.float64)

    def below(x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        spread = ((alpha[:, None] * stds).square() + sigma[:, None].square()).sqrt()
        return torch.special.ndtr((x_t.flatten()[:, None] - alpha[:, None] * means) / spread) @ weights

    x_t = prior.flow_map(x, None, t, prior.encode_prompt([""] * 29))
    saved = below(x, torch.ones_like(t), torch.zeros_like(t))
    torch.testing.assert_close(below(x_t, *prior.alpha_sigma(t)), saved, rtol=0, atol=1e-8)
    back = prior.flow_map(x_t, t, t.flip(0), prior.encode_prompt([""] * 29))
    torch.testing.assert_close(below(back, *prior.alpha_sigma(t.flip(0))), saved, rtol=0, atol=1e-8)


# --- the chain ---


def test_inversion_grid_ends_at_each_t(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    watched = RecordingPrior(prior, [])
    view = view.select(torch.tensor([1, 2, 3, 5]))  # 0.4, 0.28, 0.6, 0.02
    assert DDIMInversion(0.2).steps(view.t).tolist() == [2, 2, 3, 1]
    DDIMInversion(0.2)(watched, view.latents, view.t, view.conditions)
    assert [t.tolist() for t, _ in watched.calls] == [[0.0] * 4, [0.2] * 3, [0.4]]
    assert watched.passes_per_view() == {1: 2, 2: 2, 3: 3, 5: 1}


def test_inversion_to_t_zero_is_the_identity(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    watched = RecordingPrior(prior, [])
    x_t = DDIMInversion(0.2)(watched, view.latents, torch.zeros_like(view.t), view.conditions)
    assert torch.equal(x_t, view.latents) and not watched.calls


@pytest.mark.parametrize("number", [DDIMInversion(0.2), DDIMInversion(0.1, -7.5, 0.3)], ids=repr)
def test_batched_inversion_equals_per_view(prior: GaussianMixturePrior, view: ViewBatch, number: DDIMInversion) -> None:
    together = number(prior, view.latents, view.t, view.conditions, view.extra_noise)
    for place in range(len(view.latents)):
        one = view.select(torch.tensor([place]))
        torch.testing.assert_close(
            number(prior, one.latents, one.t, one.conditions, one.extra_noise)[0], together[place]
        )


@pytest.mark.parametrize("schedule", [ScaledLinearSchedule(), RectifiedFlowSchedule(3.0)], ids=repr)
def test_inversion_converges_to_the_exact_flow(schedule: Schedule) -> None:
    """The error falls as the stride does, and what two strides agree on is the flow."""
    prior = scalar_mixture([-2.0, 2.0, 0.5], [0.4, 0.4, 0.7], {"": (0.3, 0.7, 0), "y": (0, 0, 1)}, schedule)
    view = numbered_views(prior, column(-2.3, -0.5, 0.4, 1.5), torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64))
    for scale, text in ((0.0, view.conditions.uncond), (1.0, view.conditions.text)):
        x_0, exact = (prior.flow_map(view.latents, None, t, text, 100) for t in (torch.zeros_like(view.t), view.t))
        coarse, precise = (DDIMInversion(0.1 / n, scale)(prior, x_0, view.t, view.conditions) for n in (30, 60))
        ratio = (coarse - exact) / (precise - exact)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 2), rtol=0.05, atol=0)
        torch.testing.assert_close(2 * precise - coarse, exact, rtol=0, atol=2e-4)


def test_ddim_sampling_inverts_inversion(prior: GaussianMixturePrior) -> None:
    """As many steps down as up come back to the start, but for an error that falls as the stride does."""
    draw = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    top = torch.full((4,), 0.5, dtype=torch.float64)
    view = numbered_views(prior, prior.means[1] + 0.6 * draw, top)

    def error(steps: int) -> float:
        x_0 = prior.flow_map(view.latents, None, torch.zeros_like(top), view.conditions.text, 40)
        x_t = DDIMInversion(0.5 / steps, 1.0)(prior, x_0, top, view.conditions)
        for place in range(steps, 0, -1):
            now, then = (torch.full_like(top, 0.5 * p / steps) for p in (place, place - 1))
            x_t = ddim_step(prior, x_t, prior.predict_noise(x_t, now, [view.conditions.text])[0], now, then)
        return float((x_t - x_0).square().mean().sqrt())

    coarse, precise = error(50), error(100)
    assert coarse < 0.03 and coarse / precise == pytest.approx(2, rel=0.1)


def test_unit_gaussian_shrinks_by_the_cosine_of_each_step() -> None:
    """The flow leaves it as it is, so this is the error of a chain, up and down: 0.01 is kept by 50 steps up to 0.2."""
    prior = scalar_mixture([0.0], [1.0], {"": (1,), "y": (1,)})
    times = torch.linspace(0, 0.2, 51, dtype=torch.float64)
    alpha, sigma = prior.alpha_sigma(times)
    shrunk = float(torch.atan2(sigma, alpha).diff().cos().prod())
    view = numbered_views(prior, column(-1.0, 0.5, 2.0), times[-1].expand(3))
    x_t = DDIMInversion(0.2 / 50)(prior, view.latents, view.t, view.conditions)
    torch.testing.assert_close(x_t, shrunk * view.latents, rtol=1e-6, atol=0)
    for now, then in pairwise(times.flip(0)):
        now, then = now.expand(3), then.expand(3)
        x_t = ddim_step(prior, x_t, prior.predict_noise(x_t, now, [view.conditions.uncond])[0], now, then)
    torch.testing.assert_close(x_t, shrunk**2 * view.latents, rtol=1e-6, atol=0)
    assert 1 - shrunk**2 < 1e-2


def test_guided_inversion_equals_a_shifted_gaussian() -> None:
    """With equal spreads, scale k is a prior with the mean m_0 + k (m_y - m_0)."""
    prior = scalar_mixture([0.2, 0.7], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    shifted = scalar_mixture([0.2 - 7.5 * 0.5], [0.6], {"": (1,), "y": (1,)})
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    view, other = (numbered_views(p, column(-1, 0.4), t) for p in (prior, shifted))
    guided_up = DDIMInversion(0.1, -7.5)(prior, view.latents, t, view.conditions)
    torch.testing.assert_close(guided_up, DDIMInversion(0.1)(shifted, other.latents, t, other.conditions))


# --- the random part of its steps ---


def test_ancestral_std_equals_the_posterior_std(prior: GaussianMixturePrior) -> None:
    """1 / variance = 1 / sigma_low^2 + what the step up to `high` tells, for any schedule."""
    low, high = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([0.2, 0.98], dtype=torch.float64)
    for schedule in (ScaledLinearSchedule(), RectifiedFlowSchedule()):
        here = scalar_mixture([0.0], [1.0], {"": (1,)}, schedule)
        (alpha_low, sigma_low), (alpha, sigma) = here.alpha_sigma(low), here.alpha_sigma(high)
        ratio = alpha / alpha_low
        result = ratio**2 / (sigma**2 - ratio**2 * sigma_low**2)
        torch.testing.assert_close(ancestral_std(here, low, high).square(), 1 / (1 / sigma_low**2 + result))
    a, s = (level.square() for level in prior.alpha_sigma(torch.cat([low, high])))
    published = s[:2] / s[2:] * (1 - a[2:] / a[:2])
    torch.testing.assert_close(ancestral_std(prior, low, high).square(), published)
    assert float(ancestral_std(here, torch.zeros(1), torch.full((1,), 0.1))) == 0


def test_permute_noise_differs_per_step(view: ViewBatch) -> None:
    draws = [permute_noise(view.extra_noise, place) for place in range(11)]
    assert torch.equal(draws[0], view.extra_noise)
    for place, draw in enumerate(draws):
        torch.testing.assert_close(draw.flatten(1).sort().values, view.extra_noise.flatten(1).sort().values)
        assert not any((draw == other).any() for other in draws[:place])


def test_eta_sets_the_added_variance() -> None:
    prior = scalar_mixture([0.0], [0.5], {"": (1,), "y": (1,)})
    view = numbered_views(
        prior, torch.ones(1, 1, 100, 100, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    )
    plain, noisy = (
        DDIMInversion(0.1, eta=eta)(prior, view.latents, view.t, view.conditions, view.extra_noise)
        for eta in (0.0, 0.3)
    )
    expected = 0.3 * ancestral_std(prior, torch.zeros_like(view.t), view.t)
    torch.testing.assert_close(noisy - plain, expand_like_latents(expected) * view.extra_noise)
