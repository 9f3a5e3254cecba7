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

from guidance.objectives.base import View, Wanted, guided
from guidance.objectives.differences.sds import SDS, Weighting, weight
from guidance.objectives.guided import rescaled
from guidance.priors.base import cleaned, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior

ALL = get_args(Weighting)


def line(means: list[float], deviations: list[float], texts: dict[str, tuple[float, ...]]) -> ToyPrior:
    """A prior over single numbers, in double precision."""
    double = torch.float64
    return ToyPrior(
        torch.tensor(means, dtype=double)[:, None, None, None], torch.tensor(deviations, dtype=double), texts
    )


def look(prior: ToyPrior, x: Tensor, noise: Tensor, t: Tensor) -> View:
    text, empty = prior.read(["y"] * len(x)), prior.read([""] * len(x))
    wanted = Wanted(text, empty, empty, text)
    return replace(View.drawn(x, t, wanted, torch.Generator().manual_seed(9)), noise=noise)


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    chance = torch.Generator().manual_seed(0)
    means = torch.randn(3, 3, 4, 4, generator=chance, dtype=torch.float64)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return ToyPrior(means, deviations, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)})


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    chance = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(4, 3, 4, 4, generator=chance, dtype=torch.float64) for _ in range(2))
    return look(prior, x, noise, torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64))


# --- guidance ---


def test_scale_one_is_the_text_and_zero_is_no_text(prior: ToyPrior, view: View) -> None:
    empty, text = prior.predict(view.x, view.t, [view.wanted.empty, view.wanted.text])
    torch.testing.assert_close(guided(empty, text, 1), text)
    torch.testing.assert_close(guided(empty, text, 0), empty)
    # Code that writes text + s * (text - empty) means scale = s + 1 here.
    torch.testing.assert_close(guided(empty, text, 101), text + 100 * (text - empty))


# --- the forms of the gradient ---


@pytest.mark.parametrize("kind", ALL)
def test_noise_picture_and_velocity_give_the_same_gradient(prior: ToyPrior, view: View, kind: Weighting) -> None:
    scale = 7.5
    gradient = SDS(scale, kind)(prior, prior, view).gradient
    alpha, sigma = prior.levels(view.t)
    a, s, w = per_view(alpha), per_view(sigma), per_view(weight(kind, alpha, sigma))
    x_t = noised(view.x, view.noise, alpha, sigma)
    answers = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    pictures = [cleaned(x_t, answer, alpha, sigma) for answer in answers]
    velocities = [(answer - s * x_t) / a for answer in answers]
    torch.testing.assert_close(gradient, w * a / s * (view.x - guided(pictures[0], pictures[1], scale)))
    drawn = a * view.noise - s * view.x
    torch.testing.assert_close(gradient, w * a * (guided(velocities[0], velocities[1], scale) - drawn))


def test_weightings_are_related_as_published(prior: ToyPrior, view: View) -> None:
    alpha, sigma = prior.levels(view.t)
    uniform, sds, fantasia, reconstruction = (
        SDS(3, kind)(prior, prior, view).gradient for kind in ("uniform", "sds", "fantasia3d", "reconstruction")
    )
    torch.testing.assert_close(sds, per_view(sigma.square()) * uniform)
    torch.testing.assert_close(fantasia, per_view(alpha) * sds)
    torch.testing.assert_close(reconstruction, per_view(sigma / alpha) * uniform)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_reconstruction_is_the_way_to_the_rescaled_clean_picture(prior: ToyPrior, view: View, share: float) -> None:
    """x - (r f + 1 - r) xhat, with f the spread of the text's clean picture over that of the guided one (MVDream)."""
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    clean = cleaned(x_t, guided(empty, text, 50), alpha, sigma)
    told = cleaned(x_t, text, alpha, sigma)
    f = torch.stack([a.std() / b.std() for a, b in zip(told, clean, strict=True)])
    wanted = view.x - per_view(share * f + 1 - share) * clean
    torch.testing.assert_close(SDS(50, "reconstruction", rescale=share)(prior, prior, view).gradient, wanted)


def test_reconstruction_is_the_way_to_the_clean_picture(prior: ToyPrior, view: View) -> None:
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    wanted = view.x - cleaned(x_t, guided(empty, text, 3), alpha, sigma)
    torch.testing.assert_close(SDS(3, "reconstruction")(prior, prior, view).gradient, wanted)


# --- rescaling ---


def spread(prior: ToyPrior, view: View, answer: Tensor) -> Tensor:
    alpha, sigma = prior.levels(view.t)
    return cleaned(noised(view.x, view.noise, alpha, sigma), answer, alpha, sigma).flatten(1).std(1)


