"""Marks of an asset by a judge whose opinion is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from renderers.cameras import Cameras
from renderers.scene import RenderOutput, Scene
from sds3d.evaluation import scene_evaluation
from sds3d.evaluation.judge.network import Judge, JudgeNetwork, JudgePrediction
from sds3d.evaluation.scene_evaluation import VIEWS, evaluate_scene

NAMES = ["teddy bear", "horse", "mug"]


class Compass(Scene):
    """Shows the azimuth as a grey level."""

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        grey = (cameras.azimuth / (2 * math.pi) % 1)[:, None, None, None]
        rgb = grey.expand(-1, cameras.height, cameras.width, 3)
        return RenderOutput(rgb, torch.ones_like(rgb[..., :1]), torch.ones_like(rgb[..., :1]))


@dataclass
class Fixed(Judge):
    """Reads the azimuth off the grey level, a little wrongly; takes the first `horses` views for horses."""

    horses: int = 0
    faces: int = 1
    """As often as this it takes the asset, once around, for seen from the front."""

    def to(self, device: torch.device | str) -> Judge:
        return self

    def predict(self, rgb: Float[Tensor, "B 3 H W"]) -> JudgePrediction:
        probability = torch.tensor([0.6, 0.3, 0.1]).repeat(len(rgb), 1)
        probability[: self.horses] = torch.tensor([0.3, 0.6, 0.1])
        azimuth = (rgb[:, 0, 0, 0] * 2 * math.pi + math.radians(10))[:, None].expand(-1, 3)
        turn = torch.atan2(azimuth.sin(), azimuth.cos()) * self.faces
        return JudgePrediction(probability, turn, torch.ones_like(turn))


def fixed(horses: int, faces: int = 1) -> Fixed:
    judge = Fixed(horses, faces)
    judge.names = NAMES
    return judge


@pytest.fixture(autouse=True)
def _vocabulary(monkeypatch: pytest.MonkeyPatch, prior: MiniPrior) -> None:
    monkeypatch.setattr(scene_evaluation, "mini_vocabulary", lambda: prior.vocabulary)


def test_recognised_views_are_counted() -> None:
    marks = evaluate_scene(Compass(), "a red teddy bear", fixed(2))
    assert marks is not None
    assert marks["subject"] == "teddy bear" and marks["views"] == VIEWS
    assert marks["recognised"] == VIEWS - 2 and marks["among_five"] == VIEWS
    assert marks["taken_for"] == ["horse", "horse", *["teddy bear"] * (VIEWS - 2)]
    assert marks["median_azimuth_error_degrees"] == pytest.approx(10, abs=0.1)
    assert marks["probability"] == pytest.approx((6 * 0.6 + 2 * 0.3) / 8)


@pytest.mark.parametrize("faces", [1, 2, 3])
def test_fronts_are_counted(faces: int) -> None:
    marks = evaluate_scene(Compass(), "a red teddy bear", fixed(0, faces))
    assert marks is not None
    assert marks["janus"]["has_front"] and marks["janus"]["fronts"] == faces == len(marks["janus"]["at_degrees"])


def test_what_has_no_front_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_evaluation, "has_front", lambda name: False)
    marks = evaluate_scene(Compass(), "a red teddy bear", fixed(0, 2))
    assert marks is not None and marks["janus"] == {"has_front": False, "fronts": None, "at_degrees": None}


def test_there_is_no_verdict_without_a_name(monkeypatch: pytest.MonkeyPatch, prior: MiniPrior) -> None:
    assert evaluate_scene(Compass(), "a dragon", fixed(0)) is None
    stranger = fixed(0)
    stranger.names = ["sofa"]
    assert evaluate_scene(Compass(), "a mug", stranger) is None

    def missing() -> Vocabulary:
        raise FileNotFoundError

    monkeypatch.setattr(scene_evaluation, "mini_vocabulary", missing)
    assert evaluate_scene(Compass(), "a mug", fixed(0)) is None


def test_the_judge_sees_the_asset_as_it_is() -> None:
    judge = Judge(JudgeNetwork(3), NAMES)
    first, second = (evaluate_scene(Compass(), "a mug", judge) for _ in range(2))
    assert first == second is not None
