"""What a run has made so far, and how its checkpoint names it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from configs.run import RunConfig
from guidance.critics.lora import part
from guidance.priors.base import generator
from renderers.meshes.mesh import Mesh
from renderers.scene import TrainableScene
from sds3d.mesh_import.load import Placement


@dataclass(frozen=True)
class Result:
    """What a run has made so far: all that meshes and files are made of."""

    scene: TrainableScene
    config: RunConfig
    done: int
    """Steps behind it."""
    others: tuple[TrainableScene, ...] = ()
    """Scenes that were made beside it, where there are several particles."""
    placement: Placement | None = None
    """How the model it started from was put into the unit ball."""

    @staticmethod
    def of(state: dict[str, Tensor], config: RunConfig) -> Result:
        """The result in a checkpoint, without the prior. Raises ValueError if it is not one of such a run."""
        if "done" not in state:
            raise ValueError("the checkpoint is not one of a run")
        scenes = [config.scene.build("cpu", generator(0)) for _ in range(config.particles)]
        for place, scene in enumerate(scenes):
            scene.restore(part(state, numbered("scene", place)))
        return Result(scenes[0], config, int(state["done"]), tuple(scenes[1:]), placement_of(state))

    def placed(self, mesh: Mesh) -> Mesh:
        """A mesh of the scene where the model it started from lay, and in its size."""
        return mesh if self.placement is None else self.placement.undone(mesh)


def placement_of(state: dict[str, Tensor]) -> Placement | None:
    """How a run's model was put into the unit ball, from its checkpoint."""
    if "placement" not in state:
        return None
    x, y, z, scale = state["placement"].tolist()
    return Placement((x, y, z), scale)


def numbered(name: str, place: int) -> str:
    """The name for the first particle, and with its number for each further one, from 2."""
    return name if place == 0 else f"{name}_{place + 1}"
