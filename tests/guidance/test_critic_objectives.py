"""Objectives with a critic: on Gaussians, with the critic that has learnt all there is, they go where theory says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from guidance.disback import DisBack
from guidance.esd import ESD
from guidance.f_vsd import FVSD, Divergence, emphasis
from guidance.objective import Objective, View, Wanted
from guidance.prior import Condition, Denoiser, generator, noised, per_view
from guidance.random_scale import PGSB
from guidance.schedule import ScaledLinear
from guidance.sds import SDS
from guidance.toy import ToyPrior
from guidance.vsd import VSD

DOUBLE = torch.float64
SCHEDULE = ScaledLinear()
Answer = Callable[[Tensor, Tensor, Tensor, Condition], Tensor]


@dataclass(frozen=True)
class Known:
    """A `Denoiser` whose answer is a formula of x_t, alpha, sigma (shaped to multiply latents) and the condition."""

    answer: Answer
    schedule: ScaledLinear = SCHEDULE

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        alpha, sigma = map(per_view, self.levels(t))
        return torch.stack([self.answer(x_t, alpha, sigma, condition) for condition in conditions])


def gaussian(mean: float, deviation: float) -> Answer:
    """The noise in x_t where clean data is N(mean, deviation^2)."""
    return lambda x_t, alpha, sigma, _: sigma * (x_t - alpha * mean) / ((alpha * deviation) ** 2 + sigma**2)


def by_text(text: Answer, empty: Answer) -> Answer:
    """One answer to a prompt (a token of 1), another to none (0)."""
    return lambda x_t, alpha, sigma, c: (text if float(c.tokens[0, 0, 0]) else empty)(x_t, alpha, sigma, c)


def look(x: Tensor, noise: Tensor, t: Tensor, seed: int = 0) -> View:
    """A view of single numbers, flat [B], as latents."""
    mask = torch.ones(len(x), 1, dtype=torch.bool)
    empty = Condition(torch.zeros(len(x), 1, 1, dtype=DOUBLE), mask, None)
    text = Condition(torch.ones(len(x), 1, 1, dtype=DOUBLE), mask, None)
    posed = replace(text, camera=torch.zeros(len(x), 2, dtype=DOUBLE))
    view = View.drawn(per_view(x), t, Wanted(text, empty, empty, posed), generator(seed))
    return replace(view, noise=per_view(noise))


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(points), torch.from_numpy(weights / weights.sum())


def mean_pull(
    objective: Objective, prior: Denoiser, critic: Denoiser, x: Tensor, t: float, progress: float = 0.0, many: int = 2
) -> Tensor:
    """E over noise of the gradient at each place; two nodes are exact where answers are linear."""
    points, weights = nodes(many)
    view = look(x.repeat_interleave(many), points.repeat(len(x)), torch.full((len(x) * many,), t, dtype=DOUBLE))
    gradient = objective(prior, critic, replace(view, progress=progress)).gradient.flatten()
    return gradient.unflatten(0, (len(x), many)) @ weights


def settled(
    objective: Objective, prior: Denoiser, critic_of: Callable[[float, float], Denoiser], t: list[float], rounds: int
) -> tuple[float, float]:
    """Mean and deviation where a Gaussian crowd of particles comes to rest; the critic is made anew for each step."""
    z, weights = nodes(4)
    x = 0.3 + 1.7 * z
    for number in range(rounds):
        mean = float(x @ weights)
        deviation = math.sqrt(float((x - mean).square() @ weights))
        x = x - 2.0 * mean_pull(objective, prior, critic_of(mean, deviation), x, t[number % len(t)])
    mean = float(x @ weights)
    return mean, math.sqrt(float((x - mean).square() @ weights))


def levels_at(t: float) -> tuple[float, float]:
    alpha, sigma = SCHEDULE.levels(torch.tensor([t], dtype=DOUBLE))
    return float(alpha), float(sigma)


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


# --- f-VSD ---


F: dict[Divergence, Callable[[Tensor], Tensor]] = {
    "reverse-kl": lambda r: -r.log(),
    "softened-reverse-kl": lambda r: (r + 1) * ((r + 1) / (2 * r)).log(),
    "js": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "hellinger": lambda r: 1 - r.sqrt(),
    "forward-kl": lambda r: r * r.log(),
    "jeffreys": lambda r: (r - 1) * r.log(),
    "neyman": lambda r: 1 / r - 1,
}


@pytest.mark.parametrize("kind", get_args(Divergence))
def test_weights_are_the_curvature_of_the_divergence(kind: Divergence) -> None:
    """h(r) = r^2 f''(r)."""
    r = torch.logspace(-2, 2, 41, dtype=DOUBLE).requires_grad_()
    (slope,) = torch.autograd.grad(F[kind](r).sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    r = r.detach()
    torch.testing.assert_close(emphasis(kind, r), r.square() * bend)
    assert bool((emphasis(kind, r) > 0).all())


@dataclass(frozen=True)
class Exploding:
    """x_t = x + noise of variance 0.2; the answers and the ratio of two known densities."""

    log_density: Callable[[Tensor], Tensor]
    other: Callable[[Tensor], Tensor] | None = None

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.full_like(t, math.sqrt(0.2))

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        with torch.enable_grad():
            place = x_t.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(place).sum(), place)
        return torch.stack([-math.sqrt(0.2) * score] * len(conditions))

    def ratio(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Of the other density over one's own."""
        assert self.other is not None
        return (self.other(x_t) - self.log_density(x_t)).exp().flatten()


