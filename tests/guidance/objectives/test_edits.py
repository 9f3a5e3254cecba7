"""Edits of a source: where they rest on Gaussians, and that noise cancels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import Objective, Source, View, Wanted, guided
from guidance.objectives.edits.dds import DDS
from guidance.objectives.edits.pds import PDS
from guidance.priors.base import Condition, cleaned, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import Flow, ScaledLinear

BOTH = [DDS(), PDS()]
names = [type(objective).__name__ for objective in BOTH]


def edit(prior: ToyPrior, x: Tensor, source: Tensor, t: Tensor, seed: int = 0) -> View:
    """From what `old` means to what `new` does."""
    new, empty, old = (prior.read([text] * len(x)) for text in ("new", "", "old"))
    view = View.drawn(x, t, Wanted(new, empty, empty, new), torch.Generator().manual_seed(seed))
    return replace(view, source=Source(source, old))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def line(means: list[float], std: float) -> ToyPrior:
    """One number under no text, the old one and the new one, of equal spreads."""
    texts = {"": (1.0, 0.0, 0.0), "old": (0.0, 1.0, 0.0), "new": (0.0, 0.0, 1.0)}
    return ToyPrior(column(*means), torch.tensor([std] * 3, dtype=torch.float64), texts)


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return ToyPrior(means, deviations, {"": (0.2, 0.3, 0.5), "old": (0, 1, 0.1), "new": (0.5, 0, 0.1)})


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    chance = torch.Generator().manual_seed(1)
    x, source = (torch.randn(4, 3, 4, 4, generator=chance, dtype=torch.float64) for _ in range(2))
    return edit(prior, x, source, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


def resting(prior: ToyPrior, objective: Objective, source: float, step: int) -> float:
    """Where the gradient, linear in x, is nothing."""
    t = torch.full((2,), step / 999, dtype=torch.float64)
    view = edit(prior, column(0, 1), column(source, source), t)
    at_0, at_1 = objective(prior, prior, view).gradient.flatten().tolist()
    assert at_1 > at_0
    return float(at_0 / (at_0 - at_1))


# --- delta denoising ---


@pytest.mark.parametrize("step", [50, 400, 949])
def test_an_edit_moves_by_the_difference_of_the_means(step: int) -> None:
    prior = line([0.2, -0.5, 1.0], 0.6)
    assert resting(prior, DDS(1), 0.3, step) == pytest.approx(0.3 + 1.5, rel=1e-9)
    # Guidance enlarges the difference, as the null text is the same for both.
    assert resting(prior, DDS(7.5), 0.3, step) == pytest.approx(0.3 + 7.5 * 1.5, rel=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_the_shared_noise_cancels(objective: Objective) -> None:
    prior = line([0.2, -0.5, 1.0], 0.6)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    first, second = (edit(prior, column(-1, 0, 2), column(0.3, 0.3, 0.3), t, seed) for seed in (1, 2))
    assert not torch.equal(first.noise, second.noise)
    gradients = (objective(prior, prior, seen).gradient for seen in (first, second))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_an_edit_to_what_is_there_already_changes_nothing(objective: Objective, prior: ToyPrior, view: View) -> None:
    still = replace(view, source=Source(view.x, view.wanted.text))
    assert bool((objective(prior, prior, still).gradient == 0).all())


# --- posterior distillation ---

PSI = {100: 0.318, 300: 0.080, 500: 0.032, 900: 0.006}
"""The hold on the source at steps of Stable Diffusion's schedule, on the published grid."""


def times(*steps: int) -> Tensor:
    return torch.tensor(steps, dtype=torch.float64) / 999


def test_the_hold_on_the_source_is_as_published() -> None:
    psi, chi = PDS().factors(line([0, 0, 0], 1), times(*PSI))
    assert psi.tolist() == pytest.approx(list(PSI.values()), abs=5e-4)
    assert all(0.07 < value < 0.12 for value in chi.tolist())


def test_on_the_grid_of_the_prior_nothing_holds_the_source() -> None:
    prior = line([0.2, -0.5, 1.0], 0.6)
    fine = PDS(7.5, grid=1000)
    psi, _ = fine.factors(prior, times(*range(2, 1000)))
    assert float(psi.abs().max()) < 1e-10
    assert resting(prior, fine, 0.3, 400) == pytest.approx(0.3 + 7.5 * 1.5, rel=1e-6)


