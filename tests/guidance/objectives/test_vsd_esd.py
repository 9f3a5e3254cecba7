"""VSD and ESD against closed forms, and what all objectives that ask a critic keep to."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.esd import ESD
from guidance.objectives.variational.f_vsd import FVSD
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Condition, add_noise, expand_like_latents, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    SCHEDULE,
    AnalyticDenoiser,
    VarianceExplodingOracle,
    alpha_sigma_at,
    by_condition,
    expected_grad,
    gaussian_noise_fn,
    hermite_nodes,
    normal,
    scalar_views,
    stationary_moments,
)

# --- VSD ---


def test_vsd_particles_move_as_in_closed_form() -> None:
    """E g = w alpha sigma [a(std) (x - m) - a(spread) (x - mean)] with a(s) = 1 / (alpha^2 s^2 + sigma^2)."""
    prior, critic = AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)), AnalyticDenoiser(gaussian_noise_fn(-0.4, 1.3))
    x = torch.tensor([-2.0, -0.4, 1.0, 3.0], dtype=DOUBLE)
    for t in (0.05, 0.3, 0.9):
        alpha, sigma = alpha_sigma_at(t)
        own, crowd = (1 / (alpha**2 * s**2 + sigma**2) for s in (0.6, 1.3))
        expected = sigma**2 * alpha * sigma * (own * (x - 1) - crowd * (x + 0.4))
        torch.testing.assert_close(expected_grad(VSD(1), prior, critic, x, t), expected)


@pytest.mark.parametrize("t", [[0.2], [0.5], [0.1, 0.3, 0.6]])
@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_vsd_particles_converge_to_the_data(t: list[float], weighting: str) -> None:
    prior = AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6))
    objective = VSD(1, weighting)
    found = stationary_moments(
        objective, prior, lambda mean, deviation: AnalyticDenoiser(gaussian_noise_fn(mean, deviation)), t, 900
    )
    assert found == pytest.approx((1.0, 0.6), abs=1e-3)


def test_guidance_shifts_the_mean_and_keeps_the_std() -> None:
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.5, 0.6)))
    found = stationary_moments(
        VSD(3), prior, lambda mean, deviation: AnalyticDenoiser(gaussian_noise_fn(mean, deviation)), [0.2, 0.5], 600
    )
    assert found == pytest.approx((0.5 + 3 * 0.5, 0.6), abs=1e-3)


def test_vsd_with_a_delta_critic_equals_sds() -> None:
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.0, 1.0)))
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = scalar_views(x, torch.randn(7, generator=make_rng(1), dtype=DOUBLE), t)
    delta = AnalyticDenoiser(lambda x_t, alpha, sigma, _: (x_t - alpha * view.latents) / sigma)
    for weighting in ("sds", "reconstruction"):
        expected = SDS(5, weighting)(prior, prior, view).grad
        torch.testing.assert_close(VSD(5, weighting)(prior, delta, view).grad, expected)


def test_vsd_with_the_prior_as_critic_equals_csd() -> None:
    """As at the start of a run: g = w (scale - 1) (text - empty)."""
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.0, 1.0)))
    view = scalar_views(
        torch.linspace(-1, 1, 5, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE), torch.full((5,), 0.4).double()
    )
    alpha, sigma = SCHEDULE.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    torch.testing.assert_close(VSD(7.5)(prior, prior, view).grad, expand_like_latents(sigma**2) * 6.5 * (text - uncond))


def test_particles_cover_both_modes() -> None:
    """Mean 0.8, deviation 1.857, 70 % to the right: from a critic that knows 64 particles as points, about that."""
    double = torch.tensor([-2.0, 2.0], dtype=DOUBLE)[:, None, None, None]
    prior = GaussianMixturePrior(double, torch.full((2,), 0.3, dtype=DOUBLE), {"": (0.3, 0.7)})
    rng, count = make_rng(5), 64
    x = 2.5 * torch.randn(count, 1, 1, 1, generator=rng, dtype=DOUBLE)
    text = prior.encode_prompt([""] * count)
    uniform = torch.full((count, 1, count), 1 / count, dtype=DOUBLE)
    with_camera = Condition(uniform, text.attention_mask, None)
    for number in range(1200):
        t = torch.full((count,), 0.02 + 0.96 * float(torch.rand((), generator=rng)), dtype=DOUBLE)
        critic = GaussianMixturePrior(x, torch.zeros(count, dtype=DOUBLE), {"": (1.0,) * count})
        view = ViewBatch.sample(x, t, ViewConditions(text, text, text, with_camera), rng)
        x = x - 1.5 / (1 + number / 300) * VSD(1)(prior, critic, view).grad
    flat = x.flatten()
    right = flat > 0
    assert float(flat.mean()) == pytest.approx(0.8, rel=0.15)
    assert float(flat.std()) == pytest.approx(1.857, rel=0.15)
    assert float(right.double().mean()) == pytest.approx(0.7, rel=0.15)
    assert float(flat[right].std()) == pytest.approx(0.3, rel=0.25)
    assert float(flat[~right].std()) == pytest.approx(0.3, rel=0.35)


# --- ESD ---


def render_wise(mean: float, std: float, x: Tensor) -> AnalyticDenoiser:
    """A critic that knows the render of each camera, and without a camera the crowd."""

    def answer(x_t: Tensor, alpha: Tensor, sigma: Tensor, c: Condition) -> Tensor:
        if c.camera is None:
            return gaussian_noise_fn(mean, std)(x_t, alpha, sigma, c)
        return (x_t - alpha * x) / sigma

    return AnalyticDenoiser(answer)


@pytest.mark.parametrize(("entropy", "variance"), [(0.5, 0.395998), (0.9, 0.879199), (1.0, 1.0), (0.02, 0.0)])
def test_esd_entropy_sets_the_spread_of_views(entropy: float, variance: float) -> None:
    """variance = max(0, E std^2 - (1 - E) sigma^2 / alpha^2), at step 150."""
    prior = AnalyticDenoiser(gaussian_noise_fn(0.0, 1.0))
    z, weights = hermite_nodes(2)
    spread, x = 0.8, 0.8 * z
    for _ in range(400):
        critic = render_wise(0.0, spread, expand_like_latents(x.repeat_interleave(2)))
        x = x - 8.0 * expected_grad(ESD(1, entropy), prior, critic, x, 150 / 999)
        spread = math.sqrt(float(x.square() @ weights))
    assert spread**2 == pytest.approx(variance, abs=2e-5)


def test_esd_is_linear_in_entropy_and_equals_vsd_at_zero() -> None:
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.0, 1.0)))

    def answer(x_t: Tensor, alpha: Tensor, sigma: Tensor, c: Condition) -> Tensor:
        return gaussian_noise_fn(0.2, 1.5 if c.camera is None else 0.4)(x_t, alpha, sigma, c)

    critic = AnalyticDenoiser(answer)
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = scalar_views(x, torch.randn(7, generator=make_rng(1), dtype=DOUBLE), t)
    none, all_of_it = (ESD(3, entropy)(prior, critic, view).grad for entropy in (0.0, 1.0))
    assert torch.equal(none, VSD(3)(prior, critic, view).grad)
    for entropy in (0.3, 0.5, 0.8, 1.5):
        between = (1 - entropy) * none + entropy * all_of_it
        torch.testing.assert_close(ESD(3, entropy)(prior, critic, view).grad, between)
    assert not torch.allclose(none, all_of_it)


# --- what every objective keeps to ---


EVERY: list[Objective] = [VSD(3), ESD(3), FVSD(3), PGSB(), DisBack(3)]


@pytest.mark.parametrize("objective", EVERY, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_batch_equals_per_view(objective: Objective, dtype: torch.dtype) -> None:
    prior = VarianceExplodingOracle(lambda x: torch.logaddexp(normal(x, -1.5, 0.5), normal(x, 1.0, 0.8)))
    critic = VarianceExplodingOracle(lambda x: normal(x, 0.3, 1.0), prior.log_density)
    rng = make_rng(3)
    x, noise, t = (torch.randn(4, generator=rng, dtype=dtype) for _ in range(3))
    view = scalar_views(x, noise, t.sigmoid())
    update = objective(prior, critic, view)
    one_by_one = [objective(prior, critic, view.select(torch.tensor([place]))).grad for place in range(4)]
    torch.testing.assert_close(update.grad, torch.cat(one_by_one))
    assert update.grad.dtype == dtype and not update.grad.requires_grad
    assert torch.equal(update.grad, objective(prior, critic, view).grad)
    assert all(math.isfinite(figure) for figure in update.logs.values())
    assert objective.needs_critic and objective.info is not None and objective.info.critic_passes > 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VSD(float("nan")), "scale is nan"),
        (lambda: ESD(entropy=-0.1), r"entropy is -0\.1; expected a number from 0"),
        (lambda: ESD(entropy=float("nan")), "entropy is nan"),
        (
            lambda: FVSD(ratio_min=0.0),
            r"ratio_min is 0\.0 and ratio_max 20\.0; expected 0 < ratio_min <= 1 <= ratio_max",
        ),
        (lambda: FVSD(ratio_max=0.5), r"ratio_min is 0\.1 and ratio_max 0\.5"),
        (lambda: PGSB(5, 2), r"guidance_scale_min is 5 and guidance_scale_max 2; expected guidance_scale_min <="),
        (lambda: PGSB(2, float("inf")), "both finite"),
        (lambda: DisBack(stages_end=1.5), r"stages_end is 1\.5; expected a progress"),
    ],
)
def test_rejects_invalid_values(make: Callable[[], Objective], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_unknown_divergence_suggests_the_nearest() -> None:
    changed = FVSD()
    object.__setattr__(changed, "divergence", "helinger")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown divergence 'helinger'; did you mean hellinger\?"):
        changed.__post_init__()
