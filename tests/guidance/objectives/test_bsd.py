"""BSD: the shortest mixture of two pulls, and the drift that it leaves before Gaussians."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidance.objectives.differences.bsd import BSD, Setting, shortest
from guidance.priors.base import noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from tests.support.guidance.gaussian_oracles import line, look, random_look


def vectors(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[:, :, None, None]


def mixture(first: Tensor, second: Tensor) -> Tensor:
    share = per_view(shortest(first, second))
    return share * first + (1 - share) * second


def inner(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(1)


# --- the shortest mixture ---


def test_it_goes_against_neither_pull() -> None:
    """<g, g_i> >= |g|^2, with equality where neither is left out."""
    chance = torch.Generator().manual_seed(0)
    first, second = (torch.randn(500, 2, 2, 1, generator=chance, dtype=torch.float64) for _ in range(2))
    share, mixed = shortest(first, second), mixture(first, second)
    square = inner(mixed, mixed)
    within = (share > 0) & (share < 1)
    assert 50 < int(within.sum()) < 490
    for pull in (first, second):
        assert bool((inner(mixed, pull) >= square - 1e-12).all())
        torch.testing.assert_close(inner(mixed, pull)[within], square[within])


def test_no_other_mixture_is_shorter() -> None:
    chance = torch.Generator().manual_seed(1)
    first, second = (torch.randn(50, 3, 1, 1, generator=chance, dtype=torch.float64) for _ in range(2))
    found = inner(mixture(first, second), mixture(first, second))
    for share in torch.linspace(0, 1, 101, dtype=torch.float64):
        other = share * first + (1 - share) * second
        assert bool((inner(other, other) >= found - 1e-12).all())


def test_pulls_at_right_angles_share_by_their_lengths() -> None:
    first, second = vectors([3.0, 0, 0]), vectors([0, 4.0, 0])
    assert float(shortest(first, second)) == pytest.approx(16 / 25)
    mixed = mixture(first, second)
    assert float(inner(mixed, mixed)) == pytest.approx(1 / (1 / 9 + 1 / 16))


def test_of_two_pulls_in_one_direction_the_shorter_is_left() -> None:
    first, second = vectors([1.0, 2.0], [3.0, 6.0]), vectors([2.0, 4.0], [1.0, 2.0])
    torch.testing.assert_close(mixture(first, second), vectors([1.0, 2.0], [1.0, 2.0]))


def test_opposite_pulls_cancel() -> None:
    first, second = vectors([1.0, -2.0], [0.1, 0.0]), vectors([-3.0, 6.0], [-50.0, 0.0])
    torch.testing.assert_close(mixture(first, second), torch.zeros_like(first))


def test_equal_pulls_and_none_are_shared_evenly() -> None:
    for pull in (vectors([1.0, 2.0]), vectors([0.0, 0.0])):
        assert float(shortest(pull, pull)) == 0.5
        assert torch.equal(mixture(pull, pull), pull)


# --- the published settings ---


@pytest.mark.parametrize("setting", ["released", "auto", "points"])
def test_settings_are_as_published(setting: Setting) -> None:
    chance = torch.Generator().manual_seed(2)
    means = torch.randn(2, 3, 4, 4, generator=chance, dtype=torch.float64)
    prior = ToyPrior(means, torch.tensor([0.5, 1.0], dtype=torch.float64), {"": (1, 1), "y": (0, 1)})
    view = random_look(prior, 3, [20, 300, 980])
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    apart = empty - view.noise
    classifier, smoothing, w = {
        "released": (15 * (text - empty), empty, alpha),
        "auto": (text - empty, 1.25 * apart, sigma * apart.square().sum((1, 2, 3)).sqrt() / 50),
        "points": (text - empty, 0.018 * empty, alpha),
    }[setting]
    update = BSD(setting)(prior, prior, view)
    torch.testing.assert_close(update.gradient, per_view(w) * mixture(classifier, smoothing))
    assert update.logs["balance"] == pytest.approx(float(shortest(classifier, smoothing).mean()))
    doubled = BSD(setting, strength=30.0 if setting == "released" else 2.0)(prior, prior, view).gradient
    torch.testing.assert_close(doubled, per_view(w) * mixture(2 * classifier, smoothing))


def test_unknown_settings_are_refused() -> None:
    changed = BSD()
    object.__setattr__(changed, "setting", "relased")
    with pytest.raises(ValueError, match=r"unknown setting 'relased'; did you mean released\?"):
        changed.__post_init__()
    with pytest.raises(ValueError, match="strength is nan"):
        BSD(strength=float("nan"))


# --- on Gaussians ---


def test_without_noise_every_place_on_the_ray_is_at_rest() -> None:
    """From the mean of no prompt through that of the text the pulls oppose, whatever the distance."""
    prior = line([0.0, 1.0], [0.8, 0.8], {"": (1, 0), "y": (0, 1)})
    x = torch.tensor([0.0, 0.4, 1.0, 2.5, 10.0], dtype=torch.float64)[:, None, None, None]
    view = look(prior, x, torch.zeros_like(x), torch.full((5,), 0.4, dtype=torch.float64))
    # Both answers are linear in the noise: without it, they are their means.
    gradient = BSD("released", strength=3.0)(prior, prior, view).gradient
    assert float(gradient.abs().max()) < 1e-12


def wide(deviation: float, text: float) -> ToyPrior:
    """4096 numbers around 0, and around `text` under the prompt."""
    means = torch.stack([torch.full((1, 64, 64), m, dtype=torch.float64) for m in (0.0, text)])
    return ToyPrior(means, torch.full((2,), deviation, dtype=torch.float64), {"": (1, 0), "y": (0, 1)})


def drift(rule: BSD, deviation: float, offset: float, text: float, step: int) -> float:
    """E of the gradient per number, before w, at a picture that is `offset` everywhere."""
    prior, count = wide(deviation, text), 24
    noise = torch.randn(count, 1, 64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    t = torch.full((2 * count,), step / 999, dtype=torch.float64)
    view = look(prior, torch.full((2 * count, 1, 64, 64), offset, dtype=torch.float64), torch.cat([noise, -noise]), t)
    gradient = rule(prior, prior, view).gradient
    alpha, sigma = prior.levels(t)
    (empty,) = prior.predict(noised(view.x, view.noise, alpha, sigma), t, [view.wanted.empty])
    auto = sigma * (empty - view.noise).flatten(1).norm(dim=1) / 50
    return float((gradient / per_view(auto if rule.setting == "auto" else alpha)).mean())


@pytest.mark.parametrize(
    ("offset", "reach", "expected"), [(2.0, 5.0, -0.06654), (0.0, 5.0, -0.12713), (0.0, 0.5, -0.20866)], ids=str
)
def test_many_numbers_drift_as_in_closed_form(offset: float, reach: float, expected: float) -> None:
    assert drift(BSD(strength=15), 1.0, offset, reach / 15, 400) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("setting", ["released", "auto"])
def test_drift_of_the_settings(setting: Setting) -> None:
    """-c n^2 / ((b + c)^2 + n^2); b the smoothing's mean, n its noise, c the classifier."""
    std, offset, text, strength, step = 0.7, 1.0, 0.5, 4.0, 300
    alpha, sigma = (float(level) for level in wide(std, text).levels(torch.tensor([step / 999], dtype=torch.float64)))
    a = 1 / (alpha**2 * std**2 + sigma**2)
    k = 1.0 if setting == "released" else 1.25
    b, c = k * sigma * alpha * a * offset, strength * sigma * alpha * a * text
    n = sigma**2 * a if setting == "released" else k * alpha**2 * std**2 * a
    expected = -c * n**2 / ((b + c) ** 2 + n**2)
    assert drift(BSD(setting, strength), std, offset, text, step) == pytest.approx(expected, rel=0.01)


