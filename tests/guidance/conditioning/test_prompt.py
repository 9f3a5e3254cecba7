"""A prompt: what is refused, and what it asks for from every side."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.conditioning.prompt import MAX_PROMPT_CHARS, Prompt, perp_neg_weights, view_weights
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.views import OVERHEAD_ELEVATION, VIEW_LABELS, view_label

ROUND = torch.deg2rad(torch.tensor([0.0, 44.0, 46.0, 90.0, 134.0, 136.0, 179.0, -30.0, -90.0, -150.0]))
"""Azimuths."""
LEVEL = torch.zeros(len(ROUND))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_rejects_empty_prompt(text: str) -> None:
    with pytest.raises(ValueError, match="the prompt is empty; give one such as"):
        Prompt(text)


def test_rejects_too_long_prompt() -> None:
    assert Prompt("x" * MAX_PROMPT_CHARS).text
    for prompt in (("x" * 10_240, ""), ("a bear", "x" * 10_240)):
        with pytest.raises(ValueError, match="has 10240 characters; at most 1000"):
            Prompt(*prompt)


def test_rejects_invalid_unicode() -> None:
    with pytest.raises(ValueError, match="no UTF-8 text"):
        Prompt(b"a b\xe4r".decode("utf-8", "surrogateescape"))
    assert Prompt("a bear \N{TEDDY BEAR}").text


def test_rejects_incompatible_options() -> None:
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="perp_neg is"):
            Prompt("a bear", perp_neg=value)
    with pytest.raises(ValueError, match="direction none tells none"):
        Prompt("a bear", view_conditioning="none", perp_neg=1.0)


# --- angles ---


def test_view_labels_match_dreamfusion() -> None:
    def of(azimuth: float, elevation: float = 0.0) -> str:
        return view_label(math.radians(azimuth), math.radians(elevation))

    assert [of(angle) for angle in (0, 44, 46, 134, 136, 180)] == ["front", "front", "side", "side", "back", "back"]
    assert of(10, 61) == of(170, 80) == "overhead"
    assert of(10, 59) == of(10, -80) == "front"


@pytest.mark.parametrize("azimuth", [-3.0, -1.0, 0.2, 1.7, 3.1])
def test_view_label_is_periodic_and_symmetric(azimuth: float) -> None:
    assert view_label(azimuth, 0.1) == view_label(-azimuth, 0.1)
    assert view_label(azimuth, 0.1) == view_label(azimuth + math.tau, 0.1) == view_label(azimuth - 2 * math.tau, 0.1)


@pytest.mark.parametrize("turns", [1, -1, 3])
def test_view_weights_are_periodic_and_symmetric(turns: int) -> None:
    here, there = ROUND, ROUND + turns * math.tau
    for of in (lambda a: torch.stack(perp_neg_weights(a)), lambda a: view_weights(a, LEVEL)):
        torch.testing.assert_close(of(here), of(there), atol=1e-5, rtol=0)
        torch.testing.assert_close(of(here), of(-here), atol=1e-5, rtol=0)


def test_view_weights_sum_to_one_and_peak_at_the_label() -> None:
    azimuth = torch.linspace(-3.1, 3.1, 101)
    shares = view_weights(azimuth, torch.zeros(101))
    torch.testing.assert_close(shares.sum(1), torch.ones(101))
    assert bool((shares >= -1e-6).all()) and bool(((shares > 1e-6).sum(1) <= 2).all())
    assert [VIEW_LABELS[int(k)] for k in shares.argmax(1)] == [view_label(float(a), 0.0) for a in azimuth]
    above = view_weights(azimuth, torch.full((101,), OVERHEAD_ELEVATION + 0.01))
    assert bool((above == torch.tensor([0.0, 0.0, 0.0, 1.0])).all())


def test_perp_neg_weights_match_threestudio() -> None:
    """By hand, (front, side): from the front -f_fs(1), -f_sf(0); the side -f_fs(0), -f_sf(1); the back -f_fsb(0),
    -f_sb(0).
    """
    front, side = perp_neg_weights(torch.tensor([0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, math.pi]))
    torch.testing.assert_close(front, torch.tensor([0.0, -0.6892, -1.5740, -1.7458, -1.9670]), atol=1e-3, rtol=0)
    torch.testing.assert_close(side, torch.tensor([-1.5740, -0.6892, 0.0, -0.1728, -0.3940]), atol=1e-3, rtol=0)


def test_perp_neg_weights_are_non_positive_and_continuous() -> None:
    for weight in perp_neg_weights(torch.linspace(-math.pi, math.pi, 2001)):
        assert bool((weight <= 0).all())
        assert float(weight.diff().abs().max()) < 0.006


# --- a prior that sees the camera ---


def test_camera_conditioned_prior_gets_the_camera(prior: MiniPrior) -> None:
    azimuth, elevation = torch.tensor([0.0, 2.0, -3.0]), torch.tensor([0.1, 1.4, -0.2])
    expected = Prompt("a horse").conditions_for(prior, azimuth, elevation)
    assert expected.text.camera is not None
    torch.testing.assert_close(expected.text.camera, torch.stack([azimuth, elevation], -1))
    torch.testing.assert_close(expected.text.text_embeds, prior.encode_prompt(["horse"] * 3).text_embeds)
    assert expected.uncond.camera is None and not bool(expected.uncond.attention_mask.any())
    assert expected.negative is expected.uncond and expected.text.perp_negatives == ()


def test_negative_prompt_has_the_same_camera(prior: MiniPrior) -> None:
    expected = Prompt("a horse", "red").conditions_for(prior, torch.zeros(2), torch.zeros(2))
    assert expected.negative.camera is expected.text.camera is not None
    torch.testing.assert_close(expected.negative.text_embeds, prior.encode_prompt(["red"] * 2).text_embeds)


@pytest.mark.parametrize("direction", ["text", "none"])
def test_view_conditioning_none_omits_the_camera(prior: MiniPrior, direction: str) -> None:
    prompt = Prompt("a horse", "red", view_conditioning=direction)  # type: ignore[arg-type]
    expected = prompt.conditions_for(prior, ROUND, LEVEL)
    assert expected.text.camera is None and expected.negative.camera is None
    assert expected.text_with_camera.camera is not None, "a critic is told all the same"
    text = ["a horse" if direction == "none" else f"a horse, {view_label(float(a), 0.0)} view" for a in ROUND]
    assert torch.equal(expected.text.text_embeds, prior.encode_prompt(text).text_embeds)
    assert torch.equal(expected.text_with_camera.text_embeds, prior.encode_prompt(["a horse"] * len(ROUND)).text_embeds)


def test_perp_negatives_use_other_cameras(prior: MiniPrior) -> None:
    elevation = torch.linspace(-0.2, 0.9, len(ROUND))
    text = Prompt("a horse", perp_neg=0.5).conditions_for(prior, ROUND, elevation).text
    bare = Prompt("a horse").conditions_for(prior, ROUND, elevation).text
    assert text.camera is not None and bare.camera is not None
    assert torch.equal(text.text_embeds, bare.text_embeds) and torch.equal(text.camera, bare.camera)
    turns = (torch.zeros(len(ROUND)), torch.where(ROUND < 0, -math.pi / 2, math.pi / 2))
    for other, turn, weight in zip(text.perp_negatives, turns, perp_neg_weights(ROUND), strict=True):
        assert torch.equal(other.condition.text_embeds, bare.text_embeds)
        torch.testing.assert_close(other.condition.camera, torch.stack([turn, elevation], -1))
        torch.testing.assert_close(other.weight, 0.5 * weight)


# --- any other prior ---


@dataclass(frozen=True)
class WithoutCamera(GaussianMixturePrior):
    """Tells texts apart and remembers what it read; knows no camera."""

    heard: list[str] = field(default_factory=list)
    camera_conditioned = False

    def encode_prompt(self, texts: list[str]) -> Condition:
        self.heard.extend(texts)
        tokens = torch.stack([view_indicator(text) for text in texts])
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), None)


def view_indicator(text: str) -> Tensor:
    """A token of its own for each text, [1, 4]."""
    return torch.tensor([[float(view in text) for view in VIEW_LABELS]])


@pytest.fixture
def prior_without_camera() -> WithoutCamera:
    return WithoutCamera(torch.zeros(1, 3, 2, 2), torch.ones(1), {"": (1.0,)})


def four_sides(prompt: Prompt, blind: WithoutCamera) -> ViewConditions:
    """Front, side, back and overhead."""
    return prompt.conditions_for(blind, torch.tensor([0.0, 1.5, 3.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.3]))


def test_view_labels_for_priors_without_camera(prior_without_camera: WithoutCamera) -> None:
    expected = four_sides(Prompt("a horse"), prior_without_camera)
    # Text without text, negative, the views' texts, and the bare text of a critic, which is told the camera itself.
    assert (
        prior_without_camera.heard[-8:]
        == [f"a horse, {v} view" for v in ("front", "side", "back", "overhead")] + ["a horse"] * 4
    )
    assert expected.text.camera is None and expected.text_with_camera.camera is not None


def test_view_conditioning_none_keeps_the_plain_text(prior_without_camera: WithoutCamera) -> None:
    expected = four_sides(Prompt("a horse", view_conditioning="none"), prior_without_camera)
    assert set(prior_without_camera.heard) == {"", "a horse"}
    assert expected.text.camera is None and expected.text_with_camera.camera is not None


def test_view_texts_replace_the_prompt(prior_without_camera: WithoutCamera, prior: MiniPrior) -> None:
    texts = {"back": "a horse", "overhead": "a plain horse"}
    four_sides(Prompt("a smiling horse", view_texts=texts), prior_without_camera)
    text = ["a smiling horse, front view", "a smiling horse, side view", "a horse, back view"]
    assert prior_without_camera.heard[-8:] == [*text, "a plain horse, overhead view", *["a smiling horse"] * 4]
    red = Prompt("a red horse", view_texts={"back": "a horse"}).conditions_for(
        prior, torch.tensor([0.0, 3.0]), torch.zeros(2)
    )
    assert torch.equal(red.text.text_embeds, prior.encode_prompt(["a red horse", "a horse"]).text_embeds)


def test_perp_negatives_use_other_view_labels(prior_without_camera: WithoutCamera) -> None:
    expected = Prompt("a horse", perp_neg=1.0).conditions_for(prior_without_camera, ROUND, LEVEL)
    for other, view, weight in zip(
        expected.text.perp_negatives, ("front", "side"), perp_neg_weights(ROUND), strict=True
    ):
        assert torch.equal(
            other.condition.text_embeds, view_indicator(f"a horse, {view} view").expand(len(ROUND), 1, 4)
        )
        torch.testing.assert_close(other.weight, weight)
    # The text of a view between two sides is between theirs.
    torch.testing.assert_close(expected.text.text_embeds[:, 0], view_weights(ROUND, LEVEL))
    assert bool(expected.text.attention_mask.all())


def test_overhead_views_have_no_perp_negatives(prior_without_camera: WithoutCamera, prior: MiniPrior) -> None:
    above = torch.full_like(LEVEL, OVERHEAD_ELEVATION + 0.01)
    for calls in (prior_without_camera, prior):
        text = Prompt("a horse", perp_neg=1.0).conditions_for(calls, ROUND, above).text
        assert len(text.perp_negatives) == 2 and all(bool((other.weight == 0).all()) for other in text.perp_negatives)
