"""ISM, TSM and CSM against closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.objectives.base import Objective, View
from guidance.objectives.differences.sds import SDS, weight
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.inversion import approached
from guidance.priors.base import per_view
from guidance.priors.gaussian_mixture import ToyPrior
from tests.support.guidance.inversion_oracles import (
    S,
    T,
    Watching,
    column,
    levels,
    line,
    look,
    resting,
    six_views,
    take_the_exact_flow,
    three_blobs,
    two,
)


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    return three_blobs()


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    return six_views(prior)


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


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=["ISM", "TSM", "CSM"])
def test_along_the_exact_flow_the_draw_has_no_part(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = line([-2.0, 2.0], [0.3, 0.5], {"": (0.3, 0.7), "y": (0, 1)})
    x, t = column(-1, 0.5, 2.5), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    take_the_exact_flow(monkeypatch, prior)
    first, second = (objective(prior, prior, look(prior, x, t, seed)).gradient for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=["ISM", "TSM", "CSM"])
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
