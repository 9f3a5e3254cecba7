"""Perp-Neg: its formula, one pass, and no view that hears of another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guidance.conditioning.perp_neg import PerpNeg, perpendicular
from guidance.objectives.base import View, Wanted, guided
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Against, Condition, generator, together
from guidance.priors.gaussian_mixture import ToyPrior

TEXTS = {
    "": (1.0, 1.0, 1.0, 1.0),
    "bear": (1.0, 0.2, 0.0, 0.0),
    "front": (0.1, 0.5, 1.0, 0.0),
    "side": (0.0, 1.0, 0, 1),
}


@dataclass(frozen=True)
class Counting(ToyPrior):
    """Remembers how many conditions each call was about."""

    calls: list[int] = field(default_factory=list)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.calls.append(len(conditions))
        assert all(len(condition) == len(x_t) for condition in conditions)
        return super().predict(x_t, t, conditions)


@pytest.fixture
def prior() -> Counting:
    means = 2 * torch.randn(4, 3, 2, 2, generator=generator(1), dtype=torch.float64)
    return Counting(means, torch.full((4,), 0.7, dtype=torch.float64), TEXTS)


def looks(count: int) -> tuple[Tensor, Tensor]:
    """Noised latents and times, each view with its own."""
    x_t = torch.randn(count, 3, 2, 2, generator=generator(2), dtype=torch.float64)
    return x_t, torch.linspace(0.3, 0.8, count, dtype=torch.float64)


def kept_away(prior: ToyPrior, weights: Tensor) -> Condition:
    """A bear in as many views as `weights` [N, B] has columns, away from the front and the side."""
    pairs = zip(("front", "side"), weights, strict=True)
    others = (Against(prior.read([name] * weights.shape[1]), weight) for name, weight in pairs)
    return replace(prior.read(["bear"] * weights.shape[1]), against=tuple(others))


def test_the_guided_answer_is_the_formula(prior: Counting) -> None:
    x_t, t = looks(2)
    weights = torch.tensor([[-1.5, 0.0], [-0.3, -2.0]], dtype=torch.float64)
    empty, text = prior.read([""] * 2), kept_away(prior, weights)
    e_0, answer = PerpNeg(prior, empty).predict(x_t, t, [empty, text])
    for row in range(2):  # one view at a time, number by number
        x, when = x_t[row : row + 1], t[row : row + 1]
        told = [prior.predict(x, when, [prior.read([name])])[0, 0].flatten() for name in ("", "bear", "front", "side")]
        e_pos = told[1] - told[0]
        total = e_pos.clone()
        for weight, other in zip(weights[:, row], told[2:], strict=True):
            e_i = other - told[0]
            total += weight * (e_i - (e_i @ e_pos) / (e_pos @ e_pos) * e_pos)
        expected = told[0] + 7.5 * total
        torch.testing.assert_close(guided(e_0, answer, 7.5)[row].flatten(), expected)


def test_a_batch_is_its_views_one_by_one(prior: Counting) -> None:
    x_t, t = looks(5)
    weights = -torch.rand(2, 5, generator=generator(3), dtype=torch.float64)
    empty, text = prior.read([""] * 5), kept_away(prior, weights)
    whole = PerpNeg(prior, empty).predict(x_t, t, [text, empty])
    for row in range(5):
        one = torch.tensor([row])
        alone = PerpNeg(prior, empty).predict(x_t[one], t[one], [text.rows(one), empty.rows(one)])
        torch.testing.assert_close(whole[:, one], alone)


def test_no_negative_meets_the_latents_of_another_view(prior: Counting) -> None:
    x_t, t = looks(2)
    weights = -torch.ones(2, 2, dtype=torch.float64)
    empty, text = prior.read([""] * 2), kept_away(prior, weights)
    ask = PerpNeg(prior, empty).predict
    before = ask(x_t, t, [text])[0]
    x_t[1] += 3.0
    t[1] = 0.5
    after = ask(x_t, t, [text])[0]
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_all_is_asked_in_one_pass_and_nothing_twice(prior: Counting) -> None:
    x_t, t = looks(2)
    empty, text = prior.read([""] * 2), kept_away(prior, -torch.ones(2, 2, dtype=torch.float64))
    ask = PerpNeg(prior, empty).predict
    assert ask(x_t, t, [empty, text]).shape == (2, 2, 3, 2, 2)
    assert ask(x_t, t, [text]).shape == (1, 2, 3, 2, 2)
    assert ask(x_t, t, [text, prior.read(["front"] * 2), text.rows(torch.tensor([1, 0]))]).shape[0] == 3
    # Front and side beside what was asked, and the empty prompt where it was not: 4 and 4; two texts: 3 + 1 + 4.
    assert prior.calls == [4, 4, 8]


def test_without_anything_to_keep_away_from_the_prior_answers(prior: Counting) -> None:
    x_t, t = looks(3)
    conditions = [prior.read([name] * 3) for name in ("bear", "", "side")]
    told = PerpNeg(prior, conditions[1]).predict(x_t, t, conditions)
    assert torch.equal(told, ToyPrior.predict(prior, x_t, t, conditions)) and prior.calls == [3]
    weightless = kept_away(prior, torch.zeros(2, 3, dtype=torch.float64))
    told = PerpNeg(prior, conditions[1]).predict(x_t, t, [weightless])
    torch.testing.assert_close(told[0], ToyPrior.predict(prior, x_t, t, conditions)[0])


def test_a_negative_that_says_the_same_changes_nothing(prior: Counting) -> None:
    x_t, t = looks(2)
    empty, bear = prior.read([""] * 2), prior.read(["bear"] * 2)
    text = replace(bear, against=(Against(bear, torch.full((2,), -3.0, dtype=torch.float64)),))
    torch.testing.assert_close(PerpNeg(prior, empty).predict(x_t, t, [text])[0], prior.predict(x_t, t, [bear])[0])


def test_a_rule_may_ask_about_more_views_than_the_empty_prompt_has(prior: Counting) -> None:
    x_t, t = looks(2)
    text = kept_away(prior, -torch.ones(2, 2, dtype=torch.float64))
    ask, twice = PerpNeg(prior, prior.read([""])).predict, torch.tensor([0, 1, 0, 1])
    told = ask(x_t[twice], t[twice], [text.rows(twice)])
    torch.testing.assert_close(told[:, :2], told[:, 2:])
    torch.testing.assert_close(told[:, :2], ask(x_t, t, [text]))


@given(st.integers(0, 99), st.floats(-5, 5))
def test_the_rest_of_a_projection_is_at_right_angles_view_by_view(seed: int, along: float) -> None:
    e, other = torch.randn(2, 3, 2, 4, 4, generator=generator(seed), dtype=torch.float64)
    rest = perpendicular(other, e)
    assert float((rest * e).flatten(1).sum(1).abs().max()) < 1e-9
    torch.testing.assert_close(perpendicular(other + along * e, e), rest)
    torch.testing.assert_close(perpendicular(rest, e), rest)
    assert bool((perpendicular(other, torch.zeros_like(e)) == other).all())


def test_views_that_belong_together_still_do(prior: Counting) -> None:
    @dataclass(frozen=True)
    class Joint(ToyPrior):
        together = 4

    joint = Joint(prior.means, prior.deviations, TEXTS)
    assert [together(PerpNeg(asked, prior.read([""]))) for asked in (prior, joint)] == [1, 4]


def test_a_rule_does_not_notice(prior: Counting) -> None:
    """SDS through the wrapper is SDS with the formula's answer in the place of the text's."""
    x_t, t = looks(2)
    empty, text = prior.read([""] * 2), kept_away(prior, -torch.ones(2, 2, dtype=torch.float64))
    view = View.drawn(x_t, t, Wanted(text, empty, empty, text), generator(4))
    plain, away = (SDS(scale=3.0)(asked, prior, view).gradient for asked in (prior, PerpNeg(prior, empty)))
    assert torch.isfinite(away).all() and not torch.allclose(plain, away)
    assert prior.calls == [2, 4]
