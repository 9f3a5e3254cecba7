"""Edits of a source: where they rest on Gaussians, and that noise cancels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import EditSource, Objective, ViewBatch
from guidance.objectives.edits.dds import DDS
from guidance.objectives.edits.pds import PDS
from guidance.priors.base import Condition, add_noise, expand_like_latents, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import RectifiedFlowSchedule, ScaledLinearSchedule

BOTH = [DDS(), PDS()]
names = [type(objective).__name__ for objective in BOTH]


def edit(prior: GaussianMixturePrior, x: Tensor, source: Tensor, t: Tensor, seed: int = 0) -> ViewBatch:
    """From what `old` means to what `new` does."""
    new, uncond, old = (prior.encode_prompt([text] * len(x)) for text in ("new", "", "old"))
    view = ViewBatch.sample(x, t, ViewConditions(new, uncond, uncond, new), torch.Generator().manual_seed(seed))
    return replace(view, source=EditSource(source, old))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def scalar_mixture(means: list[float], std: float) -> GaussianMixturePrior:
    """One number under no text, the old one and the new one, of equal spreads."""
    texts = {"": (1.0, 0.0, 0.0), "old": (0.0, 1.0, 0.0), "new": (0.0, 0.0, 1.0)}
    return GaussianMixturePrior(column(*means), torch.tensor([std] * 3, dtype=torch.float64), texts)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stds = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return GaussianMixturePrior(means, stds, {"": (0.2, 0.3, 0.5), "old": (0, 1, 0.1), "new": (0.5, 0, 0.1)})


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    rng = torch.Generator().manual_seed(1)
    x, source = (torch.randn(4, 3, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    return edit(prior, x, source, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


def fixed_point(prior: GaussianMixturePrior, objective: Objective, source: float, step: int) -> float:
    """Where the gradient, linear in x, is nothing."""
    t = torch.full((2,), step / 999, dtype=torch.float64)
    view = edit(prior, column(0, 1), column(source, source), t)
    at_0, at_1 = objective(prior, prior, view).grad.flatten().tolist()
    assert at_1 > at_0
    return float(at_0 / (at_0 - at_1))


# --- delta denoising ---


@pytest.mark.parametrize("step", [50, 400, 949])
def test_dds_moves_by_the_difference_of_means(step: int) -> None:
    prior = scalar_mixture([0.2, -0.5, 1.0], 0.6)
    assert fixed_point(prior, DDS(1), 0.3, step) == pytest.approx(0.3 + 1.5, rel=1e-9)
    # Guidance enlarges the difference, as the null text is the same for both.
    assert fixed_point(prior, DDS(7.5), 0.3, step) == pytest.approx(0.3 + 7.5 * 1.5, rel=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_dds_noise_cancels(objective: Objective) -> None:
    prior = scalar_mixture([0.2, -0.5, 1.0], 0.6)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    first, second = (edit(prior, column(-1, 0, 2), column(0.3, 0.3, 0.3), t, seed) for seed in (1, 2))
    assert not torch.equal(first.noise, second.noise)
    grads = (objective(prior, prior, seen).grad for seen in (first, second))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_edit_to_the_source_prompt_is_zero(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    still = replace(view, source=EditSource(view.latents, view.conditions.text))
    assert bool((objective(prior, prior, still).grad == 0).all())


# --- posterior distillation ---

PSI = {100: 0.318, 300: 0.080, 500: 0.032, 900: 0.006}
"""The hold on the source at steps of Stable Diffusion's schedule, on the published grid."""


def times(*steps: int) -> Tensor:
    return torch.tensor(steps, dtype=torch.float64) / 999


def test_pds_coefficients_match_the_released_code() -> None:
    psi, chi = PDS().posterior_coefficients(scalar_mixture([0, 0, 0], 1), times(*PSI))
    assert psi.tolist() == pytest.approx(list(PSI.values()), abs=5e-4)
    assert all(0.07 < value < 0.12 for value in chi.tolist())


def test_pds_psi_vanishes_at_equal_step_counts() -> None:
    prior = scalar_mixture([0.2, -0.5, 1.0], 0.6)
    precise = PDS(7.5, num_inference_steps=1000)
    psi, _ = precise.posterior_coefficients(prior, times(*range(2, 1000)))
    assert float(psi.abs().max()) < 1e-10
    assert fixed_point(prior, precise, 0.3, 400) == pytest.approx(0.3 + 7.5 * 1.5, rel=1e-6)


