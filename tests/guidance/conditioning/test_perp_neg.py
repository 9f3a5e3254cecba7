"""Perp-Neg: its formula, one pass, and no view that hears of another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.conditioning.perp_neg import PerpNeg, perpendicular_component
from guidance.objectives.base import ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Condition, WeightedNegative, make_rng, views_per_group
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.gaussian_mixture import GaussianMixturePrior

TEXTS = {
    "": (1.0, 1.0, 1.0, 1.0),
    "bear": (1.0, 0.2, 0.0, 0.0),
    "front": (0.1, 0.5, 1.0, 0.0),
    "side": (0.0, 1.0, 0, 1),
}


@dataclass(frozen=True)
class CountingPrior(GaussianMixturePrior):
    """Remembers how many conditions each call was about."""

    calls: list[int] = field(default_factory=list)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.calls.append(len(conditions))
        assert all(len(condition) == len(x_t) for condition in conditions)
        return super().predict_noise(x_t, t, conditions)


@pytest.fixture
def prior() -> CountingPrior:
    means = 2 * torch.randn(4, 3, 2, 2, generator=make_rng(1), dtype=torch.float64)
    return CountingPrior(means, torch.full((4,), 0.7, dtype=torch.float64), TEXTS)


def random_views(count: int) -> tuple[Tensor, Tensor]:
    """Noised latents and times, each view with its own."""
    x_t = torch.randn(count, 3, 2, 2, generator=make_rng(2), dtype=torch.float64)
    return x_t, torch.linspace(0.3, 0.8, count, dtype=torch.float64)


def with_negatives(prior: GaussianMixturePrior, weights: Tensor) -> Condition:
    """A bear in as many views as `weights` [N, B] has columns, away from the front and the side."""
    pairs = zip(("front", "side"), weights, strict=True)
    others = (WeightedNegative(prior.encode_prompt([name] * weights.shape[1]), weight) for name, weight in pairs)
    return replace(prior.encode_prompt(["bear"] * weights.shape[1]), perp_negatives=tuple(others))


def test_guided_prediction_matches_equation_6(prior: CountingPrior) -> None:
    x_t, t = random_views(2)
    weights = torch.tensor([[-1.5, 0.0], [-0.3, -2.0]], dtype=torch.float64)
    uncond, text = prior.encode_prompt([""] * 2), with_negatives(prior, weights)
    e_0, noise_pred = PerpNeg(prior, uncond).predict_noise(x_t, t, [uncond, text])
    for row in range(2):  # one view at a time, number by number
        x, when = x_t[row : row + 1], t[row : row + 1]
        result = [
            prior.predict_noise(x, when, [prior.encode_prompt([name])])[0, 0].flatten()
            for name in ("", "bear", "front", "side")
        ]
        e_pos = result[1] - result[0]
        total = e_pos.clone()
        for weight, other in zip(weights[:, row], result[2:], strict=True):
            e_i = other - result[0]
            total += weight * (e_i - (e_i @ e_pos) / (e_pos @ e_pos) * e_pos)
        expected = result[0] + 7.5 * total
        torch.testing.assert_close(classifier_free_guidance(e_0, noise_pred, 7.5)[row].flatten(), expected)


def test_batch_equals_per_view(prior: CountingPrior) -> None:
    x_t, t = random_views(5)
    weights = -torch.rand(2, 5, generator=make_rng(3), dtype=torch.float64)
    uncond, text = prior.encode_prompt([""] * 5), with_negatives(prior, weights)
    whole = PerpNeg(prior, uncond).predict_noise(x_t, t, [text, uncond])
    for row in range(5):
        one = torch.tensor([row])
        alone = PerpNeg(prior, uncond).predict_noise(x_t[one], t[one], [text.select(one), uncond.select(one)])
        torch.testing.assert_close(whole[:, one], alone)


def test_negatives_stay_with_their_view(prior: CountingPrior) -> None:
    x_t, t = random_views(2)
    weights = -torch.ones(2, 2, dtype=torch.float64)
    uncond, text = prior.encode_prompt([""] * 2), with_negatives(prior, weights)
    ask = PerpNeg(prior, uncond).predict_noise
    before = ask(x_t, t, [text])[0]
    x_t[1] += 3.0
    t[1] = 0.5
    after = ask(x_t, t, [text])[0]
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_one_forward_pass_without_duplicates(prior: CountingPrior) -> None:
    x_t, t = random_views(2)
    uncond, text = prior.encode_prompt([""] * 2), with_negatives(prior, -torch.ones(2, 2, dtype=torch.float64))
    ask = PerpNeg(prior, uncond).predict_noise
    assert ask(x_t, t, [uncond, text]).shape == (2, 2, 3, 2, 2)
    assert ask(x_t, t, [text]).shape == (1, 2, 3, 2, 2)
    assert ask(x_t, t, [text, prior.encode_prompt(["front"] * 2), text.select(torch.tensor([1, 0]))]).shape[0] == 3
    # Front and side beside what was asked, and the empty prompt where it was not: 4 and 4; two texts: 3 + 1 + 4.
    assert prior.calls == [4, 4, 8]


def test_without_negatives_delegates_to_the_prior(prior: CountingPrior) -> None:
    x_t, t = random_views(3)
    conditions = [prior.encode_prompt([name] * 3) for name in ("bear", "", "side")]
    result = PerpNeg(prior, conditions[1]).predict_noise(x_t, t, conditions)
    assert torch.equal(result, GaussianMixturePrior.predict_noise(prior, x_t, t, conditions)) and prior.calls == [3]
    weightless = with_negatives(prior, torch.zeros(2, 3, dtype=torch.float64))
    result = PerpNeg(prior, conditions[1]).predict_noise(x_t, t, [weightless])
    torch.testing.assert_close(result[0], GaussianMixturePrior.predict_noise(prior, x_t, t, conditions)[0])


def test_parallel_negative_has_no_effect(prior: CountingPrior) -> None:
    x_t, t = random_views(2)
    uncond, bear = prior.encode_prompt([""] * 2), prior.encode_prompt(["bear"] * 2)
    text = replace(bear, perp_negatives=(WeightedNegative(bear, torch.full((2,), -3.0, dtype=torch.float64)),))
    torch.testing.assert_close(
        PerpNeg(prior, uncond).predict_noise(x_t, t, [text])[0], prior.predict_noise(x_t, t, [bear])[0]
    )


def test_uncond_is_expanded_to_the_batch(prior: CountingPrior) -> None:
    x_t, t = random_views(2)
    text = with_negatives(prior, -torch.ones(2, 2, dtype=torch.float64))
    ask, twice = PerpNeg(prior, prior.encode_prompt([""])).predict_noise, torch.tensor([0, 1, 0, 1])
    result = ask(x_t[twice], t[twice], [text.select(twice)])
    torch.testing.assert_close(result[:, :2], result[:, 2:])
    torch.testing.assert_close(result[:, :2], ask(x_t, t, [text]))


@given(st.integers(0, 99), st.floats(-5, 5))
def test_perpendicular_component_is_orthogonal_per_view(seed: int, along: float) -> None:
    e, other = torch.randn(2, 3, 2, 4, 4, generator=make_rng(seed), dtype=torch.float64)
    rest = perpendicular_component(other, e)
    assert float((rest * e).flatten(1).sum(1).abs().max()) < 1e-9
    torch.testing.assert_close(perpendicular_component(other + along * e, e), rest)
    torch.testing.assert_close(perpendicular_component(rest, e), rest)
    assert bool((perpendicular_component(other, torch.zeros_like(e)) == other).all())


def test_views_per_group_is_delegated(prior: CountingPrior) -> None:
    @dataclass(frozen=True)
    class Joint(GaussianMixturePrior):
        views_per_group = 4

    joint = Joint(prior.means, prior.stds, TEXTS)
    assert [views_per_group(PerpNeg(calls, prior.encode_prompt([""]))) for calls in (prior, joint)] == [1, 4]


def test_works_under_every_objective(prior: CountingPrior) -> None:
    """SDS through the wrapper is SDS with the formula's answer in the place of the text's."""
    x_t, t = random_views(2)
    uncond, text = prior.encode_prompt([""] * 2), with_negatives(prior, -torch.ones(2, 2, dtype=torch.float64))
    view = ViewBatch.sample(x_t, t, ViewConditions(text, uncond, uncond, text), make_rng(4))
    plain, perpendicular = (
        SDS(guidance_scale=3.0)(calls, prior, view).grad for calls in (prior, PerpNeg(prior, uncond))
    )
    assert torch.isfinite(perpendicular).all() and not torch.allclose(plain, perpendicular)
    assert prior.calls == [2, 4]
