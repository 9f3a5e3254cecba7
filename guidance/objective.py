"""What a rule for turning scores into a gradient is given, and what it gives back.

Shapes: B views, C x h x w latents. All chance is drawn before an objective is called: the same view gives the same
update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from guidance.prior import Condition, Denoiser


@dataclass(frozen=True)
class Wanted:
    """What the views of a batch should show, under every condition an objective may ask about."""

    text: Condition
    """The prompt, as seen from each view's camera."""
    empty: Condition
    """No prompt."""
    negative: Condition
    """What should not be seen; equal to `empty` where no negative prompt was given."""


@dataclass(frozen=True)
class View:
    """One noised look at the scene."""

    x: Float[Tensor, "B C h w"]
    """Clean latents of the renders, detached."""
    noise: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    """Fraction of the noise schedule, 0 clean to 1 noise."""
    wanted: Wanted


@dataclass(frozen=True)
class Update:
    """The gradient of the loss with respect to `View.x`, and figures worth a log line."""

    gradient: Float[Tensor, "B C h w"]
    logs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective(ABC):
    """A rule of score distillation. Fields are its hyper-parameters; subclasses are final."""

    needs_critic: ClassVar[bool] = False
    """Whether a trainable companion of the prior has to learn beside the scene."""

    @abstractmethod
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        """The update for one view. `critic` is the prior itself unless `needs_critic`."""


def guided(empty: Float[Tensor, "B C h w"], text: Float[Tensor, "B C h w"], scale: float) -> Float[Tensor, "B C h w"]:
    """Classifier-free guidance: empty + scale * (text - empty) (Ho & Salimans 2022, eq. 6, with scale = 1 + w).

    Scale 1 is none, 0 is unconditional. Code that writes text + s * (text - empty) means scale = s + 1 here.
    """
    return empty + scale * (text - empty)
