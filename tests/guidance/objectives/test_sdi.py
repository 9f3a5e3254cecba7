"""SDI against closed forms, and what all objectives on an inverted chain keep to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.sdi import SDI
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.inversion import DDIMInversion, ddim_step
from guidance.priors.base import expand_like_latents, predict_x0
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from tests.support.guidance.inversion_oracles import (
    RecordingPrior,
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

EVERY = [ISM(), TSM(), CSM(), SDI(), SDI(reproduce_released_timestep=True)]
names = [type(objective).__name__ for objective in EVERY]


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    return three_component_prior()


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    return six_views(prior)


# --- distillation by inversion ---


def test_sdi_points_to_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """x - xhat = (x - m)(1 - alpha std / D_t) along the exact flow, and without any noise."""
    mean, std = 0.7, 0.4
    prior = scalar_mixture([mean], [std], {"": (1,), "y": (1,)})
    patch_ddim_with_exact_flow(monkeypatch, prior)
    t = torch.tensor([0.25, 0.5, 0.98], dtype=torch.float64)
    view = numbered_views(prior, column(-1, 0.7, 3), t)
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(t))
    expected = (view.latents - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    for inverted in (0.0, 1.0):
        grad = SDI(1, inverted, eta=0)(prior, prior, view).grad
        torch.testing.assert_close(grad, expected)
    assert float(grad[1].abs().max()) < 1e-12


def test_sdi_fixed_point_matches_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t of the prior shifted by -k, seen clean by the one shifted by the scale; linear in x."""
    prior, scale, back, std = two_gaussians(0.2, 0.7, 0.6), 7.5, -7.5, 0.6
    patch_ddim_with_exact_flow(monkeypatch, scalar_mixture([0.2 + back * 0.5], [std], {"": (1,)}))
    alpha, sigma = alpha_sigma_at(prior, T)
    spread = ((alpha * std) ** 2 + sigma**2) ** 0.5
    below, above = 0.2 + back * 0.5, 0.2 + scale * 0.5
    # xhat = above + alpha std^2 / D^2 (x_t - alpha above), x_t = alpha below + (x - below) D / std
    slope = alpha * std / spread
    expected = (above * (sigma / spread) ** 2 + below * (slope**2 - slope)) / (1 - slope)
    assert fixed_point(prior, SDI(scale, back, eta=0)) == pytest.approx(expected, rel=1e-9)


