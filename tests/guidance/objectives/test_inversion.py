"""Inversion against exact flows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import View
from guidance.objectives.inversion import Inversion, again, ancestral, ddim
from guidance.priors.base import cleaned, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import Flow, ScaledLinear, Schedule
from tests.support.guidance.inversion_oracles import (
    Watching,
    column,
    line,
    look,
    six_views,
    three_blobs,
)


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    return three_blobs()


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    return six_views(prior)


# --- one step ---


@pytest.mark.parametrize("schedule", [ScaledLinear(), Flow(), Flow(3.0)], ids=repr)
def test_a_step_keeps_the_noise_and_the_clean_latent(view: View, schedule: Schedule) -> None:
    prior = line([0.0], [1.0], {"": (1,)}, schedule)
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    torch.testing.assert_close(ddim(prior, view.x, view.noise, None, view.t), x_t)
    then = view.t.flip(0)
    moved = ddim(prior, x_t, view.noise, view.t, then)
    torch.testing.assert_close(moved, noised(view.x, view.noise, *prior.levels(then)))
    answer = view.second  # The same for an answer that is not the drawn noise.
    moved = ddim(prior, x_t, answer, view.t, then)
    torch.testing.assert_close(cleaned(moved, answer, *prior.levels(then)), cleaned(x_t, answer, alpha, sigma))


# --- the exact flow ---


def test_the_flow_of_a_gaussian_is_its_closed_form() -> None:
    prior = line([0.7, 0.0], [0.4, 1.0], {"": (1, 0)})
    x, t = column(-2, 0.3, 1, 5), torch.tensor([0.02, 0.4, 0.7, 1.0], dtype=torch.float64)
    alpha, sigma = (per_view(level) for level in prior.levels(t))
    spread = (alpha**2 * 0.16 + sigma**2).sqrt()
    text = prior.read([""] * 4)
    x_t = prior.flow_map(x, None, t, text)
    torch.testing.assert_close(x_t, alpha * 0.7 + (x - 0.7) * spread / 0.4)
    torch.testing.assert_close(prior.flow_map(prior.flow_map(x_t, t, t.flip(0), text), t.flip(0), t, text), x_t)


@pytest.mark.parametrize("schedule", [ScaledLinear(), Flow(3.0)], ids=repr)
def test_two_halves_of_one_gaussian_flow_as_the_whole(schedule: Schedule) -> None:
    prior = line([0.5, 0.5], [0.3, 0.3], {"": (0.3, 0.7), "y": (1, 0)}, schedule)
    x, t = column(-2, 0.3, 1), torch.tensor([0.1, 0.6, 1.0], dtype=torch.float64)
    numerical, exact = (prior.flow_map(x, None, t, prior.read([text] * 3)) for text in ("", "y"))
    torch.testing.assert_close(numerical, exact, rtol=0, atol=1e-8)
    mixed = prior.flow_map(x, None, t, prior.read(["", "y", ""]))
    torch.testing.assert_close(mixed, torch.stack([numerical[0], exact[1], numerical[2]]), rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [ScaledLinear(), Flow()], ids=repr)
def test_the_flow_of_a_mixture_keeps_every_quantile(schedule: Schedule) -> None:
    """On a line the flow is monotone, so it carries quantiles of clean data to those of noised data."""
    means, deviations, weights = (torch.tensor(row, dtype=torch.float64) for row in ([-2, 2], [0.2, 0.4], [0.3, 0.7]))
    prior = line(means.tolist(), deviations.tolist(), {"": (0.3, 0.7)}, schedule)
    x = torch.linspace(-2.6, 3, 29, dtype=torch.float64)[:, None, None, None]
    t = torch.linspace(0.1, 1, 29, dtype=torch.float64)

    def below(x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        spread = ((alpha[:, None] * deviations).square() + sigma[:, None].square()).sqrt()
        return torch.special.ndtr((x_t.flatten()[:, None] - alpha[:, None] * means) / spread) @ weights

    x_t = prior.flow_map(x, None, t, prior.read([""] * 29))
    kept = below(x, torch.ones_like(t), torch.zeros_like(t))
    torch.testing.assert_close(below(x_t, *prior.levels(t)), kept, rtol=0, atol=1e-8)
    back = prior.flow_map(x_t, t, t.flip(0), prior.read([""] * 29))
    torch.testing.assert_close(below(back, *prior.levels(t.flip(0))), kept, rtol=0, atol=1e-8)


# --- the chain ---


def test_the_chain_visits_its_grid_and_ends_at_each_views_time(prior: ToyPrior, view: View) -> None:
    watched = Watching(prior, [])
    view = view.rows(torch.tensor([1, 2, 3, 5]))  # 0.4, 0.28, 0.6, 0.02
    assert Inversion(0.2).steps(view.t).tolist() == [2, 2, 3, 1]
    Inversion(0.2)(watched, view.x, view.t, view.wanted)
    assert [t.tolist() for t, _ in watched.asked] == [[0.0] * 4, [0.2] * 3, [0.4]]
    assert watched.passes() == {1: 2, 2: 2, 3: 3, 5: 1}


def test_at_time_nothing_there_is_nothing_to_do(prior: ToyPrior, view: View) -> None:
    watched = Watching(prior, [])
    x_t = Inversion(0.2)(watched, view.x, torch.zeros_like(view.t), view.wanted)
    assert torch.equal(x_t, view.x) and not watched.asked


@pytest.mark.parametrize("number", [Inversion(0.2), Inversion(0.1, -7.5, 0.3)], ids=repr)
def test_a_batch_of_chains_is_its_chains_one_by_one(prior: ToyPrior, view: View, number: Inversion) -> None:
    together = number(prior, view.x, view.t, view.wanted, view.second)
    for place in range(len(view.x)):
        one = view.rows(torch.tensor([place]))
        torch.testing.assert_close(number(prior, one.x, one.t, one.wanted, one.second)[0], together[place])


@pytest.mark.parametrize("schedule", [ScaledLinear(), Flow(3.0)], ids=repr)
def test_short_strides_follow_the_exact_flow(schedule: Schedule) -> None:
    """The error falls as the stride does, and what two strides agree on is the flow."""
    prior = line([-2.0, 2.0, 0.5], [0.4, 0.4, 0.7], {"": (0.3, 0.7, 0), "y": (0, 0, 1)}, schedule)
    view = look(prior, column(-2.3, -0.5, 0.4, 1.5), torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64))
    for scale, text in ((0.0, view.wanted.empty), (1.0, view.wanted.text)):
        x_0, exact = (prior.flow_map(view.x, None, t, text, 100) for t in (torch.zeros_like(view.t), view.t))
        coarse, fine = (Inversion(0.1 / n, scale)(prior, x_0, view.t, view.wanted) for n in (30, 60))
        ratio = (coarse - exact) / (fine - exact)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 2), rtol=0.05, atol=0)
        torch.testing.assert_close(2 * fine - coarse, exact, rtol=0, atol=2e-4)


def test_sampling_undoes_inversion(prior: ToyPrior) -> None:
    """As many steps down as up come back to the start, but for an error that falls as the stride does."""
    draw = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    top = torch.full((4,), 0.5, dtype=torch.float64)
    view = look(prior, prior.means[1] + 0.6 * draw, top)

    def error(steps: int) -> float:
        x_0 = prior.flow_map(view.x, None, torch.zeros_like(top), view.wanted.text, 40)
        x_t = Inversion(0.5 / steps, 1.0)(prior, x_0, top, view.wanted)
        for place in range(steps, 0, -1):
            now, then = (torch.full_like(top, 0.5 * p / steps) for p in (place, place - 1))
            x_t = ddim(prior, x_t, prior.predict(x_t, now, [view.wanted.text])[0], now, then)
        return float((x_t - x_0).square().mean().sqrt())

    coarse, fine = error(50), error(100)
    assert coarse < 0.03 and coarse / fine == pytest.approx(2, rel=0.1)


def test_every_step_shrinks_the_unit_gaussian_by_the_cosine_of_its_angle() -> None:
    """The flow leaves it as it is, so this is the error of a chain, up and down: 0.01 is kept by 50 steps up to 0.2."""
    prior = line([0.0], [1.0], {"": (1,), "y": (1,)})
    times = torch.linspace(0, 0.2, 51, dtype=torch.float64)
    alpha, sigma = prior.levels(times)
    shrunk = float(torch.atan2(sigma, alpha).diff().cos().prod())
    view = look(prior, column(-1.0, 0.5, 2.0), times[-1].expand(3))
    x_t = Inversion(0.2 / 50)(prior, view.x, view.t, view.wanted)
    torch.testing.assert_close(x_t, shrunk * view.x, rtol=1e-6, atol=0)
    for now, then in pairwise(times.flip(0)):
        now, then = now.expand(3), then.expand(3)
        x_t = ddim(prior, x_t, prior.predict(x_t, now, [view.wanted.empty])[0], now, then)
    torch.testing.assert_close(x_t, shrunk**2 * view.x, rtol=1e-6, atol=0)
    assert 1 - shrunk**2 < 1e-2


def test_guided_inversion_is_that_of_a_shifted_gaussian() -> None:
    """With equal spreads, scale k is a prior with the mean m_0 + k (m_y - m_0)."""
    prior = line([0.2, 0.7], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    shifted = line([0.2 - 7.5 * 0.5], [0.6], {"": (1,), "y": (1,)})
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    view, other = (look(p, column(-1, 0.4), t) for p in (prior, shifted))
    guided_up = Inversion(0.1, -7.5)(prior, view.x, t, view.wanted)
    torch.testing.assert_close(guided_up, Inversion(0.1)(shifted, other.x, t, other.wanted))


# --- the random part of its steps ---


def test_the_ancestral_spread_is_that_of_the_posterior(prior: ToyPrior) -> None:
    """1 / variance = 1 / sigma_low^2 + what the step up to `high` tells, for any schedule."""
    low, high = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([0.2, 0.98], dtype=torch.float64)
    for schedule in (ScaledLinear(), Flow()):
        here = line([0.0], [1.0], {"": (1,)}, schedule)
        (alpha_low, sigma_low), (alpha, sigma) = here.levels(low), here.levels(high)
        ratio = alpha / alpha_low
        told = ratio**2 / (sigma**2 - ratio**2 * sigma_low**2)
        torch.testing.assert_close(ancestral(here, low, high).square(), 1 / (1 / sigma_low**2 + told))
    a, s = (level.square() for level in prior.levels(torch.cat([low, high])))
    published = s[:2] / s[2:] * (1 - a[2:] / a[:2])
    torch.testing.assert_close(ancestral(prior, low, high).square(), published)
    assert float(ancestral(here, torch.zeros(1), torch.full((1,), 0.1))) == 0


def test_one_draw_serves_every_step_with_other_numbers(view: View) -> None:
    draws = [again(view.second, place) for place in range(11)]
    assert torch.equal(draws[0], view.second)
    for place, draw in enumerate(draws):
        torch.testing.assert_close(draw.flatten(1).sort().values, view.second.flatten(1).sort().values)
        assert not any((draw == other).any() for other in draws[:place])


def test_added_noise_spreads_as_eta_says() -> None:
    prior = line([0.0], [0.5], {"": (1,), "y": (1,)})
    view = look(prior, torch.ones(1, 1, 100, 100, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64))
    plain, noisy = (Inversion(0.1, eta=eta)(prior, view.x, view.t, view.wanted, view.second) for eta in (0.0, 0.3))
    expected = 0.3 * ancestral(prior, torch.zeros_like(view.t), view.t)
    torch.testing.assert_close(noisy - plain, per_view(expected) * view.second)
