"""What can be looked at, and what is seen.

Shapes: B cameras, H and W pixels. Colours are 0..1, display-referred sRGB, premultiplied by nothing:
`rgb` is already composited over the background it was rendered with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from renderers.camera_sampler import Orbit
from renderers.cameras import Cameras


@dataclass(frozen=True)
class Frame:
    """One render of a scene, seen by every camera of a batch."""

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    """Expected distance along the camera's axis where alpha > 0, else 0."""
    statistics: Any = field(default=None, repr=False)
    """What the backend noticed on the way; only the scene that made the frame reads it, in `settle`."""
    normal: Float[Tensor, "B H W 3"] | None = field(default=None, repr=False)
    """Mean outward normal in the world, times alpha; None where the scene has none to tell."""


def joined(frames: Sequence[Frame]) -> Frame:
    """What the same scene showed cameras that looked one after another, as one frame without gradients."""
    first, *others = frames
    if not others:
        return first
    noticed = first.statistics
    if hasattr(noticed, "joined"):
        noticed = noticed.joined([frame.statistics for frame in others])
    rgb, alpha, depth = (torch.cat([getattr(f, name).detach() for f in frames]) for name in ("rgb", "alpha", "depth"))
    normal = None
    if first.normal is not None:
        normal = torch.cat([frame.normal.detach() for frame in frames if frame.normal is not None])
    return Frame(rgb, alpha, depth, noticed, normal)


class Scene(nn.Module, ABC):
    """A thing that can be rendered from anywhere."""

    @abstractmethod
    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> Frame:
        """Picture over a solid background per camera, differentiable where the scene can be trained."""


class TrainableScene(Scene):
    """A scene whose parameters Adam changes, and which may change their number itself.

    A step of the loop: `render`, the loss and `penalty` backward, `optimiser.step()`, then `settle`.
    """

    @abstractmethod
    def groups(self, progress: float) -> list[dict[str, Any]]:
        """Parameter groups for Adam: `params`, `lr` and `name`, with the rates of this `progress` in 0..1."""

    @abstractmethod
    def penalty(self, frame: Frame) -> Float[Tensor, ""]:
        """Regularisation of the scene's own parameters and of what was just seen."""

    @abstractmethod
    def settle(self, progress: float, frame: Frame, optimiser: Optimizer) -> None:
        """House-keeping after an optimiser step: grow, prune, renormalise.

        Where rows of a parameter come or go, the scene puts the new parameter, with the state of its rows, into
        `optimiser`, which was made from `groups`; hold no parameter of the scene across this call.
        """

    @abstractmethod
    def healthy(self) -> str | None:
        """None, or one line that names what has gone wrong with the scene."""

    @abstractmethod
    def told(self) -> str:
        """Its size in words, such as "3000 splats"."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that a later `restore` needs to go on bit for bit, chance included; the optimiser's state is not here."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave; make the optimiser anew after it. Raises ValueError if something is missing."""


@dataclass(frozen=True)
class SceneKnobs(ABC):
    """What a kind of scene lets one choose. Fields are its knobs; subclasses are final."""

    orbit: ClassVar[Orbit] = Orbit()
    """Where such a scene is looked at from, unless a run says otherwise."""

    @abstractmethod
    def build(self, device: torch.device | str, generator: torch.Generator) -> TrainableScene:
        """The scene at its start; `generator` also draws all chance that the scene needs later."""