def test_sdi_converges_to_the_exact_flow_grad() -> None:
    mean, std = 0.7, 0.4
    prior = scalar_mixture([mean], [std], {"": (1,), "y": (1,)})
    view = numbered_views(prior, column(-1, 3), torch.tensor([0.5, 0.8], dtype=torch.float64))
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(view.t))
    expected = (view.latents - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    errors = [
        (SDI(1, 0, stride, eta=0)(prior, prior, view).grad - expected).abs().max() for stride in (0.1, 0.02, 0.004)
    ]
    # The first step, off the clean latent, is one whatever the stride: what is left at the end is its error.
    assert errors[0] > 3 * errors[1] > 6 * errors[2] and errors[2] < 0.01


def test_sdi_equals_sds_with_inverted_noise(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    """The weighting `reconstruction`, with the noise (x_t - alpha x) / sigma."""
    grad = SDI(5, -3, eta=0)(prior, prior, view).grad
    start = torch.zeros_like(view.t)
    upwards = DDIMInversion(0.1, -3)
    x_0 = ddim_step(prior, view.latents, upwards.noise_pred(prior, view.latents, start, view.conditions), None, start)
    x_t = upwards(prior, x_0, view.t, view.conditions)
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(view.t))
    found = replace(view, noise=(x_t - alpha * view.latents) / sigma)
    torch.testing.assert_close(grad, SDS(5, "reconstruction")(prior, prior, found).grad)


def test_reproduce_released_timestep_overshoots_t() -> None:
    prior = two_gaussians(0.2, 0.7, 0.6)
    t = torch.tensor([0.45, 0.98], dtype=torch.float64)
    view = replace(numbered_views(prior, column(0.4, 0.4), t), u=torch.tensor([0.5, 0.5], dtype=torch.float64))
    watched, matched = RecordingPrior(prior, []), RecordingPrior(prior, [])
    far = SDI(5, -3, eta=0, reproduce_released_timestep=True)(watched, watched, view).grad
    near = SDI(5, -3, eta=0)(matched, matched, view).grad
    assert [t.tolist() for t, _ in watched.calls] == [t.tolist() for t, _ in matched.calls]
    landing = torch.tensor([0.5, 1.0], dtype=torch.float64)
    start = torch.zeros_like(t)
    upwards = DDIMInversion(0.1, -3)
    x_0 = ddim_step(prior, view.latents, upwards.noise_pred(prior, view.latents, start, view.conditions), None, start)
    x_t = upwards(prior, x_0, t, view.conditions, None, landing)
    noise_preds = prior.predict_noise(x_t, t, [view.conditions.uncond, view.conditions.text])
    expected = predict_x0(x_t, noise_preds[0] + 5 * (noise_preds[1] - noise_preds[0]), *prior.alpha_sigma(t))
    torch.testing.assert_close(far, view.latents - expected)
    still = replace(view, u=torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(SDI(5, -3, eta=0, reproduce_released_timestep=True)(prior, prior, still).grad, near)


def test_sdi_is_deterministic_without_eta(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    other = replace(view, extra_noise=view.noise, noise=view.extra_noise)
    assert torch.equal(*(SDI(eta=0)(prior, prior, seen).grad for seen in (view, other)))
    assert not torch.equal(*(SDI(eta=0.3)(prior, prior, seen).grad for seen in (view, other)))


# --- what all of them keep to ---

PASSES: list[tuple[Objective, dict[float, int]]] = [
    (ISM(), {0.02: 3, 0.08: 3, 0.1: 4, 0.28: 4, 0.3: 5, 0.5: 6, 0.98: 8}),
    (CSM(), {0.02: 3, 0.1: 4, 0.5: 6, 0.98: 8}),
    (TSM(), {0.02: 4, 0.1: 5, 0.5: 7, 0.98: 9}),
    (SDI(), {0.25: 10, 0.3: 10, 0.31: 12, 0.98: 24}),
    (SDI(reproduce_released_timestep=True), {0.25: 10, 0.98: 24}),
    (SDI(inversion_guidance_scale=0), {0.25: 6, 0.98: 13}),
]


@pytest.mark.parametrize(("objective", "passes"), PASSES, ids=lambda value: type(value).__name__)
def test_number_of_forward_passes_matches_info(objective: Objective, passes: dict[float, int]) -> None:
    prior = two_gaussians(0.0, 0.5, 0.8)
    watched = RecordingPrior(prior, [])
    t = torch.tensor(list(passes), dtype=torch.float64)
    objective(watched, watched, numbered_views(prior, torch.zeros(len(t), 1, 1, 1, dtype=torch.float64), t))
    assert [watched.passes_per_view()[place] for place in range(len(t))] == list(passes.values())
    if objective == type(objective)():
        assert objective.info is not None
        assert objective.info.forward_passes == (min(passes.values()), max(passes.values()))


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_batch_equals_per_view(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    together = objective(prior, prior, view).grad
    for place in range(len(view.latents)):
        alone = objective(prior, prior, view.select(torch.tensor([place]))).grad
        torch.testing.assert_close(alone[0], together[place])


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_is_deterministic_and_detached(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    x = view.latents.clone()
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.grad, second.grad) and first.logs == second.logs
    assert first.grad.shape == view.latents.shape and not first.grad.requires_grad
    assert torch.equal(view.latents, x)


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_float32_is_close_to_float64(objective: Objective, prior: GaussianMixturePrior, view: ViewBatch) -> None:
    single = GaussianMixturePrior(prior.means.float(), prior.stds.float(), prior.text_weights)
    wanted = numbered_views(single, view.latents.float(), view.t.float()).conditions
    parts = {name: getattr(view, name).float() for name in ("latents", "noise", "t", "extra_noise", "u")}
    grad = objective(single, single, replace(view, conditions=wanted, **parts)).grad
    assert grad.dtype == torch.float32
    expected = objective(prior, prior, view).grad
    assert float((grad - expected).norm()) < 1e-3 * float(expected.norm())


def test_rejects_invalid_values() -> None:
    for kind, name in ((ISM, "guidance_scale"), (TSM, "guidance_scale"), (CSM, "weight")):
        with pytest.raises(ValueError, match=f"{name} is nan"):
            kind(**{name: float("nan")})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="delta is 0; expected above 0 and at most 1"):
            kind(delta=0)
    for kind in (ISM, TSM, CSM, SDI):
        with pytest.raises(ValueError, match=r"stride is -0\.1; expected above 0"):
            kind(stride=-0.1)
    with pytest.raises(ValueError, match=r"gamma is 1\.5; expected a number from 0 to 1"):
        TSM(gamma=1.5)
    with pytest.raises(ValueError, match="guidance_scale is inf"):
        SDI(guidance_scale=float("inf"))
    with pytest.raises(ValueError, match="guidance_scale is nan"):
        SDI(inversion_guidance_scale=float("nan"))
    with pytest.raises(ValueError, match="eta is -1"):
        SDI(eta=-1)