def test_a_stronger_text_pulls_less_beyond_the_noise() -> None:
    """At the mean of no prompt the drift is c n^2 / (c^2 + n^2): most where c is n."""
    alpha, sigma = (float(level) for level in wide(1, 1).levels(torch.tensor([400 / 999], dtype=torch.float64)))
    most = sigma**2 / (sigma * alpha)
    weak, best, strong = (drift(BSD(strength=share * most), 1.0, 0.0, 1.0, 400) for share in (0.25, 1.0, 4.0))
    assert best == pytest.approx(-(sigma**2) / 2, rel=0.01)
    for other in (weak, strong):
        assert other == pytest.approx(best * 2 * 4 / 17, rel=0.01)


def test_no_place_is_at_rest_however_far() -> None:
    """SDS stops at the scale times the text's mean; here far out, the drift falls as the square of the distance."""
    near, far = (drift(BSD(strength=15), 1.0, offset, 5 / 15, 400) for offset in (30.0, 60.0))
    alpha, sigma = (float(level) for level in wide(1, 1).levels(torch.tensor([400 / 999], dtype=torch.float64)))
    c, n = 5 * sigma * alpha, sigma**2
    for found, offset in ((near, 30.0), (far, 60.0)):
        assert found == pytest.approx(-c * n**2 / ((sigma * alpha * offset + c) ** 2 + n**2), rel=0.02)
    assert near < far < 0
