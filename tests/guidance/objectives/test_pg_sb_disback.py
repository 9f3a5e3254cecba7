"""Random guidance and the way back of the prior, against closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import generator, noised, per_view
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    SCHEDULE,
    Known,
    by_text,
    gaussian,
    look,
    mean_pull,
    nodes,
    settled,
)

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
