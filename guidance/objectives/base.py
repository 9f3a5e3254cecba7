"""What a rule for turning scores into a gradient is given, and what it gives back.

Shapes: B views, C x h x w latents, K regions. All chance is drawn before an objective is called: the same view gives
the same update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guidance.priors.base import Condition, Denoiser


@dataclass(frozen=True)
class Wanted:
    """What the views of a batch should show, under every condition an objective may ask about."""

    text: Condition
    """The prompt, as seen from each view's camera."""
    empty: Condition
    """No prompt."""
    negative: Condition
    """What should not be seen; `empty` itself where no negative prompt was given."""
    posed: Condition
    """The prompt without words for the view, and always with the camera: what a critic is told."""

    def rows(self, index: Int[Tensor, " N"]) -> Wanted:
        """These views alone."""
        empty = self.empty.rows(index)
        negative = empty if self.negative is self.empty else self.negative.rows(index)
        return Wanted(self.text.rows(index), empty, negative, self.posed.rows(index))


@dataclass(frozen=True)
class Source:
    """What an edit starts from, seen by the same cameras."""

    x: Float[Tensor, "B C h w"]
    """Clean latents of its renders."""
    text: Condition
    """What it shows."""


@dataclass(frozen=True)
class Regions:
    """Parts of the views that have a text of their own."""

    masks: Float[Tensor, "K B h w"]
    """1 where a latent is of region k, 0 elsewhere."""
    texts: tuple[Condition, ...]
    """K conditions of B views."""


@dataclass(frozen=True)
class View:
    """One noised look at the scene, with every random number an objective may want."""

    x: Float[Tensor, "B C h w"]
    """Clean latents of the renders, detached."""
    noise: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    """Fraction of the noise schedule, 0 clean to 1 noise."""
    wanted: Wanted
    second: Float[Tensor, "B C h w"]
    """Noise independent of `noise`, for rules that need two."""
    uniform: Float[Tensor, " B"]
    """Numbers from 0 to 1, for rules that draw something of their own."""
    progress: float = 0.0
    """Of the run, 0 to 1."""
    lowest: float = 0.0
    """The lowest `t` that could have been drawn at this progress."""
    source: Source | None = None
    regions: Regions | None = None

    @staticmethod
    def drawn(x: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], wanted: Wanted, rng: torch.Generator) -> View:
        """A view with its chance drawn from `rng`."""
        noise, second = (torch.randn(x.shape, generator=rng, dtype=x.dtype).to(x.device) for _ in range(2))
        return View(x, noise, t, wanted, second, torch.rand(len(x), generator=rng, dtype=x.dtype).to(x.device))

    def rows(self, index: Int[Tensor, " N"]) -> View:
        """These views alone."""
        source, regions = self.source, self.regions
        return replace(
            self,
            x=self.x[index],
            noise=self.noise[index],
            t=self.t[index],
            wanted=self.wanted.rows(index),
            second=self.second[index],
            uniform=self.uniform[index],
            source=source and Source(source.x[index], source.text.rows(index)),
            regions=regions and Regions(regions.masks[:, index], tuple(text.rows(index) for text in regions.texts)),
        )


@dataclass(frozen=True)
class Update:
    """The gradient of the loss with respect to `View.x`, and figures worth a log line."""

    gradient: Float[Tensor, "B C h w"]
    logs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What one wants to know before choosing an objective."""

    title: str
    source: str
    """Paper and equation, or the code that was read."""
    passes: tuple[int, int]
    """Fewest and most answers of the prior for a view in a step."""
    scale: str
    """The published classifier-free guidance in our form (`guided`)."""
    times: str
    """The published range of noise times, as fractions of the schedule."""
    good_for: str
    """One line."""
    critic: int = 0
    """Answers of a critic for a view in a step, beside those it learns from."""


@dataclass(frozen=True)
class Objective(ABC):
    """A rule of score distillation. Fields are its hyper-parameters; subclasses are final."""

    about: ClassVar[About | None] = None
    """A row in the table of `sds3d objectives`."""
    needs_critic: ClassVar[bool] = False
    """Whether a trainable companion of the prior has to learn beside the scene."""
    needs_source: ClassVar[bool] = False
    """Whether it edits an existing scene: `View.source` is there."""
    needs_regions: ClassVar[bool] = False
    """Whether parts of the scene have texts of their own: `View.regions` is there."""
    needs_flow: ClassVar[bool] = False
    """Whether the prior has to be a flow-matching model: alpha + sigma = 1."""
    needs_ratio: ClassVar[bool] = False
    """Whether the critic also has to tell samples of the prior from renders (`variational.f_vsd.Weighing`)."""
    needs_stages: ClassVar[bool] = False
    """Whether the prior comes with the stages of its way to the first renders (`variational.disback.Staged`)."""
    needs_contrast: ClassVar[bool] = False
    """Whether it is made of what a text changes in the answers, at any scale: a prior with guidance in its weights has
    changed that already."""

    @property
    def hears_negative(self) -> bool:
        """Whether, with these values, it asks about the negative prompt."""
        return False

    @abstractmethod
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        """The update for one view. `critic` is the prior itself unless `needs_critic`."""


def guided(
    empty: Float[Tensor, "B C h w"], text: Float[Tensor, "B C h w"], scale: float | Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B C h w"]:
    """Classifier-free guidance: empty + scale * (text - empty) (Ho & Salimans 2022, eq. 6, with scale = 1 + w).

    Scale 1 is none, 0 is unconditional. Code that writes text + s * (text - empty) means scale = s + 1 here.
    """
    return empty + scale * (text - empty)
