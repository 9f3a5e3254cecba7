"""What a run has made so far, and how its checkpoint names it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.run import RunConfig
from guidance.critics.lora import strip_prefix
from guidance.priors.base import make_rng
from renderers.meshes.mesh import Mesh
from renderers.scene import TrainableScene
from sds3d.mesh_import.load import UnitBallTransform


@dataclass(frozen=True)
class Result:
    """What a run has made so far: all that meshes and files are made of."""

    scene: TrainableScene
    config: RunConfig
    step: int
    """Steps behind it."""
    other_particles: tuple[TrainableScene, ...] = ()
    """Scenes that were made beside it, where there are several particles."""
    placement: UnitBallTransform | None = None
    """How the model it started from was put into the unit ball."""

    @staticmethod
    def from_state(state: dict[str, Tensor], config: RunConfig) -> Result:
        """The result in a checkpoint, without the prior. Raises ValueError if it is not one of such a run."""
        if "done" not in state:
            raise ValueError("the checkpoint is not one of a run")
        scenes = [config.scene.build("cpu", make_rng(0)) for _ in range(config.particles)]
        for place, scene in enumerate(scenes):
            scene.load_training_state(strip_prefix(state, particle_key("scene", place)))
        return Result(scenes[0], config, int(state["done"]), tuple(scenes[1:]), placement_of(state))

    def scene_on(self, device: torch.device) -> TrainableScene:
        """The scene on a device, whole: `Module.to` would leave behind what is no parameter or buffer."""
        if next(self.scene.parameters()).device == device:
            return self.scene
        scene = self.config.scene.build(device, make_rng(0))
        scene.load_training_state(self.scene.training_state())
        return scene

    def undo_placement(self, mesh: Mesh) -> Mesh:
        """A mesh of the scene where the model it started from lay, and in its size."""
        return mesh if self.placement is None else self.placement.inverse(mesh)


def placement_of(state: dict[str, Tensor]) -> UnitBallTransform | None:
    """How a run's model was put into the unit ball, from its checkpoint."""
    if "placement" not in state:
        return None
    x, y, z, scale = state["placement"].tolist()
    return UnitBallTransform((x, y, z), scale)


def particle_key(name: str, place: int) -> str:
    """The name for the first particle, and with its number for each further one, from 2."""
    return name if place == 0 else f"{name}_{place + 1}"
