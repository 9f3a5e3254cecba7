"""A prompt: what is refused, and what it asks for from every side."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch

from guidance.embedded import EmbeddedPrior
from guidance.prior import Condition
from guidance.prompt import LONGEST, Prompt, view_word
from guidance.toy import ToyPrior


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


def test_a_prior_that_sees_the_camera_is_told_the_angles(prior: EmbeddedPrior) -> None:
    azimuth, elevation = torch.tensor([0.0, 2.0, -3.0]), torch.tensor([0.1, 1.4, -0.2])
    wanted = Prompt("a horse").seen_from(prior, azimuth, elevation)
    assert wanted.text.camera is not None
    torch.testing.assert_close(wanted.text.camera, torch.stack([azimuth, elevation], -1))
    torch.testing.assert_close(wanted.text.tokens, prior.read(["horse"] * 3).tokens)
    assert wanted.empty.camera is None and not bool(wanted.empty.mask.any())
    assert wanted.negative is wanted.empty


def test_a_negative_prompt_is_seen_from_the_same_side(prior: EmbeddedPrior) -> None:
    wanted = Prompt("a horse", "red").seen_from(prior, torch.zeros(2), torch.zeros(2))
    assert wanted.negative.camera is wanted.text.camera is not None
    torch.testing.assert_close(wanted.negative.tokens, prior.read(["red"] * 2).tokens)


@dataclass(frozen=True)
class Blind(ToyPrior):
    """Remembers what it read; knows no camera."""

    heard: list[str] = field(default_factory=list)
    sees_camera = False

    def read(self, texts: list[str]) -> Condition:
        self.heard.extend(texts)
        return super().read([""] * len(texts))


def test_any_other_prior_reads_words_for_the_view() -> None:
    blind = Blind(torch.zeros(1, 3, 2, 2), torch.ones(1), {"": (1.0,)})
    wanted = Prompt("a horse").seen_from(blind, torch.tensor([0.0, 1.5, 3.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.3]))
    # Text without text, negative, the views' texts, and the bare text of a critic, which is told the camera itself.
    assert blind.heard[-8:] == [f"a horse, {v} view" for v in ("front", "side", "back", "overhead")] + ["a horse"] * 4
    assert wanted.text.camera is None and wanted.posed.camera is not None
