"""What is shown of a run while it goes on: the same four sides always, so that two steps can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.cameras import look_at_origin
from renderers.images.scene import ImageScene
from renderers.meshes.scene import MeshScene
from renderers.scene import TrainableScene
from renderers.splats.scene import SplatScene
from sds3d.console import Console, one_line
from sds3d.evaluation.judge.fronts import has_front
from sds3d.evaluation.judge.network import Judge
from sds3d.evaluation.scene_evaluation import janus
from sds3d.models.loading import mini_vocabulary
from sds3d.training.trainer import StepResult, Trainer

PREVIEW_EVERY = 50
"""Steps between two previews."""
EARLY_PREVIEWS = (10, 25)
"""Steps with a preview before those: the first sign of life."""
NUM_VIEWS = 4
"""Front, left side of the asset, back, right side."""
ELEVATION = math.radians(15.0)
PREVIEW_SIZE, PLAIN = 192, 64
"""Height and width of a picture of what is drawn in a moment, and at most of a volume, which takes longer."""
JANUS_EVERY = 200
"""Steps between two counts of fronts: they take as long as two steps."""


@dataclass(frozen=True)
class Previewer:
    """Looks at a run without moving it: no chance of the run is drawn."""

    run: Trainer
    subject: str | None
    """The judge's name for what is made; None where it has none, or such a thing has no front."""

    @staticmethod
    def for_run(run: Trainer) -> Previewer:
        """Finds out whether fronts can be counted."""
        try:
            subject = mini_vocabulary().subject(run.config.prompt)
            known = subject is not None and subject in Judge.load().names and has_front(subject)
        except (OSError, ValueError):  # not installed, or damaged
            known = False
        return Previewer(run, subject if known and _quick(run.scene) else None)

    def is_due(self, step: int) -> bool:
        """Whether a step has a preview."""
        return step in EARLY_PREVIEWS or step % PREVIEW_EVERY == 0 or step == self.run.config.steps

    @torch.no_grad()
    def render(self, step: StepResult) -> Float[Tensor, "B H W 3"]:
        """The four sides over white; of a flat picture, and of one that is seen from one side alone, what was trained
        on.
        """
        run, orbit = self.run, self.run.config.cameras
        if isinstance(run.scene, ImageScene) or orbit.azimuth_span < 360:
            return step.output.rgb
        size = PREVIEW_SIZE if _quick(run.scene) else min(PLAIN, run.prior.image_size)
        azimuth = torch.arange(NUM_VIEWS) * (2 * math.pi / NUM_VIEWS)
        fov = math.radians(orbit.fov_y)
        cameras = look_at_origin(azimuth, torch.full((NUM_VIEWS,), ELEVATION), size, orbit.distance, fov)
        return run.scene.render(cameras.to(run.device), torch.ones(NUM_VIEWS, 3, device=run.device)).rgb

    def fronts(self, step: int) -> int | None:
        """How many fronts the judge finds, at some of the steps; None at others and where it can not tell."""
        last = self.run.config.steps
        if self.subject is None or (step % JANUS_EVERY and step != last):
            return None
        found: int | None = janus(self.run.scene, self.subject, Judge.load())["fronts"]
        return found


_Found = TypeVar("_Found")


def unless_it_fails(what: str, look: Callable[[], _Found], console: Console) -> _Found | None:
    """What `look` gives; where it fails, for whatever reason, that is told and None comes back: looking at a run never
    ends it.
    """
    try:
        return look()
    except Exception as error:  # out of memory, a full disk, a fault of a library: the run is worth more
        console.log(f"no {what} ({one_line(error)})")
        return None


def _quick(scene: TrainableScene) -> bool:
    """Whether pictures of a scene cost nothing beside a step."""
    return isinstance(scene, SplatScene | MeshScene)
