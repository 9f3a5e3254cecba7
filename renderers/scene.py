"""What can be looked at, and what is seen.

Shapes: B cameras, H and W pixels. Colours are 0..1, display-referred sRGB, premultiplied by nothing:
`rgb` is already composited over the background it was rendered with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from renderers.camera_sampler import CameraSampler
from renderers.cameras import Cameras


@dataclass(frozen=True)
class RenderOutput:
    """One render of a scene, seen by every camera of a batch."""

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    """Expected distance along the camera's axis where alpha > 0, else 0."""
    info: Any = field(default=None, repr=False)
    """What the backend noticed on the way; only the scene that made the frame reads it, in `post_step`."""
    normal: Float[Tensor, "B H W 3"] | None = field(default=None, repr=False)
    """Mean outward normal in the world, times alpha; None where the scene has none to tell."""


def cat_outputs(frames: Sequence[RenderOutput]) -> RenderOutput:
    """What the same scene showed cameras that looked one after another, as one frame without gradients."""
    first, *others = frames
    if not others:
        return first
    noticed = first.info
    if hasattr(noticed, "cat"):
        noticed = noticed.cat([frame.info for frame in others])
    rgb, alpha, depth = (torch.cat([getattr(f, name).detach() for f in frames]) for name in ("rgb", "alpha", "depth"))
    normal = None
    if first.normal is not None:
        normal = torch.cat([frame.normal.detach() for frame in frames if frame.normal is not None])
    return RenderOutput(rgb, alpha, depth, noticed, normal)


class Scene(nn.Module, ABC):
    """A thing that can be rendered from anywhere."""

    @abstractmethod
    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """Picture over a solid background per camera, differentiable where the scene can be trained."""


class TrainableScene(Scene):
    """A scene whose parameters Adam changes, and which may change their number itself.

    A step of the loop: `render`, the loss and `regularization_loss` backward, `optimiser.step()`, then `post_step`.
    """

    @abstractmethod
    def param_groups(self, progress: float) -> list[dict[str, Any]]:
        """Parameter groups for Adam: `params`, `lr` and `name`, with the rates of this `progress` in 0..1."""

    @abstractmethod
    def regularization_loss(self, frame: RenderOutput) -> Float[Tensor, ""]:
        """Regularisation of the scene's own parameters and of what was just seen."""

    @abstractmethod
    def post_step(self, progress: float, frame: RenderOutput, optimiser: Optimizer) -> None:
        """House-keeping after an optimiser step: grow, prune, renormalise.

        Where rows of a parameter come or go, the scene puts the new parameter, with the state of its rows, into
        `optimiser`, which was made from `groups`; hold no parameter of the scene across this call.
        """

    @abstractmethod
    def failure_reason(self) -> str | None:
        """None, or one line that names what has gone wrong with the scene."""

    @abstractmethod
    def describe(self) -> str:
        """Its size in words, such as "3000 splats"."""

    @abstractmethod
    def training_state(self) -> dict[str, Tensor]:
        """Returns all tensors that `load_training_state` needs to go on bit for bit, except those of the optimizer."""

    @abstractmethod
    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave; make the optimiser anew after it. Raises ValueError if something is missing."""


@dataclass(frozen=True)
class SceneConfig(ABC):
    """What a kind of scene lets one choose. Fields are its knobs; subclasses are final."""

    orbit: ClassVar[CameraSampler] = CameraSampler()
    """Where such a scene is looked at from, unless a run says otherwise."""

    lr_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are learning rates."""

    def scale_lrs(self, factor: float) -> SceneConfig:
        """Returns a copy with every learning rate multiplied by `factor`."""
        return replace(self, **{name: getattr(self, name) * factor for name in self.lr_fields})

    @abstractmethod
    def build(self, device: torch.device | str, generator: torch.Generator) -> TrainableScene:
        """The scene at its start; `generator` also draws all chance that the scene needs later."""
