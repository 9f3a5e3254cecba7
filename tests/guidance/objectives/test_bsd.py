"""BSD: the shortest mixture of two pulls, and the drift that it leaves before Gaussians."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidance.objectives.differences.bsd import BSD, Variant, min_norm_mix
from guidance.priors.base import add_noise, expand_like_latents
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from tests.support.guidance.gaussian_oracles import random_views, scalar_mixture, scalar_views


def vectors(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[:, :, None, None]


def mix_pulls(first: Tensor, second: Tensor) -> Tensor:
    share = expand_like_latents(min_norm_mix(first, second))
    return share * first + (1 - share) * second


def dot_product(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(1)


# --- the shortest mixture ---


def test_mix_opposes_neither_term() -> None:
    """<g, g_i> >= |g|^2, with equality where neither is left out."""
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(500, 2, 2, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    share, mixed = min_norm_mix(first, second), mix_pulls(first, second)
    square = dot_product(mixed, mixed)
    within = (share > 0) & (share < 1)
    assert 50 < int(within.sum()) < 490
    for pull in (first, second):
        assert bool((dot_product(mixed, pull) >= square - 1e-12).all())
        torch.testing.assert_close(dot_product(mixed, pull)[within], square[within])


def test_mix_has_minimum_norm() -> None:
    rng = torch.Generator().manual_seed(1)
    first, second = (torch.randn(50, 3, 1, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    found = dot_product(mix_pulls(first, second), mix_pulls(first, second))
    for share in torch.linspace(0, 1, 101, dtype=torch.float64):
        other = share * first + (1 - share) * second
        assert bool((dot_product(other, other) >= found - 1e-12).all())


def test_orthogonal_terms_are_weighted_by_squared_norm() -> None:
    first, second = vectors([3.0, 0, 0]), vectors([0, 4.0, 0])
    assert float(min_norm_mix(first, second)) == pytest.approx(16 / 25)
    mixed = mix_pulls(first, second)
    assert float(dot_product(mixed, mixed)) == pytest.approx(1 / (1 / 9 + 1 / 16))


def test_parallel_terms_leave_the_shorter() -> None:
    first, second = vectors([1.0, 2.0], [3.0, 6.0]), vectors([2.0, 4.0], [1.0, 2.0])
    torch.testing.assert_close(mix_pulls(first, second), vectors([1.0, 2.0], [1.0, 2.0]))


def test_opposite_terms_cancel() -> None:
    first, second = vectors([1.0, -2.0], [0.1, 0.0]), vectors([-3.0, 6.0], [-50.0, 0.0])
    torch.testing.assert_close(mix_pulls(first, second), torch.zeros_like(first))


def test_equal_or_zero_terms_are_mixed_half_and_half() -> None:
    for pull in (vectors([1.0, 2.0]), vectors([0.0, 0.0])):
        assert float(min_norm_mix(pull, pull)) == 0.5
        assert torch.equal(mix_pulls(pull, pull), pull)


# --- the published settings ---


@pytest.mark.parametrize("setting", ["released", "auto", "points"])
def test_variants_match_the_released_code(setting: Variant) -> None:
    rng = torch.Generator().manual_seed(2)
    means = torch.randn(2, 3, 4, 4, generator=rng, dtype=torch.float64)
    prior = GaussianMixturePrior(means, torch.tensor([0.5, 1.0], dtype=torch.float64), {"": (1, 1), "y": (0, 1)})
    view = random_views(prior, 3, [20, 300, 980])
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text = prior.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text])
    difference = uncond - view.noise
    classifier, smoothing, w = {
        "released": (15 * (text - uncond), uncond, alpha),
        "auto": (text - uncond, 1.25 * difference, sigma * difference.square().sum((1, 2, 3)).sqrt() / 50),
        "points": (text - uncond, 0.018 * uncond, alpha),
    }[setting]
    update = BSD(setting)(prior, prior, view)
    torch.testing.assert_close(update.grad, expand_like_latents(w) * mix_pulls(classifier, smoothing))
    assert update.logs["balance"] == pytest.approx(float(min_norm_mix(classifier, smoothing).mean()))
    doubled = BSD(setting, text_weight=30.0 if setting == "released" else 2.0)(prior, prior, view).grad
    torch.testing.assert_close(doubled, expand_like_latents(w) * mix_pulls(2 * classifier, smoothing))


def test_rejects_unknown_variant() -> None:
    changed = BSD()
    object.__setattr__(changed, "variant", "relased")
    with pytest.raises(ValueError, match=r"unknown variant 'relased'; did you mean released\?"):
        changed.__post_init__()
    with pytest.raises(ValueError, match="text_weight is nan"):
        BSD(text_weight=float("nan"))


# --- on Gaussians ---


def test_noise_free_grad_vanishes_along_the_ray() -> None:
    """From the mean of no prompt through that of the text the pulls oppose, whatever the distance."""
    prior = scalar_mixture([0.0, 1.0], [0.8, 0.8], {"": (1, 0), "y": (0, 1)})
    x = torch.tensor([0.0, 0.4, 1.0, 2.5, 10.0], dtype=torch.float64)[:, None, None, None]
    view = scalar_views(prior, x, torch.zeros_like(x), torch.full((5,), 0.4, dtype=torch.float64))
    # Both answers are linear in the noise: without it, they are their means.
    grad = BSD("released", text_weight=3.0)(prior, prior, view).grad
    assert float(grad.abs().max()) < 1e-12


def wide_prior(std: float, text: float) -> GaussianMixturePrior:
    """4096 numbers around 0, and around `text` under the prompt."""
    means = torch.stack([torch.full((1, 64, 64), m, dtype=torch.float64) for m in (0.0, text)])
    return GaussianMixturePrior(means, torch.full((2,), std, dtype=torch.float64), {"": (1, 0), "y": (0, 1)})


def drift(rule: BSD, std: float, offset: float, text: float, step: int) -> float:
    """E of the gradient per number, before w, at a picture that is `offset` everywhere."""
    prior, count = wide_prior(std, text), 24
    noise = torch.randn(count, 1, 64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    t = torch.full((2 * count,), step / 999, dtype=torch.float64)
    view = scalar_views(
        prior, torch.full((2 * count, 1, 64, 64), offset, dtype=torch.float64), torch.cat([noise, -noise]), t
    )
    grad = rule(prior, prior, view).grad
    alpha, sigma = prior.alpha_sigma(t)
    (uncond,) = prior.predict_noise(add_noise(view.latents, view.noise, alpha, sigma), t, [view.conditions.uncond])
    auto = sigma * (uncond - view.noise).flatten(1).norm(dim=1) / 50
    return float((grad / expand_like_latents(auto if rule.variant == "auto" else alpha)).mean())


@pytest.mark.parametrize(
    ("offset", "reach", "expected"), [(2.0, 5.0, -0.06654), (0.0, 5.0, -0.12713), (0.0, 0.5, -0.20866)], ids=str
)
def test_high_dimensional_drift_matches_closed_form(offset: float, reach: float, expected: float) -> None:
    assert drift(BSD(text_weight=15), 1.0, offset, reach / 15, 400) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("setting", ["released", "auto"])
def test_drift_of_each_variant(setting: Variant) -> None:
    """-c n^2 / ((b + c)^2 + n^2); b the smoothing's mean, n its noise, c the classifier."""
    std, offset, text, strength, step = 0.7, 1.0, 0.5, 4.0, 300
    alpha, sigma = (
        float(level) for level in wide_prior(std, text).alpha_sigma(torch.tensor([step / 999], dtype=torch.float64))
    )
    a = 1 / (alpha**2 * std**2 + sigma**2)
    k = 1.0 if setting == "released" else 1.25
    b, c = k * sigma * alpha * a * offset, strength * sigma * alpha * a * text
    n = sigma**2 * a if setting == "released" else k * alpha**2 * std**2 * a
    expected = -c * n**2 / ((b + c) ** 2 + n**2)
    assert drift(BSD(setting, strength), std, offset, text, step) == pytest.approx(expected, rel=0.01)


