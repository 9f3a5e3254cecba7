"""Objectives for flow-matching priors: SDS in disguise, and what correcting the noise does to a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from guidance.objectives.base import Objective, View, Wanted, guided
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Condition, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import Flow, ScaledLinear, Schedule

EVERY = [RFDS(5), RFDSRev(5), RFDSRev(5, "whole")]


def line(means: list[float], deviations: list[float], texts: dict[str, tuple[float, ...]]) -> ToyPrior:
    """A flow prior over single numbers, in double precision."""
    places = torch.tensor(means, dtype=torch.float64)[:, None, None, None]
    return ToyPrior(places, torch.tensor(deviations, dtype=torch.float64), texts, Flow())


def look(prior: ToyPrior, x: Tensor, t: Tensor) -> View:
    text, empty = prior.read(["y"] * len(x)), prior.read([""] * len(x))
    return View.drawn(x, t, Wanted(text, empty, empty, text), torch.Generator().manual_seed(9))


@pytest.fixture(scope="module", params=[Flow(), Flow(3.0)], ids=repr)
def prior(request: pytest.FixtureRequest) -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return ToyPrior(means, deviations, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)}, request.param)


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return look(prior, x, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


def velocity(prior: ToyPrior, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """noise - x as a flow network answers it: noise - (x_t - tau noise) / (1 - tau)."""
    alpha, tau = (per_view(level) for level in prior.levels(t))
    (noise,) = prior.predict(x_t, t, [condition])
    return noise - (x_t - tau * noise) / alpha


# --- the schedule ---


def test_signal_and_noise_add_up_to_one() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    for shift in (0.5, 1.0, 3.0):
        alpha, sigma = Flow(shift).levels(t)
        torch.testing.assert_close(alpha + sigma, torch.ones_like(t), rtol=0, atol=1e-15)
        assert float(sigma[0]) == 0 and float(sigma[-1]) == 1 and bool((sigma.diff() > 0).all())
        # The shift divides the odds of signal against noise.
        torch.testing.assert_close(alpha[1:-1] / sigma[1:-1] * shift, (1 - t[1:-1]) / t[1:-1])
    assert all(isinstance(schedule, Schedule) for schedule in (Flow(), ScaledLinear()))


def test_times_beyond_the_schedule_are_its_ends() -> None:
    t = torch.tensor([-0.5, 0.0, 1.0, 1.5])
    alpha, sigma = Flow(3).levels(t)
    assert alpha.dtype == t.dtype and sigma.tolist() == [0, 0, 1, 1]
    # Published range of Stable Diffusion 3: 0.02 to 0.7 of the schedule.
    _, sigma = Flow(3).levels(torch.tensor([0.02, 0.7], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.0577, 0.875], abs=1e-4)


def test_a_shift_that_makes_no_sense_is_refused() -> None:
    for shift in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"shift is {shift}; expected a number above 0"):
            Flow(shift)


# --- RFDS ---


def test_flow_distillation_is_sds_with_one_over_alpha(prior: ToyPrior, view: View) -> None:
    alpha, _ = prior.levels(view.t)
    uniform = SDS(7, "uniform")(prior, prior, view).gradient
    torch.testing.assert_close(RFDS(7)(prior, prior, view).gradient, uniform / per_view(alpha), rtol=1e-14, atol=0)


def test_velocity_and_clean_picture_give_the_same_gradient(prior: ToyPrior, view: View) -> None:
    alpha, tau = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, tau)
    empty, text = (velocity(prior, x_t, view.t, c) for c in (view.wanted.empty, view.wanted.text))
    answer = guided(empty, text, 7)
    gradient = RFDS(7)(prior, prior, view).gradient
    torch.testing.assert_close(gradient, answer - (view.noise - view.x))
    torch.testing.assert_close(gradient, (view.x - (x_t - per_view(tau) * answer)) / per_view(tau))


def test_on_data_the_pull_is_nothing_on_average() -> None:
    """E over x of the prior and noise of v - (noise - x), by quadrature."""
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    points, weights = np.polynomial.hermite_e.hermegauss(20)
    x, noise = (torch.from_numpy(part.flatten())[:, None, None, None] for part in np.meshgrid(points, points))
    share = torch.from_numpy(np.outer(weights, weights).flatten() / weights.sum() ** 2)
    for time in (0.1, 0.5, 0.9):
        view = look(prior, mean + std * x, torch.full((400,), time, dtype=torch.float64))
        gradient = RFDS(1)(prior, prior, replace(view, noise=noise)).gradient.flatten()
        assert float(gradient @ share) == pytest.approx(0, abs=1e-12)
        assert float(gradient.abs().max()) > 0.1


def test_guided_fixed_point_of_equal_spreads() -> None:
    """The gradient is linear: m_0 + s (m_y - m_0) as for SDS, whatever the schedule."""
    prior = line([0.5, 1.0], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    at_0, at_1 = (
        float(RFDS(7.5)(prior, prior, replace(view, noise=torch.zeros_like(view.x))).gradient.sum())
        for view in (look(prior, torch.full((19, 1, 1, 1), place, dtype=torch.float64), t) for place in (0.0, 1.0))
    )
    assert at_0 / (at_0 - at_1) == pytest.approx(0.5 + 7.5 * 0.5, rel=1e-9)


# --- RFDS-Rev ---


@dataclass
class Watching:
    """Passes questions on to a prior, and keeps them."""

    prior: ToyPrior
    asked: list[tuple[Tensor, list[Condition]]]

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.asked.append((x_t, conditions))
        return self.prior.predict(x_t, t, conditions)


@pytest.mark.parametrize("correction", ["level", "whole"])
def test_the_noise_moves_by_the_error_in_velocity(prior: ToyPrior, view: View, correction: str) -> None:
    alpha, tau = prior.levels(view.t)
    v = velocity(prior, noised(view.x, view.noise, alpha, tau), view.t, view.wanted.text)
    step = per_view(alpha) if correction == "level" else 1.0
    corrected = replace(view, noise=view.noise + step * (v + view.x - view.noise))
    objective = RFDSRev(7, "level") if correction == "level" else RFDSRev(7, "whole")
    gradient = objective(prior, prior, view).gradient
    torch.testing.assert_close(gradient, RFDS(7)(prior, prior, corrected).gradient)


def test_corrected_by_the_level_the_noise_is_the_priors_own_answer(prior: ToyPrior, view: View) -> None:
    watched = Watching(prior, [])
    RFDSRev(7)(watched, watched, view)
    (first, (text,)), (second, _) = watched.asked
    alpha, tau = prior.levels(view.t)
    assert text is view.wanted.text
    torch.testing.assert_close(second, noised(view.x, prior.predict(first, view.t, [text])[0], alpha, tau))


def test_correction_shrinks_signal_and_noise_alike_on_a_gaussian() -> None:
    """Without guidance the gradient is sigma^2 / (alpha^2 std^2 + sigma^2) times that of RFDS."""
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    x = torch.randn(50, 1, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    view = look(prior, x, t)
    alpha, sigma = (per_view(level) for level in prior.levels(t))
    shrink = sigma**2 / ((alpha * std) ** 2 + sigma**2)
    plain, corrected = (kind(1)(prior, prior, view).gradient for kind in (RFDS, RFDSRev))
    torch.testing.assert_close(corrected, shrink * plain)


def test_nothing_pulls_where_the_prior_sees_the_drawn_noise(view: View) -> None:
    @dataclass(frozen=True)
    class Agreeing:
        """Answers with the noise that was drawn."""

        def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 1 - t, t

        def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            return torch.stack([view.noise] * len(conditions))

    for objective in EVERY:
        assert bool((objective(Agreeing(), Agreeing(), view).gradient == 0).all())


# --- what all of them keep to ---


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_passes_are_as_told(objective: Objective, prior: ToyPrior, view: View) -> None:
    watched = Watching(prior, [])
    objective(watched, watched, view)
    passes = sum(len(conditions) for _, conditions in watched.asked)
    assert objective.about is not None and objective.about.passes == (passes, passes)
    assert passes == (2 if isinstance(objective, RFDS) else 3)
    assert objective.needs_flow


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_a_batch_is_its_views_one_by_one(objective: Objective, prior: ToyPrior, view: View) -> None:
    rows = [objective(prior, prior, view.rows(torch.tensor([place]))).gradient for place in range(len(view.x))]
    torch.testing.assert_close(objective(prior, prior, view).gradient, torch.cat(rows))


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_the_same_view_gives_the_same_detached_update(objective: Objective, prior: ToyPrior, view: View) -> None:
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient) and first.logs == second.logs
    assert first.gradient.shape == view.x.shape and not first.gradient.requires_grad


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_even_the_ends_of_the_schedule_give_numbers(objective: Objective, prior: ToyPrior, view: View) -> None:
    ends = replace(view, t=torch.tensor([0.0, 1e-6, 1 - 1e-6, 1.0], dtype=torch.float64))
    assert bool(objective(prior, prior, ends).gradient.isfinite().all())


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_single_precision_is_close_to_double(objective: Objective, prior: ToyPrior, view: View) -> None:
    single = replace(prior, means=prior.means.float(), deviations=prior.deviations.float())
    seen = replace(look(single, view.x.float(), view.t.float()), noise=view.noise.float())
    gradient = objective(single, single, seen).gradient
    assert gradient.dtype == torch.float32
    expected = objective(prior, prior, view).gradient
    assert float((gradient - expected).norm()) < 1e-4 * float(expected.norm())


def test_values_that_make_no_sense_are_refused() -> None:
    for kind in (RFDS, RFDSRev):
        with pytest.raises(ValueError, match="scale is nan"):
            kind(float("nan"))
    changed = RFDSRev()
    object.__setattr__(changed, "correction", "levle")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown correction 'levle'; did you mean level\?"):
        changed.__post_init__()