def test_pds_half_the_steps_double_the_stride() -> None:
    """c0, c1 and the spread of one step, from the table of betas."""
    square = ScaledLinearSchedule().alphas_cumprod()
    step = torch.tensor([20, 250, 980])
    now, before, beta = square[step], square[step - 2], 1 - square[step] / square[step - 1]
    c0, c1 = before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)
    spread = (beta * (1 - before) / (1 - now)).sqrt()
    psi, chi = PDS().posterior_coefficients(scalar_mixture([0, 0, 0], 1), times(*step.tolist()))
    torch.testing.assert_close(psi, (before.sqrt() - c0 - c1 * now.sqrt()) / spread, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(chi, c0 * ((1 - now) / now).sqrt() / spread, rtol=1e-8, atol=0)


def test_pds_is_the_posterior_noise_difference(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    """z = (x_t' - mean of the posterior) / spread, for the edit and the source, with shared noises at t and t'."""
    t = times(60, 300, 600, 950)
    view = replace(view, t=t)
    square, place = ScaledLinearSchedule().alphas_cumprod(), torch.tensor([60, 300, 600, 950])
    now, before, beta = square[place], square[place - 2], 1 - square[place] / square[place - 1]
    c0, c1 = before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)
    spread = (beta * (1 - before) / (1 - now)).sqrt()
    levels = now.sqrt(), (1 - now).sqrt()

    def found(x: Tensor, condition: Condition) -> Tensor:
        x_t = add_noise(x, view.noise, *levels)
        uncond, text = prior.predict_noise(x_t, t, [view.conditions.uncond, condition])
        mean = (
            expand_like_latents(c0) * predict_x0(x_t, classifier_free_guidance(uncond, text, 3), *levels)
            + expand_like_latents(c1) * x_t
        )
        return (add_noise(x, view.extra_noise, before.sqrt(), (1 - before).sqrt()) - mean) / expand_like_latents(spread)

    assert view.source is not None
    expected = found(view.latents, view.conditions.text) - found(view.source.latents, view.source.text)
    torch.testing.assert_close(PDS(3)(prior, prior, view).grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("step", [100, 500, 900])
def test_pds_pulls_towards_the_source(step: int) -> None:
    """x - x_src = (m_new - m_old) chi h / (psi + chi h), h = sigma alpha / (alpha^2 std^2 + sigma^2)."""
    prior = scalar_mixture([0.2, -0.5, 1.0], 0.6)
    alpha, sigma = (float(level) for level in prior.alpha_sigma(times(step)))
    psi, chi = (float(value) for value in PDS().posterior_coefficients(prior, times(step)))
    h = sigma * alpha / ((alpha * 0.6) ** 2 + sigma**2)
    moved = fixed_point(prior, PDS(1), 0.3, step) - 0.3
    assert moved == pytest.approx(1.5 * chi * h / (psi + chi * h), rel=1e-9)
    assert 0 < moved < 1.5


def test_pds_coefficients_are_scale_invariant() -> None:
    """A flow schedule, brought to unit variance, has the same ones."""

    @dataclass(frozen=True)
    class Circle:
        def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = RectifiedFlowSchedule().alpha_sigma(t)
            return alpha / torch.hypot(alpha, sigma), sigma / torch.hypot(alpha, sigma)

    straight, round_ = (
        replace(scalar_mixture([0, 0, 0], 1), schedule=schedule) for schedule in (RectifiedFlowSchedule(), Circle())
    )
    t = times(20, 300, 980)
    for value, expected in zip(
        PDS().posterior_coefficients(straight, t), PDS().posterior_coefficients(round_, t), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [ScaledLinearSchedule(), RectifiedFlowSchedule()], ids=repr)
def test_pds_coefficients_are_clamped_at_t_zero(schedule: ScaledLinearSchedule | RectifiedFlowSchedule) -> None:
    prior = replace(scalar_mixture([0, 0, 0], 1), schedule=schedule)
    for value in PDS().posterior_coefficients(prior, times(0, 1, 2, 3)):
        assert bool(value.isfinite().all()) and float(value.diff().abs().max()) < 1e-9


# --- what both keep to ---


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_edits_take_four_forward_passes_at_one_timestep(
    objective: Objective, prior: GaussianMixturePrior, view: ViewBatch
) -> None:
    calls: list[tuple[Tensor, int]] = []

    @dataclass
    class Watching:
        def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return prior.alpha_sigma(t)

        def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            calls.append((t, len(conditions)))
            return prior.predict_noise(x_t, t, conditions)

    objective(Watching(), Watching(), view)
    assert sum(count for _, count in calls) == 4 and all(torch.equal(t, view.t) for t, _ in calls)
    assert objective.info is not None and objective.info.forward_passes == (4, 4)
    assert objective.needs_source


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_batch_equals_per_view(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    rows = [objective(prior, prior, view.select(torch.tensor([place]))).grad for place in range(len(view.latents))]
    torch.testing.assert_close(objective(prior, prior, view).grad, torch.cat(rows))


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_is_deterministic_and_detached(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.grad, second.grad) and first.logs == second.logs
    assert first.grad.shape == view.latents.shape and not first.grad.requires_grad


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_float32_is_close_to_float64(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    single = GaussianMixturePrior(prior.means.float(), prior.stds.float(), prior.text_weights)
    assert view.source is not None
    seen = edit(single, view.latents.float(), view.source.latents.float(), view.t.float())
    seen = replace(seen, noise=view.noise.float(), extra_noise=view.extra_noise.float())
    grad = objective(single, single, seen).grad
    assert grad.dtype == torch.float32
    expected = objective(prior, prior, view).grad
    assert float((grad - expected).norm()) < 1e-4 * float(expected.norm())


@pytest.mark.parametrize("objective", BOTH, ids=names)
def test_rejects_batches_without_source(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    with pytest.raises(ValueError, match="the view has no source"):
        objective(prior, prior, replace(view, source=None))


def test_rejects_invalid_values() -> None:
    with pytest.raises(ValueError, match="guidance_scale is nan"):
        DDS(float("nan"))
    with pytest.raises(ValueError, match="guidance_scale is inf"):
        PDS(float("inf"))
    with pytest.raises(ValueError, match="num_inference_steps is 1001; expected from 2 to the 1000 steps"):
        PDS(num_inference_steps=1001)
    with pytest.raises(ValueError, match="num_inference_steps is 1;"):
        PDS(num_inference_steps=1)
    with pytest.raises(ValueError, match="num_train_timesteps is 1; expected at least 2"):
        PDS(num_inference_steps=2, num_train_timesteps=1)
