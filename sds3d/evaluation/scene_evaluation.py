"""What the judge makes of an asset."""

from __future__ import annotations

import math
from typing import Any

import torch

from renderers.cameras import Cameras, orbit_cameras
from renderers.scene import Scene
from sds3d.evaluation.janus import AZIMUTHS, front_likeness, fronts
from sds3d.evaluation.judge.fronts import has_front
from sds3d.evaluation.judge.network import SIZE, Judge, JudgePrediction
from sds3d.models.loading import mini_vocabulary

VIEWS = 8
RECOGNISED = 5
"""Of those views, so many that are taken for what was asked make an asset a recognised one."""
ELEVATION = math.radians(15.0)
BACKGROUND = 1.0
"""Grey level behind the asset."""


@torch.no_grad()
def evaluate_scene(scene: Scene, prompt: str, judge: Judge | None = None) -> dict[str, Any] | None:
    """Marks of eight views around a scene, over white, 15 degrees up; None where the judge has no name for the prompt.

    Returns `subject`, `views`, `recognised` (views in which it is the likeliest of all names), `among_five`,
    `probability` (of the subject, mean), `median_azimuth_error_degrees`, `taken_for` (the likeliest name of each
    view), and `janus`, see there.
    """
    try:
        subject, judge = mini_vocabulary().subject(prompt), judge or Judge.load()
    except FileNotFoundError:
        return None
    if subject is None or subject not in judge.names:
        return None
    cameras = orbit_cameras(VIEWS, ELEVATION, 2 * SIZE)
    opinion = _predict(scene, cameras, judge)
    number = judge.names.index(subject)
    rank = opinion.rank(number)
    turn = opinion.azimuth[:, number] - cameras.azimuth
    error = torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())
    return {
        "subject": subject,
        "views": VIEWS,
        "recognised": int((rank == 0).sum()),
        "among_five": int((rank < 5).sum()),
        "probability": round(float(opinion.probability[:, number].mean()), 4),
        "median_azimuth_error_degrees": round(float(error.median()), 1),
        "taken_for": [judge.names[int(best)] for best in opinion.probability.argmax(-1)],
        "janus": janus(scene, subject, judge),
    }


@torch.no_grad()
def janus(scene: Scene, subject: str, judge: Judge) -> dict[str, Any]:
    """Counts the fronts of a scene that should show `subject`, one of the judge's names.

    Returns `has_front` (whether such an object has a front the judge can tell; counting means nothing where not),
    `fronts` (how many there are; 1 is right) and `at_degrees` (their azimuths), both None for what has no front.
    """
    if not has_front(subject):
        return {"has_front": False, "fronts": None, "at_degrees": None}
    opinion = _predict(scene, orbit_cameras(AZIMUTHS, ELEVATION, 2 * SIZE), judge)
    found = fronts(front_likeness(opinion, judge.names.index(subject)))
    return {"has_front": True, "fronts": len(found), "at_degrees": found}


def _predict(scene: Scene, cameras: Cameras, judge: Judge) -> JudgePrediction:
    """The judge's opinion, on the CPU, of what these cameras see, over the background, wherever the scene lies."""
    rgb = scene.render(cameras, torch.full((len(cameras), 3), BACKGROUND)).rgb
    opinion = judge.to(rgb.device).predict(rgb.permute(0, 3, 1, 2).clamp(0, 1))
    return JudgePrediction(opinion.probability.cpu(), opinion.azimuth.cpu(), opinion.certainty.cpu())