def normal(x: Tensor, mean: float, variance: float) -> Tensor:
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)


@pytest.mark.parametrize(
    ("kind", "slopes"),
    [
        ("reverse-kl", (0.075414, -0.393370)),
        ("js", (0.058473, -0.218825)),
        ("forward-kl", (0.212766, -0.586490)),
        ("softened-reverse-kl", (0.016942, -0.174545)),
        ("jeffreys", (0.288180, -0.979860)),
        ("hellinger", (0.032366, -0.115434)),
        ("neyman", (0.020073, -0.691844)),
    ],
)
def test_the_gradient_is_that_of_the_divergence(kind: Divergence, slopes: tuple[float, float]) -> None:
    """Of x = b + A z, (d/db, d/dA) of D_f(p || q) of the noised densities, at b = 0.3, A = 1.1."""

    def p(x: Tensor) -> Tensor:
        blobs = (math.log(0.4) + normal(x, -1.5, 0.7), math.log(0.6) + normal(x, 1.0, 1.0))
        return torch.logaddexp(*blobs)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.3, 1.1**2 + 0.2)

    points, weights = nodes(90)
    z, noise = points.repeat_interleave(90), points.repeat(90)
    share = weights.repeat_interleave(90) * weights.repeat(90)
    view = look(0.3 + 1.1 * z, noise, torch.full_like(z, 0.5))
    objective = FVSD(1, kind, least=1e-30, most=1e30)
    gradient = objective(Exploding(p), Exploding(q, p), view).gradient.flatten()
    # sigma^2 (prior's noise - critic's) = -sigma^3 (s_p - s_q).
    found = [float((gradient * along) @ share) / 0.2**1.5 for along in (torch.ones_like(z), z)]
    assert found == pytest.approx(slopes, abs=2e-6)


def test_ratios_are_bounded_and_reverse_kl_is_vsd() -> None:
    prior = Exploding(lambda x: normal(x, 5.0, 0.3))
    critic = Exploding(lambda x: normal(x, 0.0, 0.3), prior.log_density)
    view = look(torch.tensor([-3.0, 2.5, 8.0]).double(), torch.zeros(3, dtype=DOUBLE), torch.full((3,), 0.5).double())
    plain = VSD(2)(prior, critic, view).gradient
    assert torch.equal(FVSD(2, "reverse-kl")(prior, critic, view).gradient, plain)
    weighed = FVSD(2, "forward-kl", least=0.2, most=7.0)(prior, critic, view).gradient
    torch.testing.assert_close((weighed / plain).flatten(), torch.tensor([0.2, 1.0, 7.0], dtype=DOUBLE))


def test_a_critic_without_ratios_is_refused() -> None:
    prior = Known(gaussian(0, 1))
    view = look(torch.zeros(1).double(), torch.zeros(1).double(), torch.full((1,), 0.5).double())
    with pytest.raises(ValueError, match="f-vsd needs a critic that tells ratios of densities; Known does not"):
        FVSD()(prior, prior, view)