def test_rescaling_by_nothing_changes_nothing(prior: ToyPrior, view: View) -> None:
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    answer, text = 3 * view.noise, view.noise
    torch.testing.assert_close(rescaled(answer, text, x_t, alpha, sigma, 0.0), answer)
    # At scale 1 the guided picture is the text's own: there is nothing to bring back.
    plain, whole = SDS(1)(prior, prior, view), SDS(1, rescale=1)(prior, prior, view)
    torch.testing.assert_close(plain.gradient, whole.gradient)


def test_rescaling_wholly_gives_the_spread_of_the_text(prior: ToyPrior, view: View) -> None:
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    answer = guided(empty, text, 20)
    assert bool((spread(prior, view, answer) > 1.05 * spread(prior, view, text)).any())
    whole = rescaled(answer, text, x_t, alpha, sigma, 1.0)
    torch.testing.assert_close(spread(prior, view, whole), spread(prior, view, text))
    half = rescaled(answer, text, x_t, alpha, sigma, 0.5)
    between = (spread(prior, view, answer) + spread(prior, view, text)) / 2
    torch.testing.assert_close(spread(prior, view, half), between)


def test_views_that_a_prior_sees_at_once_are_rescaled_by_one_ratio(prior: ToyPrior, view: View) -> None:
    """As MVDream does: of the spread over all four of a group, and nothing of another group's."""
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    answer, text = 3 * view.second, view.second
    pairs = rescaled(answer, text, x_t, alpha, sigma, 1.0, 2)
    clean, told, found = (cleaned(x_t, e, alpha, sigma) for e in (answer, text, pairs))
    for rows in (slice(0, 2), slice(2, 4)):
        torch.testing.assert_close(found[rows], clean[rows] * (told[rows].std() / clean[rows].std()))

    @dataclass(frozen=True)
    class Joint(ToyPrior):
        together = 4

    joint = Joint(**vars(prior))
    whole, alone = (SDS(9, rescale=1)(asked, prior, view).gradient for asked in (joint, prior))
    assert not torch.allclose(whole, alone)
    torch.testing.assert_close(SDS(9)(joint, prior, view).gradient, SDS(9)(prior, prior, view).gradient)


# --- what every objective keeps to ---


@given(st.sampled_from(ALL), st.floats(0, 100), st.floats(0, 1))
def test_the_same_view_gives_the_same_detached_update(kind: Weighting, scale: float, rescale: float) -> None:
    prior = line([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    x = torch.tensor([-1.0, 0.5], dtype=torch.float64)[:, None, None, None].expand(2, 1, 2, 2)
    view = look(prior, x, x.flip(-1) * 0.3, torch.tensor([0.2, 0.8], dtype=torch.float64))
    objective = SDS(scale, kind, rescale=rescale)
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient)
    assert first.logs == second.logs
    assert first.gradient.shape == x.shape and not first.gradient.requires_grad
    assert bool(first.gradient.isfinite().all())


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_a_batch_is_its_views_one_by_one(prior: ToyPrior, view: View, rescale: float) -> None:
    objective = SDS(5, rescale=rescale)
    one_by_one = [view.rows(torch.tensor([place])) for place in range(len(view.x))]
    rows = [objective(prior, prior, one).gradient for one in one_by_one]
    torch.testing.assert_close(objective(prior, prior, view).gradient, torch.cat(rows))


def test_nothing_pulls_where_the_prior_sees_the_drawn_noise(view: View) -> None:
    @dataclass(frozen=True)
    class Agreeing:
        """Answers with the noise that was drawn."""

        def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return (1 - t.square()).sqrt(), t

        def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            return torch.stack([view.noise] * len(conditions))

    update = SDS(50)(Agreeing(), Agreeing(), view)
    assert bool((update.gradient == 0).all())


def test_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="scale is nan"):
        SDS(float("nan"))
    with pytest.raises(ValueError, match="scale is inf"):
        SDS(float("inf"))
    for share in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"rescale is {share}; expected a share"):
            SDS(rescale=share)
    changed = SDS()
    object.__setattr__(changed, "weighting", "unifrom")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown weighting 'unifrom'; did you mean uniform\?"):
        changed.__post_init__()


# --- on Gaussians ---