def test_larger_text_weight_drifts_less_above_the_noise() -> None:
    """At the mean of no prompt the drift is c n^2 / (c^2 + n^2): most where c is n."""
    alpha, sigma = (
        float(level) for level in wide_prior(1, 1).alpha_sigma(torch.tensor([400 / 999], dtype=torch.float64))
    )
    most = sigma**2 / (sigma * alpha)
    weak, best, strong = (drift(BSD(text_weight=share * most), 1.0, 0.0, 1.0, 400) for share in (0.25, 1.0, 4.0))
    assert best == pytest.approx(-(sigma**2) / 2, rel=0.01)
    for other in (weak, strong):
        assert other == pytest.approx(best * 2 * 4 / 17, rel=0.01)


def test_no_fixed_point_at_any_distance() -> None:
    """SDS stops at the scale times the text's mean; here far out, the drift falls as the square of the distance."""
    near, far = (drift(BSD(text_weight=15), 1.0, offset, 5 / 15, 400) for offset in (30.0, 60.0))
    alpha, sigma = (
        float(level) for level in wide_prior(1, 1).alpha_sigma(torch.tensor([400 / 999], dtype=torch.float64))
    )
    c, n = 5 * sigma * alpha, sigma**2
    for found, offset in ((near, 30.0), (far, 60.0)):
        assert found == pytest.approx(-c * n**2 / ((sigma * alpha * offset + c) ** 2 + n**2), rel=0.02)
    assert near < far < 0