# --- PG-SB ---


def test_nothing_pulls_where_the_crowd_is_the_data() -> None:
    """At any scale, where VSD still pulls by guidance."""
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.0, 1.0)))
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = look(x, torch.randn(7, generator=generator(1), dtype=DOUBLE), t)
    assert bool((PGSB(-3, 40)(prior, prior, view).gradient == 0).all())
    assert bool((VSD(3)(prior, prior, view).gradient != 0).all())


def test_each_view_has_its_scale_and_both_sides_the_same() -> None:
    prior = Known(by_text(gaussian(1.0, 0.6), gaussian(0.0, 1.0)))
    critic = Known(by_text(gaussian(-0.5, 0.9), gaussian(0.3, 1.2)))
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=DOUBLE)
    view = look(x, torch.zeros(3, dtype=DOUBLE), torch.full((3,), 0.4, dtype=DOUBLE))
    view = replace(view, uniform=torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE))
    found = PGSB(2, 5)(prior, critic, view).gradient
    for place, scale in enumerate((2.0, 3.5, 5.0)):
        at_scale = PGSB(scale, scale)(prior, critic, view).gradient
        torch.testing.assert_close(found[place], at_scale[place])
        alpha, sigma = SCHEDULE.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        answers = [d.predict(x_t, view.t, [view.wanted.empty, view.wanted.text]) for d in (prior, critic)]
        (e, y), (f, z) = answers
        by_hand = per_view(sigma**2) * (e + scale * (y - e) - f - scale * (z - f))
        torch.testing.assert_close(at_scale, by_hand)


def test_the_crowd_becomes_the_unguided_data() -> None:
    empty = gaussian(0.0, 1.0)
    prior = Known(by_text(gaussian(1.0, 0.6), empty))
    found = settled(PGSB(2, 5), prior, lambda m, s: Known(by_text(gaussian(m, s), empty)), [0.2, 0.5], 600)
    assert found == pytest.approx((1.0, 0.6), abs=1e-3)


# --- DisBack ---


@dataclass(frozen=True)
class Journey(Known):
    """A prior with known stages on the way to it."""

    stages: tuple[Known, ...] = ()


def test_the_stages_take_equal_parts_and_the_prior_the_rest() -> None:
    objective = DisBack(until=0.6)
    due = [objective.stage(4, place / 20) for place in range(20)]
    assert due == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 8
    assert [objective.stage(1, progress) for progress in (0.0, 0.3, 1.0)] == [0, 0, 0]
    assert DisBack(until=0.0).stage(4, 0.0) == 3
    assert [DisBack(until=1.0).stage(3, progress) for progress in (0.0, 0.49, 0.5, 0.99, 1.0)] == [0, 0, 1, 1, 2]


def test_the_crowd_visits_every_stage_and_ends_at_the_data() -> None:
    means, deviations = [4.0, 3.0, 2.0, 1.0], [1.4, 1.1, 0.8, 0.6]
    stages = tuple(Known(gaussian(m, s)) for m, s in zip(means, deviations, strict=True))
    prior = Journey(stages[-1].answer, stages=stages)
    objective, rounds = DisBack(1, until=0.75), 800
    z, weights = nodes(4)
    x, visited = 5 + z, []
    for number in range(rounds):
        mean = float(x @ weights)
        deviation = math.sqrt(float((x - mean).square() @ weights))
        if number % (rounds // 4) == 0:
            visited.append((mean, deviation))
        critic, t = Known(gaussian(mean, deviation)), 0.2 + 0.3 * (number % 2)
        x = x - 3.0 * mean_pull(objective, prior, critic, x, t, number / rounds)
    visited.append((mean, deviation))
    for found, m, s in zip(visited[1:], means, deviations, strict=True):
        assert found == pytest.approx((m, s), abs=0.05)


def test_a_prior_without_stages_is_its_own_only_one() -> None:
    prior, critic = Known(gaussian(1.0, 0.6)), Known(gaussian(0.0, 1.0))
    view = look(torch.zeros(3).double(), torch.ones(3).double(), torch.full((3,), 0.4).double())
    assert torch.equal(DisBack(3)(prior, critic, view).gradient, VSD(3)(prior, critic, view).gradient)


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