def test_half_the_steps_of_the_walk_are_a_stride_of_two() -> None:
    """c0, c1 and the spread of one step, from the table of betas."""
    square = ScaledLinear().alphas_cumprod()
    step = torch.tensor([20, 250, 980])
    now, before, beta = square[step], square[step - 2], 1 - square[step] / square[step - 1]
    c0, c1 = before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)
    spread = (beta * (1 - before) / (1 - now)).sqrt()
    psi, chi = PDS().factors(line([0, 0, 0], 1), times(*step.tolist()))
    torch.testing.assert_close(psi, (before.sqrt() - c0 - c1 * now.sqrt()) / spread, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(chi, c0 * ((1 - now) / now).sqrt() / spread, rtol=1e-8, atol=0)


def test_it_is_the_difference_of_the_noises_that_lead_to_the_same_draw(prior: ToyPrior, view: View) -> None:
    """z = (x_t' - mean of the posterior) / spread, for the edit and the source, with shared noises at t and t'."""
    t = times(60, 300, 600, 950)
    view = replace(view, t=t)
    square, place = ScaledLinear().alphas_cumprod(), torch.tensor([60, 300, 600, 950])
    now, before, beta = square[place], square[place - 2], 1 - square[place] / square[place - 1]
    c0, c1 = before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)
    spread = (beta * (1 - before) / (1 - now)).sqrt()
    levels = now.sqrt(), (1 - now).sqrt()

    def found(x: Tensor, condition: Condition) -> Tensor:
        x_t = noised(x, view.noise, *levels)
        empty, text = prior.predict(x_t, t, [view.wanted.empty, condition])
        mean = per_view(c0) * cleaned(x_t, guided(empty, text, 3), *levels) + per_view(c1) * x_t
        return (noised(x, view.second, before.sqrt(), (1 - before).sqrt()) - mean) / per_view(spread)

    assert view.source is not None
    expected = found(view.x, view.wanted.text) - found(view.source.x, view.source.text)
    torch.testing.assert_close(PDS(3)(prior, prior, view).gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("step", [100, 500, 900])
def test_an_edit_is_held_back_towards_its_source(step: int) -> None:
    """x - x_src = (m_new - m_old) chi h / (psi + chi h), h = sigma alpha / (alpha^2 std^2 + sigma^2)."""
    prior = line([0.2, -0.5, 1.0], 0.6)
    alpha, sigma = (float(level) for level in prior.levels(times(step)))
    psi, chi = (float(value) for value in PDS().factors(prior, times(step)))
    h = sigma * alpha / ((alpha * 0.6) ** 2 + sigma**2)
    moved = resting(prior, PDS(1), 0.3, step) - 0.3
    assert moved == pytest.approx(1.5 * chi * h / (psi + chi * h), rel=1e-9)
    assert 0 < moved < 1.5


def test_the_factors_do_not_depend_on_how_signal_and_noise_are_scaled() -> None:
    """A flow schedule, brought to unit variance, has the same ones."""

    @dataclass(frozen=True)
    class Circle:
        def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = Flow().levels(t)
            return alpha / torch.hypot(alpha, sigma), sigma / torch.hypot(alpha, sigma)

    straight, round_ = (replace(line([0, 0, 0], 1), schedule=schedule) for schedule in (Flow(), Circle()))
    t = times(20, 300, 980)
    for value, expected in zip(PDS().factors(straight, t), PDS().factors(round_, t), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [ScaledLinear(), Flow()], ids=repr)
def test_at_the_clean_end_the_factors_stay_what_they_are(schedule: ScaledLinear | Flow) -> None:
    prior = replace(line([0, 0, 0], 1), schedule=schedule)
    for value in PDS().factors(prior, times(0, 1, 2, 3)):
        assert bool(value.isfinite().all()) and float(value.diff().abs().max()) < 1e-9


# --- what both keep to ---


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_four_answers_at_one_time(objective: Objective, prior: ToyPrior, view: View) -> None:
    asked: list[tuple[Tensor, int]] = []

    @dataclass
    class Watching:
        def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return prior.levels(t)

        def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            asked.append((t, len(conditions)))
            return prior.predict(x_t, t, conditions)

    objective(Watching(), Watching(), view)
    assert sum(count for _, count in asked) == 4 and all(torch.equal(t, view.t) for t, _ in asked)
    assert objective.about is not None and objective.about.passes == (4, 4)
    assert objective.needs_source


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_a_batch_is_its_views_one_by_one(objective: Objective, prior: ToyPrior, view: View) -> None:
    rows = [objective(prior, prior, view.rows(torch.tensor([place]))).gradient for place in range(len(view.x))]
    torch.testing.assert_close(objective(prior, prior, view).gradient, torch.cat(rows))


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_the_same_view_gives_the_same_detached_update(objective: Objective, prior: ToyPrior, view: View) -> None:
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient) and first.logs == second.logs
    assert first.gradient.shape == view.x.shape and not first.gradient.requires_grad


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_single_precision_is_close_to_double(objective: Objective, prior: ToyPrior, view: View) -> None:
    single = ToyPrior(prior.means.float(), prior.deviations.float(), prior.texts)
    assert view.source is not None
    seen = edit(single, view.x.float(), view.source.x.float(), view.t.float())
    seen = replace(seen, noise=view.noise.float(), second=view.second.float())
    gradient = objective(single, single, seen).gradient
    assert gradient.dtype == torch.float32
    expected = objective(prior, prior, view).gradient
    assert float((gradient - expected).norm()) < 1e-4 * float(expected.norm())


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_an_edit_of_nothing_is_refused(objective: Objective, prior: ToyPrior, view: View) -> None:
    with pytest.raises(ValueError, match="the view has no source"):
        objective(prior, prior, replace(view, source=None))


def test_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="scale is nan"):
        DDS(float("nan"))
    with pytest.raises(ValueError, match="scale is inf"):
        PDS(float("inf"))
    with pytest.raises(ValueError, match="grid is 1001; expected from 2 to the 1000 steps"):
        PDS(grid=1001)
    with pytest.raises(ValueError, match="grid is 1;"):
        PDS(grid=1)
    with pytest.raises(ValueError, match="steps is 1; expected at least 2"):
        PDS(grid=2, steps=1)
