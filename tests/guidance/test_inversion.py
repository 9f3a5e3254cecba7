"""Inversion against exact flows, and the objectives that stand on it against closed forms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from guidance import inversion, sdi
from guidance.csm import CSM
from guidance.inversion import Inversion, again, ancestral, approached, ddim
from guidance.ism import ISM
from guidance.objective import Objective, View, Wanted
from guidance.prior import Condition, cleaned, noised, per_view
from guidance.schedule import Flow, ScaledLinear, Schedule
from guidance.sdi import SDI
from guidance.sds import SDS, weight
from guidance.toy import ToyPrior
from guidance.tsm import TSM

EVERY = [ISM(), TSM(), CSM(), SDI(), SDI(mismatch=True)]
names = [type(objective).__name__ for objective in EVERY]


def line(
    means: list[float], deviations: list[float], texts: dict[str, tuple[float, ...]], schedule: Schedule | None = None
) -> ToyPrior:
    """A prior over single numbers, in double precision."""
    places = torch.tensor(means, dtype=torch.float64)[:, None, None, None]
    return ToyPrior(places, torch.tensor(deviations, dtype=torch.float64), texts, schedule or ScaledLinear())


def look(prior: ToyPrior, x: Tensor, t: Tensor, seed: int = 0) -> View:
    """A view of each row; its number stands in place of the azimuth, which the toy prior does not see."""
    place = torch.stack([torch.arange(len(x)), torch.zeros(len(x))], -1)
    text, empty = (replace(prior.read([word] * len(x)), camera=place) for word in ("y", ""))
    return View.drawn(x, t, Wanted(text, empty, empty, text), torch.Generator().manual_seed(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


@dataclass
class Watching:
    """Passes questions on to a prior, and keeps them."""

    prior: ToyPrior
    asked: list[tuple[Tensor, list[Condition]]]

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.asked.append((t, conditions))
        return self.prior.predict(x_t, t, conditions)

    def passes(self) -> Counter[int]:
        """Answers that each view took."""
        asked = [condition for _, conditions in self.asked for condition in conditions]
        return Counter(int(number) for condition in asked for number in condition.camera[:, 0])


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return ToyPrior(means, deviations, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)})


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return look(prior, x, torch.tensor([0.05, 0.4, 0.28, 0.6, 0.98, 0.02], dtype=torch.float64))


def take_the_exact_flow(monkeypatch: pytest.MonkeyPatch, prior: ToyPrior, text: str = "") -> None:
    """Every step of an inversion goes along the exact flow of `text` instead."""

    def exact(_: object, x_t: Tensor, noise: Tensor, now: Tensor | None, then: Tensor) -> Tensor:
        return prior.flow_map(x_t, now, then, prior.read([text] * len(x_t)), 30)

    for module in (inversion, sdi):
        monkeypatch.setattr(module, "ddim", exact)


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


# --- interval, trajectory and classifier score matching ---

T, S = 400 / 999, 340 / 999


def resting(prior: ToyPrior, objective: Objective, t: float = T) -> float:
    """Where the gradient, linear in x, is nothing."""
    view = look(prior, column(0, 1), torch.full((2,), t, dtype=torch.float64))
    at_0, at_1 = objective(prior, prior, view).gradient.flatten().tolist()
    assert at_1 > at_0
    return float(at_0 / (at_0 - at_1))


def two(null: float, wanted: float, std: float) -> ToyPrior:
    return line([null, wanted], [std, std], {"": (1, 0), "y": (0, 1)})


def levels(prior: ToyPrior, t: float) -> tuple[float, float]:
    alpha, sigma = prior.levels(torch.tensor([t], dtype=torch.float64))
    return float(alpha), float(sigma)


def pulls(null: float, wanted: float, std: float, scale: float, low: float) -> float:
    """m_0 + scale (alpha sigma / D_t^2) / kappa (m_y - m_0), kappa = (sigma_t / D_t - sigma_s / D_s) / std."""
    prior = two(null, wanted, std)
    (alpha, sigma), (alpha_s, sigma_s) = levels(prior, T), levels(prior, low)
    spread, spread_s = (((a * std) ** 2 + s**2) ** 0.5 for a, s in ((alpha, sigma), (alpha_s, sigma_s)))
    kappa = (sigma / spread - sigma_s / spread_s) / std
    return null + scale * alpha * sigma / spread**2 / kappa * (wanted - null)


def test_interval_matching_rests_where_the_closed_form_says(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two(0.0, 0.5, 0.8)
    take_the_exact_flow(monkeypatch, prior)
    assert resting(prior, ISM(7.5, T - S)) == pytest.approx(30.2956, abs=5e-5)
    assert resting(prior, ISM(7.5, T - S, stride=0.03)) == pytest.approx(30.2956, abs=5e-5)
    prior = two(0.3, 0.5, 0.6)
    take_the_exact_flow(monkeypatch, prior)
    for scale in (0.0, 1.0, 20.0):
        assert resting(prior, ISM(scale, T - S)) == pytest.approx(pulls(0.3, 0.5, 0.6, scale, S), rel=1e-9)
    # Without guidance the interval still compares with no text, and overshoots the prompt's mean.
    assert resting(prior, ISM(1, T - S)) > 0.5


def test_without_text_interval_matching_rests_at_the_mean_of_all_data(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two(0.3, 0.5, 0.6)
    take_the_exact_flow(monkeypatch, prior)
    assert resting(prior, ISM(0, T - S)) == pytest.approx(0.3, abs=1e-9)


def test_a_shorter_interval_drifts_further(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two(0.0, 0.5, 0.8)
    take_the_exact_flow(monkeypatch, prior)
    places = [resting(prior, ISM(7.5, 0.06 / 2**n)) for n in range(5)]
    assert places[4] / places[3] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=names[:3])
def test_along_the_exact_flow_the_draw_has_no_part(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = line([-2.0, 2.0], [0.3, 0.5], {"": (0.3, 0.7), "y": (0, 1)})
    x, t = column(-1, 0.5, 2.5), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    take_the_exact_flow(monkeypatch, prior)
    first, second = (objective(prior, prior, look(prior, x, t, seed)).gradient for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=names[:3])
def test_updates_vary_far_less_than_those_of_sds(objective: Objective) -> None:
    prior = two(0.0, 0.5, 0.8)
    t = torch.full((400,), T, dtype=torch.float64)
    view = look(prior, torch.full((400, 1, 1, 1), 0.4, dtype=torch.float64), t)
    noisy = SDS(7.5, "reconstruction")(prior, prior, view).gradient.std()
    assert 0 < float(objective(prior, prior, view).gradient.std()) < 0.02 * float(noisy)


def test_gamma_leads_from_interval_to_classifier_matching(prior: ToyPrior, view: View) -> None:
    interval, classifier = (kind(5, 0.1, 0.15)(prior, prior, view).gradient for kind in (ISM, CSM))
    whole, nothing, between = (TSM(5, gamma, 0.1, 0.15)(prior, prior, view).gradient for gamma in (1.0, 0.0, 0.5))
    torch.testing.assert_close(whole, interval)
    torch.testing.assert_close(nothing, classifier)
    assert not torch.allclose(between, interval) and not torch.allclose(between, classifier)


def test_interval_matching_is_classifier_matching_and_the_difference_of_two_times(prior: ToyPrior, view: View) -> None:
    interval, classifier = (kind(5, 0.1, 0.15)(prior, prior, view).gradient for kind in (ISM, CSM))
    before = approached(prior, view, 0.1, 0.15)
    torch.testing.assert_close(before.t, (view.t - 0.1).clamp_min(0))
    (now,) = prior.predict(before.step(prior, view.t), view.t, [view.wanted.empty])
    omega = per_view(weight("reconstruction", *prior.levels(view.t)))
    torch.testing.assert_close(interval - classifier, omega * (now - before.answer))


def test_trajectory_matching_is_interval_matching_of_a_shorter_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly so along the exact flow, mu = s + (t - s) sqrt(1 - gamma^2) taking the part of s."""
    prior = two(0.0, 0.5, 0.8)
    take_the_exact_flow(monkeypatch, prior)
    view = look(prior, column(-1, 2), torch.full((2,), 0.5, dtype=torch.float64))
    rest = 1 - (1 - 0.3**2) ** 0.5
    assert rest == pytest.approx(0.046, abs=1e-3)
    trajectory = TSM(7.5, 0.3, 0.08)(prior, prior, view).gradient
    torch.testing.assert_close(trajectory, ISM(7.5, 0.08 * rest)(prior, prior, view).gradient, rtol=1e-9, atol=0)


