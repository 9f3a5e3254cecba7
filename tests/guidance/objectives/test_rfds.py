"""Objectives for flow-matching priors: SDS in disguise, and what correcting the noise does to a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Condition, add_noise, expand_like_latents
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import RectifiedFlowSchedule, ScaledLinearSchedule, Schedule

EVERY = [RFDS(5), RFDSRev(5), RFDSRev(5, "full")]


def scalar_mixture(means: list[float], stds: list[float], texts: dict[str, tuple[float, ...]]) -> GaussianMixturePrior:
    """A flow prior over single numbers, in double precision."""
    places = torch.tensor(means, dtype=torch.float64)[:, None, None, None]
    return GaussianMixturePrior(places, torch.tensor(stds, dtype=torch.float64), texts, RectifiedFlowSchedule())


def scalar_views(prior: GaussianMixturePrior, x: Tensor, t: Tensor) -> ViewBatch:
    text, uncond = prior.encode_prompt(["y"] * len(x)), prior.encode_prompt([""] * len(x))
    return ViewBatch.sample(x, t, ViewConditions(text, uncond, uncond, text), torch.Generator().manual_seed(9))


@pytest.fixture(scope="module", params=[RectifiedFlowSchedule(), RectifiedFlowSchedule(3.0)], ids=repr)
def prior(request: pytest.FixtureRequest) -> GaussianMixturePrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stds = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return GaussianMixturePrior(means, stds, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)}, request.param)


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return scalar_views(prior, x, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


def velocity(prior: GaussianMixturePrior, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """noise - x as a flow network answers it: noise - (x_t - tau noise) / (1 - tau)."""
    alpha, tau = (expand_like_latents(level) for level in prior.alpha_sigma(t))
    (noise,) = prior.predict_noise(x_t, t, [condition])
    return noise - (x_t - tau * noise) / alpha


# --- the schedule ---


def test_alpha_plus_sigma_is_one() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    for shift in (0.5, 1.0, 3.0):
        alpha, sigma = RectifiedFlowSchedule(shift).alpha_sigma(t)
        torch.testing.assert_close(alpha + sigma, torch.ones_like(t), rtol=0, atol=1e-15)
        assert float(sigma[0]) == 0 and float(sigma[-1]) == 1 and bool((sigma.diff() > 0).all())
        # The shift divides the odds of signal against noise.
        torch.testing.assert_close(alpha[1:-1] / sigma[1:-1] * shift, (1 - t[1:-1]) / t[1:-1])
    assert all(isinstance(schedule, Schedule) for schedule in (RectifiedFlowSchedule(), ScaledLinearSchedule()))


def test_t_is_clamped_to_the_schedule() -> None:
    t = torch.tensor([-0.5, 0.0, 1.0, 1.5])
    alpha, sigma = RectifiedFlowSchedule(3).alpha_sigma(t)
    assert alpha.dtype == t.dtype and sigma.tolist() == [0, 0, 1, 1]
    # Published range of Stable Diffusion 3: 0.02 to 0.7 of the schedule.
    _, sigma = RectifiedFlowSchedule(3).alpha_sigma(torch.tensor([0.02, 0.7], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.0577, 0.875], abs=1e-4)


def test_rejects_invalid_shift() -> None:
    for shift in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"shift is {shift}; expected a number above 0"):
            RectifiedFlowSchedule(shift)


# --- RFDS ---


def test_rfds_equals_sds_over_alpha(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, _ = prior.alpha_sigma(view.t)
    uniform = SDS(7, "uniform")(prior, prior, view).grad
    torch.testing.assert_close(
        RFDS(7)(prior, prior, view).grad, uniform / expand_like_latents(alpha), rtol=1e-14, atol=0
    )


def test_velocity_and_x0_forms_agree(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, tau = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, tau)
    uncond, text = (velocity(prior, x_t, view.t, c) for c in (view.conditions.uncond, view.conditions.text))
    noise_pred = classifier_free_guidance(uncond, text, 7)
    grad = RFDS(7)(prior, prior, view).grad
    torch.testing.assert_close(grad, noise_pred - (view.noise - view.latents))
    torch.testing.assert_close(
        grad, (view.latents - (x_t - expand_like_latents(tau) * noise_pred)) / expand_like_latents(tau)
    )


def test_expected_grad_vanishes_on_data() -> None:
    """E over x of the prior and noise of v - (noise - x), by quadrature."""
    mean, std = 0.7, 0.4
    prior = scalar_mixture([mean], [std], {"": (1,), "y": (1,)})
    points, weights = np.polynomial.hermite_e.hermegauss(20)
    x, noise = (torch.from_numpy(part.flatten())[:, None, None, None] for part in np.meshgrid(points, points))
    share = torch.from_numpy(np.outer(weights, weights).flatten() / weights.sum() ** 2)
    for time in (0.1, 0.5, 0.9):
        view = scalar_views(prior, mean + std * x, torch.full((400,), time, dtype=torch.float64))
        grad = RFDS(1)(prior, prior, replace(view, noise=noise)).grad.flatten()
        assert float(grad @ share) == pytest.approx(0, abs=1e-12)
        assert float(grad.abs().max()) > 0.1


def test_guided_fixed_point_for_equal_stds() -> None:
    """The gradient is linear: m_0 + s (m_y - m_0) as for SDS, whatever the schedule."""
    prior = scalar_mixture([0.5, 1.0], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    at_0, at_1 = (
        float(RFDS(7.5)(prior, prior, replace(view, noise=torch.zeros_like(view.latents))).grad.sum())
        for view in (
            scalar_views(prior, torch.full((19, 1, 1, 1), place, dtype=torch.float64), t) for place in (0.0, 1.0)
        )
    )
    assert at_0 / (at_0 - at_1) == pytest.approx(0.5 + 7.5 * 0.5, rel=1e-9)


# --- RFDS-Rev ---


@dataclass
class RecordingPrior:
    """Passes questions on to a prior, and keeps them."""

    prior: GaussianMixturePrior
    calls: list[tuple[Tensor, list[Condition]]]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.alpha_sigma(t)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.calls.append((x_t, conditions))
        return self.prior.predict_noise(x_t, t, conditions)


@pytest.mark.parametrize("correction", ["scaled", "full"])
def test_noise_correction_adds_the_velocity_error(
    prior: GaussianMixturePrior, view: ViewBatch, correction: str
) -> None:
    alpha, tau = prior.alpha_sigma(view.t)
    v = velocity(prior, add_noise(view.latents, view.noise, alpha, tau), view.t, view.conditions.text)
    step = expand_like_latents(alpha) if correction == "scaled" else 1.0
    corrected = replace(view, noise=view.noise + step * (v + view.latents - view.noise))
    objective = RFDSRev(7, "scaled") if correction == "scaled" else RFDSRev(7, "full")
    grad = objective(prior, prior, view).grad
    torch.testing.assert_close(grad, RFDS(7)(prior, prior, corrected).grad)


def test_scaled_correction_gives_the_text_noise_pred(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    watched = RecordingPrior(prior, [])
    RFDSRev(7)(watched, watched, view)
    (first, (text,)), (second, _) = watched.calls
    alpha, tau = prior.alpha_sigma(view.t)
    assert text is view.conditions.text
    torch.testing.assert_close(
        second, add_noise(view.latents, prior.predict_noise(first, view.t, [text])[0], alpha, tau)
    )


def test_correction_scales_signal_and_noise_on_a_gaussian() -> None:
    """Without guidance the gradient is sigma^2 / (alpha^2 std^2 + sigma^2) times that of RFDS."""
    mean, std = 0.7, 0.4
    prior = scalar_mixture([mean], [std], {"": (1,), "y": (1,)})
    t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    x = torch.randn(50, 1, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    view = scalar_views(prior, x, t)
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(t))
    shrink = sigma**2 / ((alpha * std) ** 2 + sigma**2)
    plain, corrected = (kind(1)(prior, prior, view).grad for kind in (RFDS, RFDSRev))
    torch.testing.assert_close(corrected, shrink * plain)


def test_grad_vanishes_for_an_exact_noise_pred(view: ViewBatch) -> None:
    @dataclass(frozen=True)
    class Agreeing:
        """Answers with the noise that was drawn."""

        def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 1 - t, t

        def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            return torch.stack([view.noise] * len(conditions))

    for objective in EVERY:
        assert bool((objective(Agreeing(), Agreeing(), view).grad == 0).all())


# --- what all of them keep to ---


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_number_of_forward_passes_matches_info(
    objective: Objective, prior: GaussianMixturePrior, view: ViewBatch
) -> None:
    watched = RecordingPrior(prior, [])
    objective(watched, watched, view)
    passes = sum(len(conditions) for _, conditions in watched.calls)
    assert objective.info is not None and objective.info.forward_passes == (passes, passes)
    assert passes == (2 if isinstance(objective, RFDS) else 3)
    assert objective.needs_flow_prior


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_batch_equals_per_view(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    rows = [objective(prior, prior, view.select(torch.tensor([place]))).grad for place in range(len(view.latents))]
    torch.testing.assert_close(objective(prior, prior, view).grad, torch.cat(rows))


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_is_deterministic_and_detached(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.grad, second.grad) and first.logs == second.logs
    assert first.grad.shape == view.latents.shape and not first.grad.requires_grad


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_grad_is_finite_at_the_schedule_ends(
    objective: Objective, prior: GaussianMixturePrior, view: ViewBatch
) -> None:
    ends = replace(view, t=torch.tensor([0.0, 1e-6, 1 - 1e-6, 1.0], dtype=torch.float64))
    assert bool(objective(prior, prior, ends).grad.isfinite().all())


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_float32_is_close_to_float64(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    single = replace(prior, means=prior.means.float(), stds=prior.stds.float())
    seen = replace(scalar_views(single, view.latents.float(), view.t.float()), noise=view.noise.float())
    grad = objective(single, single, seen).grad
    assert grad.dtype == torch.float32
    expected = objective(prior, prior, view).grad
    assert float((grad - expected).norm()) < 1e-4 * float(expected.norm())


def test_rejects_invalid_values() -> None:
    for kind in (RFDS, RFDSRev):
        with pytest.raises(ValueError, match="guidance_scale is nan"):
            kind(float("nan"))
    changed = RFDSRev()
    object.__setattr__(changed, "noise_correction", "scald")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown noise_correction 'scald'; did you mean scaled\?"):
        changed.__post_init__()
