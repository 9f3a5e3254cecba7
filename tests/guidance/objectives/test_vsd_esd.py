"""VSD and ESD against closed forms, and what all objectives that ask a critic keep to."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import Objective, View, Wanted
from guidance.objectives.differences.sds import SDS
from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.esd import ESD
from guidance.objectives.variational.f_vsd import FVSD
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Condition, generator, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    SCHEDULE,
    Exploding,
    Known,
    by_text,
    gaussian,
    levels_at,
    look,
    mean_pull,
    nodes,
    normal,
    settled,
)

# --- VSD ---


def test_a_crowd_moves_as_in_closed_form() -> None:
    """E g = w alpha sigma [a(std) (x - m) - a(spread) (x - mean)] with a(s) = 1 / (alpha^2 s^2 + sigma^2)."""
    prior, critic = Known(gaussian(1.0, 0.6)), Known(gaussian(-0.4, 1.3))
    x = torch.tensor([-2.0, -0.4, 1.0, 3.0], dtype=DOUBLE)
    for t in (0.05, 0.3, 0.9):
        alpha, sigma = levels_at(t)
        own, crowd = (1 / (alpha**2 * s**2 + sigma**2) for s in (0.6, 1.3))
        expected = sigma**2 * alpha * sigma * (own * (x - 1) - crowd * (x + 0.4))
        torch.testing.assert_close(mean_pull(VSD(1), prior, critic, x, t), expected)


@pytest.mark.parametrize("t", [[0.2], [0.5], [0.1, 0.3, 0.6]])
@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_a_crowd_becomes_the_data_whatever_the_times(t: list[float], weighting: str) -> None:
    prior = Known(gaussian(1.0, 0.6))
    objective = VSD(1, weighting)
    found = settled(objective, prior, lambda mean, deviation: Known(gaussian(mean, deviation)), t, 900)
    assert found == pytest.approx((1.0, 0.6), abs=1e-3)


def test_guidance_moves_the_crowd_and_leaves_its_spread() -> None:
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.5, 0.6)))
    found = settled(VSD(3), prior, lambda mean, deviation: Known(gaussian(mean, deviation)), [0.2, 0.5], 600)
    assert found == pytest.approx((0.5 + 3 * 0.5, 0.6), abs=1e-3)


def test_a_critic_that_knows_each_render_gives_sds() -> None:
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.0, 1.0)))
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = look(x, torch.randn(7, generator=generator(1), dtype=DOUBLE), t)
    delta = Known(lambda x_t, alpha, sigma, _: (x_t - alpha * view.x) / sigma)
    for weighting in ("sds", "reconstruction"):
        expected = SDS(5, weighting)(prior, prior, view).gradient
        torch.testing.assert_close(VSD(5, weighting)(prior, delta, view).gradient, expected)


def test_a_critic_that_agrees_leaves_the_classifier() -> None:
    """As at the start of a run: g = w (scale - 1) (text - empty)."""
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.0, 1.0)))
    view = look(torch.linspace(-1, 1, 5, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE), torch.full((5,), 0.4).double())
    alpha, sigma = SCHEDULE.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
    torch.testing.assert_close(VSD(7.5)(prior, prior, view).gradient, per_view(sigma**2) * 6.5 * (text - empty))


def test_a_few_particles_spread_over_both_blobs() -> None:
    """Mean 0.8, deviation 1.857, 70 % to the right: from a critic that knows 64 particles as points, about that."""
    double = torch.tensor([-2.0, 2.0], dtype=DOUBLE)[:, None, None, None]
    prior = ToyPrior(double, torch.full((2,), 0.3, dtype=DOUBLE), {"": (0.3, 0.7)})
    rng, count = generator(5), 64
    x = 2.5 * torch.randn(count, 1, 1, 1, generator=rng, dtype=DOUBLE)
    said = prior.read([""] * count)
    uniform = torch.full((count, 1, count), 1 / count, dtype=DOUBLE)
    posed = Condition(uniform, said.mask, None)
    for number in range(1200):
        t = torch.full((count,), 0.02 + 0.96 * float(torch.rand((), generator=rng)), dtype=DOUBLE)
        critic = ToyPrior(x, torch.zeros(count, dtype=DOUBLE), {"": (1.0,) * count})
        view = View.drawn(x, t, Wanted(said, said, said, posed), rng)
        x = x - 1.5 / (1 + number / 300) * VSD(1)(prior, critic, view).gradient
    flat = x.flatten()
    right = flat > 0
    assert float(flat.mean()) == pytest.approx(0.8, rel=0.15)
    assert float(flat.std()) == pytest.approx(1.857, rel=0.15)
    assert float(right.double().mean()) == pytest.approx(0.7, rel=0.15)
    assert float(flat[right].std()) == pytest.approx(0.3, rel=0.25)
    assert float(flat[~right].std()) == pytest.approx(0.3, rel=0.35)


# --- ESD ---


def render_wise(mean: float, deviation: float, x: Tensor) -> Known:
    """A critic that knows the render of each camera, and without a camera the crowd."""

    def answer(x_t: Tensor, alpha: Tensor, sigma: Tensor, c: Condition) -> Tensor:
        if c.camera is None:
            return gaussian(mean, deviation)(x_t, alpha, sigma, c)
        return (x_t - alpha * x) / sigma

    return Known(answer)


@pytest.mark.parametrize(("entropy", "variance"), [(0.5, 0.395998), (0.9, 0.879199), (1.0, 1.0), (0.02, 0.0)])
def test_entropy_decides_how_far_the_views_spread(entropy: float, variance: float) -> None:
    """variance = max(0, E std^2 - (1 - E) sigma^2 / alpha^2), at step 150."""
    prior = Known(gaussian(0.0, 1.0))
    z, weights = nodes(2)
    spread, x = 0.8, 0.8 * z
    for _ in range(400):
        critic = render_wise(0.0, spread, per_view(x.repeat_interleave(2)))
        x = x - 8.0 * mean_pull(ESD(1, entropy), prior, critic, x, 150 / 999)
        spread = math.sqrt(float(x.square() @ weights))
    assert spread**2 == pytest.approx(variance, abs=2e-5)


def test_entropy_zero_is_vsd_and_in_between_is_a_straight_line() -> None:
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.0, 1.0)))

    def answer(x_t: Tensor, alpha: Tensor, sigma: Tensor, c: Condition) -> Tensor:
        return gaussian(0.2, 1.5 if c.camera is None else 0.4)(x_t, alpha, sigma, c)

    critic = Known(answer)
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = look(x, torch.randn(7, generator=generator(1), dtype=DOUBLE), t)
    none, all_of_it = (ESD(3, entropy)(prior, critic, view).gradient for entropy in (0.0, 1.0))
    assert torch.equal(none, VSD(3)(prior, critic, view).gradient)
    for entropy in (0.3, 0.5, 0.8, 1.5):
        between = (1 - entropy) * none + entropy * all_of_it
        torch.testing.assert_close(ESD(3, entropy)(prior, critic, view).gradient, between)
    assert not torch.allclose(none, all_of_it)


# --- what every objective keeps to ---


EVERY: list[Objective] = [VSD(3), ESD(3), FVSD(3), PGSB(), DisBack(3)]


@pytest.mark.parametrize("objective", EVERY, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_a_batch_is_its_views_one_by_one(objective: Objective, dtype: torch.dtype) -> None:
    prior = Exploding(lambda x: torch.logaddexp(normal(x, -1.5, 0.5), normal(x, 1.0, 0.8)))
    critic = Exploding(lambda x: normal(x, 0.3, 1.0), prior.log_density)
    rng = generator(3)
    x, noise, t = (torch.randn(4, generator=rng, dtype=dtype) for _ in range(3))
    view = look(x, noise, t.sigmoid())
    update = objective(prior, critic, view)
    one_by_one = [objective(prior, critic, view.rows(torch.tensor([place]))).gradient for place in range(4)]
    torch.testing.assert_close(update.gradient, torch.cat(one_by_one))
    assert update.gradient.dtype == dtype and not update.gradient.requires_grad
    assert torch.equal(update.gradient, objective(prior, critic, view).gradient)
    assert all(math.isfinite(figure) for figure in update.logs.values())
    assert objective.needs_critic and objective.about is not None and objective.about.critic > 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VSD(float("nan")), "scale is nan"),
        (lambda: ESD(entropy=-0.1), r"entropy is -0\.1; expected a number from 0"),
        (lambda: ESD(entropy=float("nan")), "entropy is nan"),
        (lambda: FVSD(least=0.0), r"least is 0\.0 and most 20\.0; expected 0 < least <= 1 <= most"),
        (lambda: FVSD(most=0.5), r"least is 0\.1 and most 0\.5"),
        (lambda: PGSB(5, 2), r"scales from 5 to 2; expected lowest <= highest"),
        (lambda: PGSB(2, float("inf")), "both finite"),
        (lambda: DisBack(until=1.5), r"until is 1\.5; expected a progress"),
    ],
)
def test_values_that_make_no_sense_are_refused(make: Callable[[], Objective], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_an_unknown_divergence_gets_the_nearest() -> None:
    changed = FVSD()
    object.__setattr__(changed, "divergence", "helinger")  # The checks of these tests would not let it in.
    with pytest.raises(ValueError, match=r"unknown divergence 'helinger'; did you mean hellinger\?"):
        changed.__post_init__()
