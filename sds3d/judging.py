"""What the judge makes of an asset."""

from __future__ import annotations

import math
from typing import Any

import torch

from renderers.cameras import ring
from renderers.scene import Scene
from sds3d.judge.network import SIZE, Judge
from sds3d.priors import embedded_vocabulary

VIEWS = 8
ELEVATION = math.radians(15.0)
BACKGROUND = 1.0
"""Grey level behind the asset."""


@torch.no_grad()
def verdict(scene: Scene, prompt: str, judge: Judge | None = None) -> dict[str, Any] | None:
    """Marks of eight views around a scene, over white, 15 degrees up; None where the judge has no name for the prompt.

    Returns `subject`, `views`, `recognised` (views in which it is the likeliest of all names), `among_five`,
    `median_azimuth_error_degrees`, and `taken_for`, the likeliest name of each view.
    """
    try:
        subject, judge = embedded_vocabulary().subject(prompt), judge or Judge.load()
    except FileNotFoundError:
        return None
    if subject is None or subject not in judge.names:
        return None
    cameras = ring(VIEWS, ELEVATION, 2 * SIZE)
    frame = scene.render(cameras, torch.full((VIEWS, 3), BACKGROUND))
    opinion = judge.look(frame.rgb.permute(0, 3, 1, 2).clamp(0, 1))
    number = judge.names.index(subject)
    rank = opinion.rank(number)
    turn = opinion.azimuth[:, number] - cameras.azimuth
    error = torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())
    return {
        "subject": subject,
        "views": VIEWS,
        "recognised": int((rank == 0).sum()),
        "among_five": int((rank < 5).sum()),
        "median_azimuth_error_degrees": round(float(error.median()), 1),
        "taken_for": [judge.names[int(best)] for best in opinion.probability.argmax(-1)],
    }
