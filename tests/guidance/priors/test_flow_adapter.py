"""A diffusion prior asked as a flow prior answers as the flow prior of the same data."""

from __future__ import annotations

import pytest
import torch

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import ViewBatch
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.priors.base import Prior, predict_x0
from guidance.priors.flow_adapter import FlowMatchingAdapter, t_from_snr
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import RectifiedFlowSchedule, ScaledLinearSchedule, Schedule

DOUBLE = torch.float64


def blob_prior(schedule: Schedule) -> GaussianMixturePrior:
    """The same three components over 3 x 4 x 4 pictures, under any schedule."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    texts = {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)}
    return GaussianMixturePrior(means, torch.tensor([0.3, 0.6, 1.0], dtype=DOUBLE), texts, schedule)


@pytest.fixture(scope="module", params=[RectifiedFlowSchedule(), RectifiedFlowSchedule(3.0)], ids=repr)
def pair(request: pytest.FixtureRequest) -> tuple[FlowMatchingAdapter, GaussianMixturePrior]:
    """A diffusion prior read as a flow, and the flow prior of the same data."""
    return FlowMatchingAdapter(blob_prior(ScaledLinearSchedule()), request.param), blob_prior(request.param)


def random_views(prior: Prior, t: torch.Tensor) -> ViewBatch:
    x = torch.randn(len(t), 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    text, uncond = prior.encode_prompt(["y"] * len(x)), prior.encode_prompt([""] * len(x))
    return ViewBatch.sample(x, t, ViewConditions(text, uncond, uncond, text), torch.Generator().manual_seed(9))


def test_noise_preds_equal_the_flow_prior(pair: tuple[FlowMatchingAdapter, GaussianMixturePrior]) -> None:
    read, exact = pair
    t = torch.tensor([0.04, 0.2, 0.5, 0.8, 0.82], dtype=DOUBLE)
    view = random_views(exact, t)
    x_t = 1.3 * view.latents
    calls = [view.conditions.text, view.conditions.uncond]
    torch.testing.assert_close(
        read.predict_noise(x_t, t, calls), exact.predict_noise(x_t, t, calls), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("objective", [RFDS(5), RFDSRev(5), RFDSRev(5, "full")], ids=repr)
def test_objectives_give_equal_grads(
    objective: RFDS | RFDSRev, pair: tuple[FlowMatchingAdapter, GaussianMixturePrior]
) -> None:
    read, exact = pair
    view = random_views(exact, torch.tensor([0.05, 0.3, 0.6, 0.8], dtype=DOUBLE))
    found, expected = (objective(prior, prior, view).grad for prior in (read, exact))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_t_from_snr_matches_the_noise_to_signal_ratio() -> None:
    schedule = blob_prior(ScaledLinearSchedule())
    tau = torch.linspace(0.03, 0.93, 40, dtype=DOUBLE)
    alpha, sigma = schedule.alpha_sigma(t_from_snr(schedule, 1 - tau, tau))
    torch.testing.assert_close(sigma / alpha, tau / (1 - tau), rtol=1e-7, atol=0)
    t = torch.linspace(0.01, 0.99, 30, dtype=DOUBLE)
    torch.testing.assert_close(t_from_snr(schedule, *schedule.alpha_sigma(t)), t, rtol=0, atol=1e-9)


def test_out_of_range_ratios_are_clamped() -> None:
    read = FlowMatchingAdapter(blob_prior(ScaledLinearSchedule()))
    ends = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    assert t_from_snr(read.prior, *read.alpha_sigma(ends)).tolist() == pytest.approx([0, 1], abs=1e-9)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    (noise_pred,) = read.predict_noise(noise, ends, [read.encode_prompt(["y", "y"])])
    assert bool(noise_pred.isfinite().all())
    assert float((noise_pred[1] - noise[1]).norm() / noise[1].norm()) < 0.2, "what is all noise is noise"


def test_float32_stays_float32() -> None:
    read = FlowMatchingAdapter(blob_prior(ScaledLinearSchedule()))
    t = torch.tensor([0.3, 0.7])
    x_t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    (noise_pred,) = read.predict_noise(x_t, t, [read.encode_prompt(["y", "y"])])
    assert predict_x0(x_t, noise_pred.float(), *read.alpha_sigma(t)).dtype == torch.float32
    (double,) = read.predict_noise(x_t.double(), t.double(), [read.encode_prompt(["y", "y"])])
    torch.testing.assert_close(noise_pred.double(), double, rtol=1e-4, atol=1e-4)


def test_other_methods_are_delegated() -> None:
    prior = blob_prior(ScaledLinearSchedule())
    read = FlowMatchingAdapter(prior)
    assert isinstance(read, Prior)
    assert (read.image_size, read.camera_conditioned) == (prior.image_size, prior.camera_conditioned)
    images = torch.rand(2, 3, 4, 4, dtype=DOUBLE)
    assert torch.equal(read.decode(read.encode(images)), prior.decode(prior.encode(images)))
    assert read.validate_prompt("y") == prior.validate_prompt("y")
