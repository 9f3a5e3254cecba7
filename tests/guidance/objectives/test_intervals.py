"""ISM, TSM and CSM against closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.inversion import invert_to_interval_start
from guidance.objectives.weighting import timestep_weight
from guidance.priors.base import expand_like_latents
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from tests.support.guidance.inversion_oracles import (
    RecordingPrior,
    S,
    T,
    alpha_sigma_at,
    column,
    fixed_point,
    numbered_views,
    patch_ddim_with_exact_flow,
    scalar_mixture,
    six_views,
    three_component_prior,
    two_gaussians,
)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    return three_component_prior()


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    return six_views(prior)


def ism_fixed_point(uncond_mean: float, text_mean: float, std: float, scale: float, low: float) -> float:
    """m_0 + scale (alpha sigma / D_t^2) / kappa (m_y - m_0), kappa = (sigma_t / D_t - sigma_s / D_s) / std."""
    prior = two_gaussians(uncond_mean, text_mean, std)
    (alpha, sigma), (alpha_s, sigma_s) = alpha_sigma_at(prior, T), alpha_sigma_at(prior, low)
    spread, spread_s = (((a * std) ** 2 + s**2) ** 0.5 for a, s in ((alpha, sigma), (alpha_s, sigma_s)))
    kappa = (sigma / spread - sigma_s / spread_s) / std
    return uncond_mean + scale * alpha * sigma / spread**2 / kappa * (text_mean - uncond_mean)


def test_ism_fixed_point_matches_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two_gaussians(0.0, 0.5, 0.8)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    assert fixed_point(prior, ISM(7.5, T - S)) == pytest.approx(30.2956, abs=5e-5)
    assert fixed_point(prior, ISM(7.5, T - S, stride=0.03)) == pytest.approx(30.2956, abs=5e-5)
    prior = two_gaussians(0.3, 0.5, 0.6)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    for scale in (0.0, 1.0, 20.0):
        assert fixed_point(prior, ISM(scale, T - S)) == pytest.approx(
            ism_fixed_point(0.3, 0.5, 0.6, scale, S), rel=1e-9
        )
    # Without guidance the interval still compares with no text, and overshoots the prompt's mean.
    assert fixed_point(prior, ISM(1, T - S)) > 0.5


def test_unguided_ism_fixed_point_is_the_data_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two_gaussians(0.3, 0.5, 0.6)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    assert fixed_point(prior, ISM(0, T - S)) == pytest.approx(0.3, abs=1e-9)


def test_ism_drift_grows_as_delta_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two_gaussians(0.0, 0.5, 0.8)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    places = [fixed_point(prior, ISM(7.5, 0.06 / 2**n)) for n in range(5)]
    assert places[4] / places[3] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=["ISM", "TSM", "CSM"])
def test_grad_is_noise_independent_along_the_exact_flow(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.5], {"": (0.3, 0.7), "y": (0, 1)})
    x, t = column(-1, 0.5, 2.5), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    first, second = (objective(prior, prior, numbered_views(prior, x, t, seed)).grad for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("objective", [ISM(), TSM(), CSM()], ids=["ISM", "TSM", "CSM"])
def test_grad_variance_is_far_below_sds(objective: Objective) -> None:
    prior = two_gaussians(0.0, 0.5, 0.8)
    t = torch.full((400,), T, dtype=torch.float64)
    view = numbered_views(prior, torch.full((400, 1, 1, 1), 0.4, dtype=torch.float64), t)
    noisy = SDS(7.5, "reconstruction")(prior, prior, view).grad.std()
    assert 0 < float(objective(prior, prior, view).grad.std()) < 0.02 * float(noisy)


def test_tsm_gamma_interpolates_between_csm_and_ism(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    interval, classifier = (kind(5, 0.1, 0.15)(prior, prior, view).grad for kind in (ISM, CSM))
    whole, nothing, between = (TSM(5, gamma, 0.1, 0.15)(prior, prior, view).grad for gamma in (1.0, 0.0, 0.5))
    torch.testing.assert_close(whole, interval)
    torch.testing.assert_close(nothing, classifier)
    assert not torch.allclose(between, interval) and not torch.allclose(between, classifier)


def test_ism_decomposes_into_csm_and_a_time_difference(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    interval, classifier = (kind(5, 0.1, 0.15)(prior, prior, view).grad for kind in (ISM, CSM))
    before = invert_to_interval_start(prior, view, 0.1, 0.15)
    torch.testing.assert_close(before.t, (view.t - 0.1).clamp_min(0))
    (now,) = prior.predict_noise(before.step(prior, view.t), view.t, [view.conditions.uncond])
    omega = expand_like_latents(timestep_weight("reconstruction", *prior.alpha_sigma(view.t)))
    torch.testing.assert_close(interval - classifier, omega * (now - before.noise_pred))


def test_tsm_equals_ism_of_a_shorter_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly so along the exact flow, mu = s + (t - s) sqrt(1 - gamma^2) taking the part of s."""
    prior = two_gaussians(0.0, 0.5, 0.8)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    view = numbered_views(prior, column(-1, 2), torch.full((2,), 0.5, dtype=torch.float64))
    rest = 1 - (1 - 0.3**2) ** 0.5
    assert rest == pytest.approx(0.046, abs=1e-3)
    trajectory = TSM(7.5, 0.3, 0.08)(prior, prior, view).grad
    torch.testing.assert_close(trajectory, ISM(7.5, 0.08 * rest)(prior, prior, view).grad, rtol=1e-9, atol=0)


def test_csm_drifts_at_a_constant_rate_for_equal_stds(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = two_gaussians(0.0, 0.5, 0.8)
    patch_ddim_with_exact_flow(monkeypatch, prior)
    view = numbered_views(prior, column(-3, 0, 8), torch.full((3,), T, dtype=torch.float64))
    alpha, sigma = alpha_sigma_at(prior, T)
    drift = -7.5 * sigma / alpha * sigma * alpha * 0.5 / ((alpha * 0.8) ** 2 + sigma**2)
    torch.testing.assert_close(CSM(7.5)(prior, prior, view).grad, torch.full_like(view.latents, drift))


def test_csm_uses_the_image_prompt(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    watched = RecordingPrior(prior, [])
    image = torch.ones(len(view.latents), 2, 3, dtype=torch.float64)
    shown = replace(view, conditions=replace(view.conditions, text=replace(view.conditions.text, image_embeds=image)))
    CSM()(watched, watched, shown)
    *inverted, (_, (uncond, text)) = watched.calls
    assert text.image_embeds is image and uncond.image_embeds is None
    assert all(condition.image_embeds is None for _, conditions in inverted for condition in conditions)