def test_classifier_matching_of_equal_spreads_drifts_at_a_constant_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two(0.0, 0.5, 0.8)
    take_the_exact_flow(monkeypatch, prior)
    view = look(prior, column(-3, 0, 8), torch.full((3,), T, dtype=torch.float64))
    alpha, sigma = levels(prior, T)
    drift = -7.5 * sigma / alpha * sigma * alpha * 0.5 / ((alpha * 0.8) ** 2 + sigma**2)
    torch.testing.assert_close(CSM(7.5)(prior, prior, view).gradient, torch.full_like(view.x, drift))


def test_a_picture_on_the_text_is_the_visual_prompt(prior: ToyPrior, view: View) -> None:
    watched = Watching(prior, [])
    picture = torch.ones(len(view.x), 2, 3, dtype=torch.float64)
    shown = replace(view, wanted=replace(view.wanted, text=replace(view.wanted.text, image=picture)))
    CSM()(watched, watched, shown)
    *inverted, (_, (empty, text)) = watched.asked
    assert text.image is picture and empty.image is None
    assert all(condition.image is None for _, conditions in inverted for condition in conditions)


# --- distillation by inversion ---


def test_inverted_noise_shows_the_way_to_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """x - xhat = (x - m)(1 - alpha std / D_t) along the exact flow, and without any noise."""
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    take_the_exact_flow(monkeypatch, prior)
    t = torch.tensor([0.25, 0.5, 0.98], dtype=torch.float64)
    view = look(prior, column(-1, 0.7, 3), t)
    alpha, sigma = (per_view(level) for level in prior.levels(t))
    expected = (view.x - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    for inverted in (0.0, 1.0):
        gradient = SDI(1, inverted, eta=0)(prior, prior, view).gradient
        torch.testing.assert_close(gradient, expected)
    assert float(gradient[1].abs().max()) < 1e-12


def test_guided_inversion_rests_where_the_closed_form_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t of the prior shifted by -k, seen clean by the one shifted by the scale; linear in x."""
    prior, scale, back, std = two(0.2, 0.7, 0.6), 7.5, -7.5, 0.6
    take_the_exact_flow(monkeypatch, line([0.2 + back * 0.5], [std], {"": (1,)}))
    alpha, sigma = levels(prior, T)
    spread = ((alpha * std) ** 2 + sigma**2) ** 0.5
    below, above = 0.2 + back * 0.5, 0.2 + scale * 0.5
    # xhat = above + alpha std^2 / D^2 (x_t - alpha above), x_t = alpha below + (x - below) D / std
    slope = alpha * std / spread
    expected = (above * (sigma / spread) ** 2 + below * (slope**2 - slope)) / (1 - slope)
    assert resting(prior, SDI(scale, back, eta=0)) == pytest.approx(expected, rel=1e-9)


def test_short_strides_give_the_same_gradient_as_the_exact_flow() -> None:
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    view = look(prior, column(-1, 3), torch.tensor([0.5, 0.8], dtype=torch.float64))
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    expected = (view.x - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    errors = [
        (SDI(1, 0, stride, eta=0)(prior, prior, view).gradient - expected).abs().max() for stride in (0.1, 0.02, 0.004)
    ]
    # The first step, off the clean latent, is one whatever the stride: what is left at the end is its error.
    assert errors[0] > 3 * errors[1] > 6 * errors[2] and errors[2] < 0.01


def test_distillation_by_inversion_is_sds_with_the_noise_that_inversion_finds(prior: ToyPrior, view: View) -> None:
    """The weighting `reconstruction`, with the noise (x_t - alpha x) / sigma."""
    gradient = SDI(5, -3, eta=0)(prior, prior, view).gradient
    start = torch.zeros_like(view.t)
    upwards = Inversion(0.1, -3)
    x_0 = ddim(prior, view.x, upwards.answer(prior, view.x, start, view.wanted), None, start)
    x_t = upwards(prior, x_0, view.t, view.wanted)
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    found = replace(view, noise=(x_t - alpha * view.x) / sigma)
    torch.testing.assert_close(gradient, SDS(5, "reconstruction")(prior, prior, found).gradient)


def test_the_published_mismatch_goes_too_far_up_and_does_not_tell() -> None:
    prior = two(0.2, 0.7, 0.6)
    t = torch.tensor([0.45, 0.98], dtype=torch.float64)
    view = replace(look(prior, column(0.4, 0.4), t), uniform=torch.tensor([0.5, 0.5], dtype=torch.float64))
    watched, matched = Watching(prior, []), Watching(prior, [])
    far = SDI(5, -3, eta=0, mismatch=True)(watched, watched, view).gradient
    near = SDI(5, -3, eta=0)(matched, matched, view).gradient
    assert [t.tolist() for t, _ in watched.asked] == [t.tolist() for t, _ in matched.asked]
    landing = torch.tensor([0.5, 1.0], dtype=torch.float64)
    start = torch.zeros_like(t)
    upwards = Inversion(0.1, -3)
    x_0 = ddim(prior, view.x, upwards.answer(prior, view.x, start, view.wanted), None, start)
    x_t = upwards(prior, x_0, t, view.wanted, None, landing)
    answers = prior.predict(x_t, t, [view.wanted.empty, view.wanted.text])
    wanted = cleaned(x_t, answers[0] + 5 * (answers[1] - answers[0]), *prior.levels(t))
    torch.testing.assert_close(far, view.x - wanted)
    still = replace(view, uniform=torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(SDI(5, -3, eta=0, mismatch=True)(prior, prior, still).gradient, near)


def test_only_eta_makes_inversion_random(prior: ToyPrior, view: View) -> None:
    other = replace(view, second=view.noise, noise=view.second)
    assert torch.equal(*(SDI(eta=0)(prior, prior, seen).gradient for seen in (view, other)))
    assert not torch.equal(*(SDI(eta=0.3)(prior, prior, seen).gradient for seen in (view, other)))


# --- what all of them keep to ---

PASSES: list[tuple[Objective, dict[float, int]]] = [
    (ISM(), {0.02: 3, 0.08: 3, 0.1: 4, 0.28: 4, 0.3: 5, 0.5: 6, 0.98: 8}),
    (CSM(), {0.02: 3, 0.1: 4, 0.5: 6, 0.98: 8}),
    (TSM(), {0.02: 4, 0.1: 5, 0.5: 7, 0.98: 9}),
    (SDI(), {0.25: 10, 0.3: 10, 0.31: 12, 0.98: 24}),
    (SDI(mismatch=True), {0.25: 10, 0.98: 24}),
    (SDI(inversion_scale=0), {0.25: 6, 0.98: 13}),
]


@pytest.mark.parametrize(("objective", "passes"), PASSES, ids=lambda value: type(value).__name__)
def test_passes_are_as_told(objective: Objective, passes: dict[float, int]) -> None:
    prior = two(0.0, 0.5, 0.8)
    watched = Watching(prior, [])
    t = torch.tensor(list(passes), dtype=torch.float64)
    objective(watched, watched, look(prior, torch.zeros(len(t), 1, 1, 1, dtype=torch.float64), t))
    assert [watched.passes()[place] for place in range(len(t))] == list(passes.values())
    if objective == type(objective)():
        assert objective.about is not None
        assert objective.about.passes == (min(passes.values()), max(passes.values()))


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_a_batch_is_its_views_one_by_one(objective: Objective, prior: ToyPrior, view: View) -> None:
    together = objective(prior, prior, view).gradient
    for place in range(len(view.x)):
        alone = objective(prior, prior, view.rows(torch.tensor([place]))).gradient
        torch.testing.assert_close(alone[0], together[place])


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_the_same_view_gives_the_same_detached_update(objective: Objective, prior: ToyPrior, view: View) -> None:
    x = view.x.clone()
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient) and first.logs == second.logs
    assert first.gradient.shape == view.x.shape and not first.gradient.requires_grad
    assert torch.equal(view.x, x)


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_single_precision_is_close_to_double(objective: Objective, prior: ToyPrior, view: View) -> None:
    single = ToyPrior(prior.means.float(), prior.deviations.float(), prior.texts)
    wanted = look(single, view.x.float(), view.t.float()).wanted
    parts = {name: getattr(view, name).float() for name in ("x", "noise", "t", "second", "uniform")}
    gradient = objective(single, single, replace(view, wanted=wanted, **parts)).gradient
    assert gradient.dtype == torch.float32
    expected = objective(prior, prior, view).gradient
    assert float((gradient - expected).norm()) < 1e-3 * float(expected.norm())


def test_values_that_make_no_sense_are_refused() -> None:
    for kind in (ISM, TSM, CSM):
        with pytest.raises(ValueError, match="scale is nan"):
            kind(scale=float("nan"))
        with pytest.raises(ValueError, match="delta is 0; expected above 0 and at most 1"):
            kind(delta=0)
    for kind in (ISM, TSM, CSM, SDI):
        with pytest.raises(ValueError, match=r"stride is -0\.1; expected above 0"):
            kind(stride=-0.1)
    with pytest.raises(ValueError, match=r"gamma is 1\.5; expected a number from 0 to 1"):
        TSM(gamma=1.5)
    with pytest.raises(ValueError, match="scale is inf"):
        SDI(scale=float("inf"))
    with pytest.raises(ValueError, match="inversion scale is nan"):
        SDI(inversion_scale=float("nan"))
    with pytest.raises(ValueError, match="eta is -1"):
        SDI(eta=-1)
