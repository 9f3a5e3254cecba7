"""A diffusion prior asked as a flow prior answers as the flow prior of the same data."""

from __future__ import annotations

import pytest
import torch

from guidance.objectives.base import View, Wanted
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.priors.base import Prior, cleaned
from guidance.priors.flow_adapter import FlowReading, time_of
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import Flow, ScaledLinear, Schedule

DOUBLE = torch.float64


def blobs(schedule: Schedule) -> ToyPrior:
    """The same three components over 3 x 4 x 4 pictures, under any schedule."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    texts = {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)}
    return ToyPrior(means, torch.tensor([0.3, 0.6, 1.0], dtype=DOUBLE), texts, schedule)


@pytest.fixture(scope="module", params=[Flow(), Flow(3.0)], ids=repr)
def pair(request: pytest.FixtureRequest) -> tuple[FlowReading, ToyPrior]:
    """A diffusion prior read as a flow, and the flow prior of the same data."""
    return FlowReading(blobs(ScaledLinear()), request.param), blobs(request.param)


def look(prior: Prior, t: torch.Tensor) -> View:
    x = torch.randn(len(t), 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    text, empty = prior.read(["y"] * len(x)), prior.read([""] * len(x))
    return View.drawn(x, t, Wanted(text, empty, empty, text), torch.Generator().manual_seed(9))


def test_answers_are_those_of_the_flow_prior(pair: tuple[FlowReading, ToyPrior]) -> None:
    read, exact = pair
    t = torch.tensor([0.04, 0.2, 0.5, 0.8, 0.82], dtype=DOUBLE)
    view = look(exact, t)
    x_t = 1.3 * view.x
    asked = [view.wanted.text, view.wanted.empty]
    torch.testing.assert_close(read.predict(x_t, t, asked), exact.predict(x_t, t, asked), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", [RFDS(5), RFDSRev(5), RFDSRev(5, "whole")], ids=repr)
def test_objectives_can_not_tell_the_two_apart(objective: RFDS | RFDSRev, pair: tuple[FlowReading, ToyPrior]) -> None:
    read, exact = pair
    view = look(exact, torch.tensor([0.05, 0.3, 0.6, 0.8], dtype=DOUBLE))
    found, wanted = (objective(prior, prior, view).gradient for prior in (read, exact))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_times_have_the_ratio_of_noise_to_signal() -> None:
    schedule = blobs(ScaledLinear())
    tau = torch.linspace(0.03, 0.93, 40, dtype=DOUBLE)
    alpha, sigma = schedule.levels(time_of(schedule, 1 - tau, tau))
    torch.testing.assert_close(sigma / alpha, tau / (1 - tau), rtol=1e-7, atol=0)
    t = torch.linspace(0.01, 0.99, 30, dtype=DOUBLE)
    torch.testing.assert_close(time_of(schedule, *schedule.levels(t)), t, rtol=0, atol=1e-9)


def test_ratios_that_were_never_trained_on_are_answered_as_the_nearest() -> None:
    read = FlowReading(blobs(ScaledLinear()))
    ends = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    assert time_of(read.prior, *read.levels(ends)).tolist() == pytest.approx([0, 1], abs=1e-9)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    (answer,) = read.predict(noise, ends, [read.read(["y", "y"])])
    assert bool(answer.isfinite().all())
    assert float((answer[1] - noise[1]).norm() / noise[1].norm()) < 0.2, "what is all noise is noise"


def test_single_precision_stays_single() -> None:
    read = FlowReading(blobs(ScaledLinear()))
    t = torch.tensor([0.3, 0.7])
    x_t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    (answer,) = read.predict(x_t, t, [read.read(["y", "y"])])
    assert cleaned(x_t, answer.float(), *read.levels(t)).dtype == torch.float32
    (double,) = read.predict(x_t.double(), t.double(), [read.read(["y", "y"])])
    torch.testing.assert_close(answer.double(), double, rtol=1e-4, atol=1e-4)


def test_it_is_a_prior_that_makes_no_other_difference() -> None:
    prior = blobs(ScaledLinear())
    read = FlowReading(prior)
    assert isinstance(read, Prior)
    assert (read.picture_size, read.sees_camera) == (prior.picture_size, prior.sees_camera)
    pictures = torch.rand(2, 3, 4, 4, dtype=DOUBLE)
    assert torch.equal(read.decode(read.encode(pictures)), prior.decode(prior.encode(pictures)))
    assert read.check("y") == prior.check("y")