def test_one_gaussian_gives_the_gradient_in_closed_form() -> None:
    """w a [alpha sigma (x - m) - alpha^2 std^2 noise] with a = 1 / (alpha^2 std^2 + sigma^2)."""
    mean, std = 0.7, 0.4
    prior = line([0.0, mean], [1.0, std], {"": (1, 0), "y": (0, 1)})
    chance = torch.Generator().manual_seed(2)
    x, noise = (torch.randn(50, 1, 1, 1, generator=chance, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.02, 0.98, 50, dtype=torch.float64)
    alpha, sigma = (per_view(level) for level in prior.levels(t))
    pull = alpha * sigma * (x - mean) - alpha**2 * std**2 * noise
    expected = sigma**2 / (alpha**2 * std**2 + sigma**2) * pull
    torch.testing.assert_close(SDS(1)(prior, prior, look(prior, x, noise, t)).gradient, expected)


def mean_gradient(prior: ToyPrior, objective: SDS, places: list[float], steps: range, nodes: int) -> list[float]:
    """E over t and noise of the gradient at each place; noise by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    t = torch.tensor(list(steps), dtype=torch.float64).repeat_interleave(nodes) / 999
    noise = torch.from_numpy(points).repeat(len(steps))[:, None, None, None]
    share = torch.from_numpy(weights / weights.sum()).repeat(len(steps)) / len(steps)
    found = []
    for place in places:
        view = look(prior, torch.full_like(noise, place), noise, t)
        found.append(float(objective(prior, prior, view).gradient[:, 0, 0, 0] @ share))
    return found


def test_expected_gradient_is_that_of_the_annealed_log_density() -> None:
    """E g = -(w sigma / alpha) d/dx E log p_t(alpha x + sigma noise)."""
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    step, x = 400, 0.5

    def annealed(place: float) -> float:
        t = torch.full((80,), step / 999, dtype=torch.float64)
        alpha, sigma = prior.levels(t)
        x_t = (alpha * place + sigma * torch.from_numpy(points))[:, None, None, None]
        share = torch.from_numpy(weights / weights.sum())
        return float(prior.log_density(x_t, t, prior.read(["y"] * 80)) @ share)

    alpha, sigma = (float(level) for level in prior.levels(torch.tensor([step / 999], dtype=torch.float64)))
    slope = (annealed(x + 1e-4) - annealed(x - 1e-4)) / 2e-4
    (found,) = mean_gradient(prior, SDS(1), [x], range(step, step + 1), 80)
    assert found == pytest.approx(-(sigma**2) * sigma / alpha * slope, rel=1e-6)


def test_guided_fixed_point_overshoots_as_in_closed_form() -> None:
    prior = line([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    # The answers are linear in the noise, so two nodes are exact; the gradient is linear in the place.
    at_0, at_1 = mean_gradient(prior, SDS(3), [0.0, 1.0], range(20, 981), 2)
    assert at_0 / (at_0 - at_1) == pytest.approx(2.10289, abs=1e-5)


def test_equal_spreads_overshoot_in_proportion_to_the_scale() -> None:
    prior = line([0.5, 1.0], [0.6, 0.6], {"": (1, 0), "y": (0, 1)})
    for scale in (1.0, 7.5, 100.0):
        at_0, at_1 = mean_gradient(prior, SDS(scale), [0.0, 1.0], range(20, 981), 2)
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
def test_resting_and_parting_points_of_two_blobs(
    steps: range, kind: Weighting, resting: list[float], parting: list[float]
) -> None:
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (0.3, 0.7), "y": (0.3, 0.7)})
    grid = [*np.arange(-2.5, 2.6, 0.5)]
    values = mean_gradient(prior, SDS(1, kind), grid, steps[::4], 24)
    assert sum(low < 0 < high for low, high in pairwise(values)) == len(resting)
    assert sum(low > 0 > high for low, high in pairwise(values)) == len(parting)
    for points, sign in ((resting, 1), (parting, -1)):
        for point in points:
            below, above = mean_gradient(prior, SDS(1, kind), [point - 2e-4, point + 2e-4], steps, 64)
            assert sign * below < 0 < sign * above


def test_particles_gather_at_the_mean_and_lose_their_spread() -> None:
    prior = line([0.0, 1.0], [1.0, 0.6], {"": (1, 0), "y": (0, 1)})
    chance = torch.Generator().manual_seed(4)
    x = torch.randn(200, 1, 1, 1, generator=chance, dtype=torch.float64)
    for number in range(400):
        noise = torch.randn(x.shape, generator=chance, dtype=torch.float64)
        t = 0.02 + 0.96 * torch.rand(len(x), generator=chance, dtype=torch.float64)
        x = x - 2.0 / (1 + number / 10) * SDS(1)(prior, prior, look(prior, x, noise, t)).gradient
    assert float(x.mean()) == pytest.approx(1, abs=0.02)
    assert float(x.std()) < 0.1  # of the data's 0.6
