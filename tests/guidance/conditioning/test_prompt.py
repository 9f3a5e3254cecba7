"""A prompt: what is refused, and what it asks for from every side."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from guidance.conditioning.prompt import LONGEST, OVERHEAD, Prompt, side_weights, view_shares, view_word
from guidance.objectives.base import Wanted
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.mini.prior import EmbeddedPrior
from guidance.priors.mini.vocabulary import VIEWS

ROUND = torch.deg2rad(torch.tensor([0.0, 44.0, 46.0, 90.0, 134.0, 136.0, 179.0, -30.0, -90.0, -150.0]))
"""Azimuths."""
LEVEL = torch.zeros(len(ROUND))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_nothing_is_no_prompt(text: str) -> None:
    with pytest.raises(ValueError, match="the prompt is empty; give one such as"):
        Prompt(text)


def test_a_prompt_has_its_limit() -> None:
    assert Prompt("x" * LONGEST).text
    for prompt in (("x" * 10_240, ""), ("a bear", "x" * 10_240)):
        with pytest.raises(ValueError, match="has 10240 characters; at most 1000"):
            Prompt(*prompt)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="no UTF-8 text"):
        Prompt(b"a b\xe4r".decode("utf-8", "surrogateescape"))
    assert Prompt("a bear \N{TEDDY BEAR}").text


def test_what_no_prior_can_be_told_is_refused() -> None:
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="perp_neg is"):
            Prompt("a bear", perp_neg=value)
    with pytest.raises(ValueError, match="direction none tells none"):
        Prompt("a bear", direction="none", perp_neg=1.0)


# --- angles ---


def test_view_words_are_those_of_dreamfusion() -> None:
    def of(azimuth: float, elevation: float = 0.0) -> str:
        return view_word(math.radians(azimuth), math.radians(elevation))

    assert [of(angle) for angle in (0, 44, 46, 134, 136, 180)] == ["front", "front", "side", "side", "back", "back"]
    assert of(10, 61) == of(170, 80) == "overhead"
    assert of(10, 59) == of(10, -80) == "front"


@pytest.mark.parametrize("azimuth", [-3.0, -1.0, 0.2, 1.7, 3.1])
def test_whole_turns_and_sides_change_no_word(azimuth: float) -> None:
    assert view_word(azimuth, 0.1) == view_word(-azimuth, 0.1)
    assert view_word(azimuth, 0.1) == view_word(azimuth + math.tau, 0.1) == view_word(azimuth - 2 * math.tau, 0.1)


@pytest.mark.parametrize("turns", [1, -1, 3])
def test_whole_turns_and_sides_change_no_weight(turns: int) -> None:
    here, there = ROUND, ROUND + turns * math.tau
    for of in (lambda a: torch.stack(side_weights(a)), lambda a: view_shares(a, LEVEL)):
        torch.testing.assert_close(of(here), of(there), atol=1e-5, rtol=0)
        torch.testing.assert_close(of(here), of(-here), atol=1e-5, rtol=0)


def test_shares_are_one_in_all_and_the_word_has_the_most() -> None:
    azimuth = torch.linspace(-3.1, 3.1, 101)
    shares = view_shares(azimuth, torch.zeros(101))
    torch.testing.assert_close(shares.sum(1), torch.ones(101))
    assert bool((shares >= -1e-6).all()) and bool(((shares > 1e-6).sum(1) <= 2).all())
    assert [VIEWS[int(k)] for k in shares.argmax(1)] == [view_word(float(a), 0.0) for a in azimuth]
    above = view_shares(azimuth, torch.full((101,), OVERHEAD + 0.01))
    assert bool((above == torch.tensor([0.0, 0.0, 0.0, 1.0])).all())


def test_perp_neg_weighs_sides_as_threestudio_does() -> None:
    """By hand, (front, side): from the front -f_fs(1), -f_sf(0); the side -f_fs(0), -f_sf(1); the back -f_fsb(0),
    -f_sb(0).
    """
    front, side = side_weights(torch.tensor([0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, math.pi]))
    torch.testing.assert_close(front, torch.tensor([0.0, -0.6892, -1.5740, -1.7458, -1.9670]), atol=1e-3, rtol=0)
    torch.testing.assert_close(side, torch.tensor([-1.5740, -0.6892, 0.0, -0.1728, -0.3940]), atol=1e-3, rtol=0)


def test_weights_are_never_above_zero_and_never_jump() -> None:
    for weight in side_weights(torch.linspace(-math.pi, math.pi, 2001)):
        assert bool((weight <= 0).all())
        assert float(weight.diff().abs().max()) < 0.006


# --- a prior that sees the camera ---


def test_a_prior_that_sees_the_camera_is_told_the_angles(prior: EmbeddedPrior) -> None:
    azimuth, elevation = torch.tensor([0.0, 2.0, -3.0]), torch.tensor([0.1, 1.4, -0.2])
    wanted = Prompt("a horse").seen_from(prior, azimuth, elevation)
    assert wanted.text.camera is not None
    torch.testing.assert_close(wanted.text.camera, torch.stack([azimuth, elevation], -1))
    torch.testing.assert_close(wanted.text.tokens, prior.read(["horse"] * 3).tokens)
    assert wanted.empty.camera is None and not bool(wanted.empty.mask.any())
    assert wanted.negative is wanted.empty and wanted.text.against == ()


def test_a_negative_prompt_is_seen_from_the_same_side(prior: EmbeddedPrior) -> None:
    wanted = Prompt("a horse", "red").seen_from(prior, torch.zeros(2), torch.zeros(2))
    assert wanted.negative.camera is wanted.text.camera is not None
    torch.testing.assert_close(wanted.negative.tokens, prior.read(["red"] * 2).tokens)


@pytest.mark.parametrize("direction", ["words", "none"])
def test_the_camera_can_be_kept_from_it(prior: EmbeddedPrior, direction: str) -> None:
    prompt = Prompt("a horse", "red", direction=direction)  # type: ignore[arg-type]
    wanted = prompt.seen_from(prior, ROUND, LEVEL)
    assert wanted.text.camera is None and wanted.negative.camera is None
    assert wanted.posed.camera is not None, "a critic is told all the same"
    said = ["a horse" if direction == "none" else f"a horse, {view_word(float(a), 0.0)} view" for a in ROUND]
    assert torch.equal(wanted.text.tokens, prior.read(said).tokens)
    assert torch.equal(wanted.posed.tokens, prior.read(["a horse"] * len(ROUND)).tokens)


def test_perp_neg_keeps_away_from_the_same_text_at_other_cameras(prior: EmbeddedPrior) -> None:
    elevation = torch.linspace(-0.2, 0.9, len(ROUND))
    text = Prompt("a horse", perp_neg=0.5).seen_from(prior, ROUND, elevation).text
    bare = Prompt("a horse").seen_from(prior, ROUND, elevation).text
    assert text.camera is not None and bare.camera is not None
    assert torch.equal(text.tokens, bare.tokens) and torch.equal(text.camera, bare.camera)
    turns = (torch.zeros(len(ROUND)), torch.where(ROUND < 0, -math.pi / 2, math.pi / 2))
    for other, turn, weight in zip(text.against, turns, side_weights(ROUND), strict=True):
        assert torch.equal(other.condition.tokens, bare.tokens)
        torch.testing.assert_close(other.condition.camera, torch.stack([turn, elevation], -1))
        torch.testing.assert_close(other.weight, 0.5 * weight)


# --- any other prior ---


@dataclass(frozen=True)
class Blind(ToyPrior):
    """Tells texts apart and remembers what it read; knows no camera."""

    heard: list[str] = field(default_factory=list)
    sees_camera = False

    def read(self, texts: list[str]) -> Condition:
        self.heard.extend(texts)
        tokens = torch.stack([told(text) for text in texts])
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), None)


def told(text: str) -> Tensor:
    """A token of its own for each text, [1, 4]."""
    return torch.tensor([[float(view in text) for view in VIEWS]])


@pytest.fixture
def blind() -> Blind:
    return Blind(torch.zeros(1, 3, 2, 2), torch.ones(1), {"": (1.0,)})


def four_sides(prompt: Prompt, blind: Blind) -> Wanted:
    """Front, side, back and overhead."""
    return prompt.seen_from(blind, torch.tensor([0.0, 1.5, 3.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.3]))


def test_any_other_prior_reads_words_for_the_view(blind: Blind) -> None:
    wanted = four_sides(Prompt("a horse"), blind)
    # Text without text, negative, the views' texts, and the bare text of a critic, which is told the camera itself.
    assert blind.heard[-8:] == [f"a horse, {v} view" for v in ("front", "side", "back", "overhead")] + ["a horse"] * 4
    assert wanted.text.camera is None and wanted.posed.camera is not None


def test_nothing_but_the_text_where_no_direction_is_told(blind: Blind) -> None:
    wanted = four_sides(Prompt("a horse", direction="none"), blind)
    assert set(blind.heard) == {"", "a horse"}
    assert wanted.text.camera is None and wanted.posed.camera is not None


def test_views_may_have_texts_of_their_own(blind: Blind, prior: EmbeddedPrior) -> None:
    texts = {"back": "a horse", "overhead": "a plain horse"}
    four_sides(Prompt("a smiling horse", texts=texts), blind)
    said = ["a smiling horse, front view", "a smiling horse, side view", "a horse, back view"]
    assert blind.heard[-8:] == [*said, "a plain horse, overhead view", *["a smiling horse"] * 4]
    red = Prompt("a red horse", texts={"back": "a horse"}).seen_from(prior, torch.tensor([0.0, 3.0]), torch.zeros(2))
    assert torch.equal(red.text.tokens, prior.read(["a red horse", "a horse"]).tokens)


def test_perp_neg_keeps_away_from_the_words_for_other_sides(blind: Blind) -> None:
    wanted = Prompt("a horse", perp_neg=1.0).seen_from(blind, ROUND, LEVEL)
    for other, view, weight in zip(wanted.text.against, ("front", "side"), side_weights(ROUND), strict=True):
        assert torch.equal(other.condition.tokens, told(f"a horse, {view} view").expand(len(ROUND), 1, 4))
        torch.testing.assert_close(other.weight, weight)
    # The text of a view between two sides is between theirs.
    torch.testing.assert_close(wanted.text.tokens[:, 0], view_shares(ROUND, LEVEL))
    assert bool(wanted.text.mask.all())


def test_from_overhead_there_is_nothing_to_keep_away_from(blind: Blind, prior: EmbeddedPrior) -> None:
    above = torch.full_like(LEVEL, OVERHEAD + 0.01)
    for asked in (blind, prior):
        text = Prompt("a horse", perp_neg=1.0).seen_from(asked, ROUND, above).text
        assert len(text.against) == 2 and all(bool((other.weight == 0).all()) for other in text.against)
