"""What is shown of a run while it goes on: the same four sides always, so that two steps can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.cameras import looking_at_origin
from renderers.images.scene import PictureScene
from renderers.meshes.scene import SolidScene
from renderers.scene import TrainableScene
from renderers.splats.scene import SplatScene
from sds3d.evaluation.judge.fronts import has_front
from sds3d.evaluation.judge.network import Judge
from sds3d.evaluation.scene_evaluation import janus
from sds3d.models.loading import embedded_vocabulary
from sds3d.training.trainer import Run, Step

EVERY = 50
"""Steps between two previews."""
EARLY = (10, 25)
"""Steps with a preview before those: the first sign of life."""
SIDES = 4
"""Front, left side of the asset, back, right side."""
ELEVATION = math.radians(15.0)
SHARP, PLAIN = 192, 64
"""Height and width of a picture of what is drawn in a moment, and at most of a volume, which takes longer."""
GAUGE_EVERY = 200
"""Steps between two counts of fronts: they take as long as two steps."""


@dataclass(frozen=True)
class Watch:
    """Looks at a run without moving it: no chance of the run is drawn."""

    run: Run
    subject: str | None
    """The judge's name for what is made; None where it has none, or such a thing has no front."""

    @staticmethod
    def over(run: Run) -> Watch:
        """Finds out whether fronts can be counted."""
        try:
            subject = embedded_vocabulary().subject(run.config.prompt)
            known = subject is not None and subject in Judge.load().names and has_front(subject)
        except FileNotFoundError:
            known = False
        return Watch(run, subject if known and _quick(run.scene) else None)

    def due(self, step: int) -> bool:
        """Whether a step has a preview."""
        return step in EARLY or step % EVERY == 0 or step == self.run.config.steps

    @torch.no_grad()
    def pictures(self, step: Step) -> Float[Tensor, "B H W 3"]:
        """The four sides over white; of a flat picture, and of one that is seen from one side alone, what was trained
        on.
        """
        run, orbit = self.run, self.run.config.orbit
        if isinstance(run.scene, PictureScene) or orbit.around < 360:
            return step.frame.rgb
        size = SHARP if _quick(run.scene) else min(PLAIN, run.prior.picture_size)
        azimuth = torch.arange(SIDES) * (2 * math.pi / SIDES)
        fov = math.radians(orbit.fov)
        cameras = looking_at_origin(azimuth, torch.full((SIDES,), ELEVATION), size, orbit.distance, fov)
        return run.scene.render(cameras.to(run.device), torch.ones(SIDES, 3, device=run.device)).rgb

    def fronts(self, step: int) -> int | None:
        """How many fronts the judge finds, at some of the steps; None at others and where it can not tell."""
        last = self.run.config.steps
        if self.subject is None or (step % GAUGE_EVERY and step != last):
            return None
        found: int | None = janus(self.run.scene, self.subject, Judge.load())["fronts"]
        return found


def _quick(scene: TrainableScene) -> bool:
    """Whether pictures of a scene cost nothing beside a step."""
    return isinstance(scene, SplatScene | SolidScene)
