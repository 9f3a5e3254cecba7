"""Score distillation sampling: its forms agree, and on Gaussians it goes where the mathematics says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.objectives.guided import rescale_cfg
from guidance.objectives.weighting import Weighting, timestep_weight
from guidance.priors.base import Condition, add_noise, expand_like_latents, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.gaussian_mixture import GaussianMixturePrior

ALL = get_args(Weighting)


def scalar_mixture(means: list[float], stds: list[float], texts: dict[str, tuple[float, ...]]) -> GaussianMixturePrior:
    """A prior over single numbers, in double precision."""
    double = torch.float64
    return GaussianMixturePrior(
        torch.tensor(means, dtype=double)[:, None, None, None], torch.tensor(stds, dtype=double), texts
    )


def scalar_views(prior: GaussianMixturePrior, x: Tensor, noise: Tensor, t: Tensor) -> ViewBatch:
    text, uncond = prior.encode_prompt(["y"] * len(x)), prior.encode_prompt([""] * len(x))
    expected = ViewConditions(text, uncond, uncond, text)
    return replace(ViewBatch.sample(x, t, expected, torch.Generator().manual_seed(9)), noise=noise)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Three components over 3 x 4 x 4 pictures."""
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(3, 3, 4, 4, generator=rng, dtype=torch.float64)
    stds = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return GaussianMixturePrior(means, stds, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)})


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    rng = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(4, 3, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    return scalar_views(prior, x, noise, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


# --- guidance ---


def test_guidance_scale_one_is_text_and_zero_is_uncond(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    uncond, text = prior.predict_noise(view.latents, view.t, [view.conditions.uncond, view.conditions.text])
    torch.testing.assert_close(classifier_free_guidance(uncond, text, 1), text)
    torch.testing.assert_close(classifier_free_guidance(uncond, text, 0), uncond)
    # Code that writes text + s * (text - empty) means scale = s + 1 here.
    torch.testing.assert_close(classifier_free_guidance(uncond, text, 101), text + 100 * (text - uncond))


# --- the forms of the gradient ---


@pytest.mark.parametrize("kind", ALL)
def test_noise_x0_and_velocity_forms_agree(prior: GaussianMixturePrior, view: ViewBatch, kind: Weighting) -> None:
    scale = 7.5
    grad = SDS(scale, kind)(prior, prior, view).grad
    alpha, sigma = prior.alpha_sigma(view.t)
    a, s, w = (
        expand_like_latents(alpha),
        expand_like_latents(sigma),
        expand_like_latents(timestep_weight(kind, alpha, sigma)),
    )
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    noise_preds = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    images = [predict_x0(x_t, noise_pred, alpha, sigma) for noise_pred in noise_preds]
    velocities = [(noise_pred - s * x_t) / a for noise_pred in noise_preds]
    torch.testing.assert_close(grad, w * a / s * (view.latents - classifier_free_guidance(images[0], images[1], scale)))
    drawn = a * view.noise - s * view.latents
    torch.testing.assert_close(grad, w * a * (classifier_free_guidance(velocities[0], velocities[1], scale) - drawn))


def test_weightings_match_their_papers(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, sigma = prior.alpha_sigma(view.t)
    uniform, sds, fantasia, reconstruction = (
        SDS(3, kind)(prior, prior, view).grad for kind in ("uniform", "sds", "fantasia3d", "reconstruction")
    )
    torch.testing.assert_close(sds, expand_like_latents(sigma.square()) * uniform)
    torch.testing.assert_close(fantasia, expand_like_latents(alpha) * sds)
    torch.testing.assert_close(reconstruction, expand_like_latents(sigma / alpha) * uniform)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_reconstruction_weighting_points_to_the_rescaled_x0(
    prior: GaussianMixturePrior, view: ViewBatch, share: float
) -> None:
    """x - (r f + 1 - r) xhat, with f the spread of the text's clean picture over that of the guided one (MVDream)."""
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    clean = predict_x0(x_t, classifier_free_guidance(uncond, text, 50), alpha, sigma)
    result = predict_x0(x_t, text, alpha, sigma)
    f = torch.stack([a.std() / b.std() for a, b in zip(result, clean, strict=True)])
    expected = view.latents - expand_like_latents(share * f + 1 - share) * clean
    torch.testing.assert_close(SDS(50, "reconstruction", guidance_rescale=share)(prior, prior, view).grad, expected)


def test_reconstruction_weighting_points_to_x0(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    expected = view.latents - predict_x0(x_t, classifier_free_guidance(uncond, text, 3), alpha, sigma)
    torch.testing.assert_close(SDS(3, "reconstruction")(prior, prior, view).grad, expected)


# --- rescaling ---


def x0_std(prior: GaussianMixturePrior, view: ViewBatch, noise_pred: Tensor) -> Tensor:
    alpha, sigma = prior.alpha_sigma(view.t)
    return predict_x0(add_noise(view.latents, view.noise, alpha, sigma), noise_pred, alpha, sigma).flatten(1).std(1)


def test_guidance_rescale_zero_is_the_identity(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    noise_pred, text = 3 * view.noise, view.noise
    torch.testing.assert_close(rescale_cfg(noise_pred, text, x_t, alpha, sigma, 0.0), noise_pred)
    # At scale 1 the guided picture is the text's own: there is nothing to bring back.
    plain, whole = SDS(1)(prior, prior, view), SDS(1, guidance_rescale=1)(prior, prior, view)
    torch.testing.assert_close(plain.grad, whole.grad)


def test_guidance_rescale_one_matches_the_text_std(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    noise_pred = classifier_free_guidance(uncond, text, 20)
    assert bool((x0_std(prior, view, noise_pred) > 1.05 * x0_std(prior, view, text)).any())
    whole = rescale_cfg(noise_pred, text, x_t, alpha, sigma, 1.0)
    torch.testing.assert_close(x0_std(prior, view, whole), x0_std(prior, view, text))
    half = rescale_cfg(noise_pred, text, x_t, alpha, sigma, 0.5)
    between = (x0_std(prior, view, noise_pred) + x0_std(prior, view, text)) / 2
    torch.testing.assert_close(x0_std(prior, view, half), between)


def test_multiview_groups_share_one_rescale_ratio(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    """As MVDream does: of the spread over all four of a group, and nothing of another group's."""
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    noise_pred, text = 3 * view.extra_noise, view.extra_noise
    pairs = rescale_cfg(noise_pred, text, x_t, alpha, sigma, 1.0, 2)
    clean, result, found = (predict_x0(x_t, e, alpha, sigma) for e in (noise_pred, text, pairs))
    for rows in (slice(0, 2), slice(2, 4)):
        torch.testing.assert_close(found[rows], clean[rows] * (result[rows].std() / clean[rows].std()))

    @dataclass(frozen=True)
    class Joint(GaussianMixturePrior):
        views_per_group = 4

    joint = Joint(**vars(prior))
    whole, alone = (SDS(9, guidance_rescale=1)(calls, prior, view).grad for calls in (joint, prior))
    assert not torch.allclose(whole, alone)
    torch.testing.assert_close(SDS(9)(joint, prior, view).grad, SDS(9)(prior, prior, view).grad)


# --- what every objective keeps to ---


@given(st.sampled_from(ALL), st.floats(0, 100), st.floats(0, 1))
def test_is_deterministic_and_detached(kind: Weighting, scale: float, rescale: float) -> None:
    prior = scalar_mixture([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    x = torch.tensor([-1.0, 0.5], dtype=torch.float64)[:, None, None, None].expand(2, 1, 2, 2)
    view = scalar_views(prior, x, x.flip(-1) * 0.3, torch.tensor([0.2, 0.8], dtype=torch.float64))
    objective = SDS(scale, kind, guidance_rescale=rescale)
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.grad, second.grad)
    assert first.logs == second.logs
    assert first.grad.shape == x.shape and not first.grad.requires_grad
    assert bool(first.grad.isfinite().all())


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_batch_equals_per_view(prior: GaussianMixturePrior, view: ViewBatch, rescale: float) -> None:
    objective = SDS(5, guidance_rescale=rescale)
    one_by_one = [view.select(torch.tensor([place])) for place in range(len(view.latents))]
    rows = [objective(prior, prior, one).grad for one in one_by_one]
    torch.testing.assert_close(objective(prior, prior, view).grad, torch.cat(rows))


def test_grad_vanishes_for_an_exact_noise_pred(view: ViewBatch) -> None:
    @dataclass(frozen=True)
    class Agreeing:
        """Answers with the noise that was drawn."""

        def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return (1 - t.square()).sqrt(), t

        def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            return torch.stack([view.noise] * len(conditions))

    update = SDS(50)(Agreeing(), Agreeing(), view)
    assert bool((update.grad == 0).all())


def test_rejects_invalid_values() -> None:
    with pytest.raises(ValueError, match="scale is nan"):
        SDS(float("nan"))
    with pytest.raises(ValueError, match="scale is inf"):
        SDS(float("inf"))
    for share in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"rescale is {share}; expected a share"):
            SDS(guidance_rescale=share)
    changed = SDS()
    object.__setattr__(changed, "weighting", "unifrom")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown weighting 'unifrom'; did you mean uniform\?"):
        changed.__post_init__()


# --- on Gaussians ---


def test_gaussian_grad_matches_closed_form() -> None:
    """w a [alpha sigma (x - m) - alpha^2 std^2 noise] with a = 1 / (alpha^2 std^2 + sigma^2)."""
    mean, std = 0.7, 0.4
    prior = scalar_mixture([0.0, mean], [1.0, std], {"": (1, 0), "y": (0, 1)})
    rng = torch.Generator().manual_seed(2)
    x, noise = (torch.randn(50, 1, 1, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.02, 0.98, 50, dtype=torch.float64)
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(t))
    pull = alpha * sigma * (x - mean) - alpha**2 * std**2 * noise
    expected = sigma**2 / (alpha**2 * std**2 + sigma**2) * pull
    torch.testing.assert_close(SDS(1)(prior, prior, scalar_views(prior, x, noise, t)).grad, expected)


def expected_grad(
    prior: GaussianMixturePrior, objective: SDS, places: list[float], steps: range, nodes: int
) -> list[float]:
    """E over t and noise of the gradient at each place; noise by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    t = torch.tensor(list(steps), dtype=torch.float64).repeat_interleave(nodes) / 999
    noise = torch.from_numpy(points).repeat(len(steps))[:, None, None, None]
    share = torch.from_numpy(weights / weights.sum()).repeat(len(steps)) / len(steps)
    found = []
    for place in places:
        view = scalar_views(prior, torch.full_like(noise, place), noise, t)
        found.append(float(objective(prior, prior, view).grad[:, 0, 0, 0] @ share))
    return found


def test_expected_gradient_is_that_of_the_annealed_log_density() -> None:
    """E g = -(w sigma / alpha) d/dx E log p_t(alpha x + sigma noise)."""
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    step, x = 400, 0.5

    def annealed(place: float) -> float:
        t = torch.full((80,), step / 999, dtype=torch.float64)
        alpha, sigma = prior.alpha_sigma(t)
        x_t = (alpha * place + sigma * torch.from_numpy(points))[:, None, None, None]
        share = torch.from_numpy(weights / weights.sum())
        return float(prior.log_density(x_t, t, prior.encode_prompt(["y"] * 80)) @ share)

    alpha, sigma = (float(level) for level in prior.alpha_sigma(torch.tensor([step / 999], dtype=torch.float64)))
    slope = (annealed(x + 1e-4) - annealed(x - 1e-4)) / 2e-4
    (found,) = expected_grad(prior, SDS(1), [x], range(step, step + 1), 80)
    assert found == pytest.approx(-(sigma**2) * sigma / alpha * slope, rel=1e-6)


def test_guided_fixed_point_overshoots_as_in_closed_form() -> None:
    prior = scalar_mixture([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    # The answers are linear in the noise, so two nodes are exact; the gradient is linear in the place.
    at_0, at_1 = expected_grad(prior, SDS(3), [0.0, 1.0], range(20, 981), 2)
    assert at_0 / (at_0 - at_1) == pytest.approx(2.10289, abs=1e-5)


def test_equal_std_overshoot_is_proportional_to_guidance_scale() -> None:
    prior = scalar_mixture([0.5, 1.0], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    for scale in (1.0, 7.5, 100.0):
        at_0, at_1 = expected_grad(prior, SDS(scale), [0.0, 1.0], range(20, 981), 2)
        assert at_0 / (at_0 - at_1) == pytest.approx(0.5 + scale * 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "kind", "resting", "parting"),
    [
        (range(20, 121), "sds", [-2.0, 2.0], [-0.0467]),
        (range(20, 501), "sds", [-1.5921, 1.8736], [-0.3370]),
        (range(20, 981), "sds", [1.4855], []),
        (range(600, 981), "sds", [0.8429], []),
        (range(20, 981), "uniform", [-1.3802, 1.7816], [-0.2085]),
    ],
    ids=str,
)
def test_fixed_points_of_two_modes(steps: range, kind: Weighting, resting: list[float], parting: list[float]) -> None:
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (0.3, 0.7), "y": (0.3, 0.7)})
    grid = [*np.arange(-2.5, 2.6, 0.5)]
    values = expected_grad(prior, SDS(1, kind), grid, steps[::4], 24)
    assert sum(low < 0 < high for low, high in pairwise(values)) == len(resting)
    assert sum(low > 0 > high for low, high in pairwise(values)) == len(parting)
    for points, sign in ((resting, 1), (parting, -1)):
        for point in points:
            below, above = expected_grad(prior, SDS(1, kind), [point - 2e-4, point + 2e-4], steps, 64)
            assert sign * below < 0 < sign * above


def test_sds_particles_collapse_to_the_mean() -> None:
    prior = scalar_mixture([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(200, 1, 1, 1, generator=rng, dtype=torch.float64)
    for number in range(400):
        noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        t = 0.02 + 0.96 * torch.rand(len(x), generator=rng, dtype=torch.float64)
        x = x - 2.0 / (1 + number / 10) * SDS(1)(prior, prior, scalar_views(prior, x, noise, t)).grad
    assert float(x.mean()) == pytest.approx(1, abs=0.02)
    assert float(x.std()) < 0.1  # of the data's 0.6
