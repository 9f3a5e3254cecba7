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

from guidance.conditioning.conditions import ViewConditions
from guidance.priors.base import Condition, Denoiser


@dataclass(frozen=True)
class EditSource:
    """What an edit starts from, seen by the same cameras."""

    latents: Float[Tensor, "B C h w"]
    """Clean latents of its renders."""
    text: Condition
    """What it shows."""


@dataclass(frozen=True)
class RegionMasks:
    """Parts of the views that have a text of their own."""

    masks: Float[Tensor, "K B h w"]
    """1 where a latent is of region k, 0 elsewhere."""
    conditions: tuple[Condition, ...]
    """K conditions of B views."""


@dataclass(frozen=True)
class ViewBatch:
    """One noised look at the scene, with every random number an objective may want."""

    latents: Float[Tensor, "B C h w"]
    """Clean latents of the renders, detached."""
    noise: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    """Fraction of the noise schedule, 0 clean to 1 noise."""
    conditions: ViewConditions
    extra_noise: Float[Tensor, "B C h w"]
    """Noise independent of `noise`, for rules that need two."""
    u: Float[Tensor, " B"]
    """Numbers from 0 to 1, for rules that draw something of their own."""
    progress: float = 0.0
    """Of the run, 0 to 1."""
    t_min: float = 0.0
    """The lowest `t` that could have been drawn at this progress."""
    source: EditSource | None = None
    regions: RegionMasks | None = None

    @staticmethod
    def sample(
        latents: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: ViewConditions, rng: torch.Generator
    ) -> ViewBatch:
        """A view with its chance drawn from `rng`."""
        noise, extra_noise = (
            torch.randn(latents.shape, generator=rng, dtype=latents.dtype).to(latents.device) for _ in range(2)
        )
        return ViewBatch(
            latents,
            noise,
            t,
            conditions,
            extra_noise,
            torch.rand(len(latents), generator=rng, dtype=latents.dtype).to(latents.device),
        )

    def select(self, index: Int[Tensor, " N"]) -> ViewBatch:
        """These views alone."""
        source, regions = self.source, self.regions
        return replace(
            self,
            latents=self.latents[index],
            noise=self.noise[index],
            t=self.t[index],
            conditions=self.conditions.select(index),
            extra_noise=self.extra_noise[index],
            u=self.u[index],
            source=source and EditSource(source.latents[index], source.text.select(index)),
            regions=regions
            and RegionMasks(regions.masks[:, index], tuple(text.select(index) for text in regions.conditions)),
        )


@dataclass(frozen=True)
class ObjectiveOutput:
    """The gradient of the loss with respect to `View.x`, and figures worth a log line."""

    grad: Float[Tensor, "B C h w"]
    logs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectiveInfo:
    """What one wants to know before choosing an objective."""

    title: str
    reference: str
    """Paper and equation, or the code that was read."""
    forward_passes: tuple[int, int]
    """Fewest and most answers of the prior for a view in a step."""
    guidance_scale: str
    """The published classifier-free guidance in our form (`classifier_free_guidance`)."""
    timestep_range: str
    """The published range of noise times, as fractions of the schedule."""
    summary: str
    """One line."""
    critic_passes: int = 0
    """Answers of a critic for a view in a step, beside those it learns from."""


@dataclass(frozen=True)
class Objective(ABC):
    """A rule of score distillation. Fields are its hyper-parameters; subclasses are final."""

    info: ClassVar[ObjectiveInfo | None] = None
    """A row in the table of `sds3d objectives`."""
    needs_critic: ClassVar[bool] = False
    """Whether a trainable companion of the prior has to learn beside the scene."""
    needs_source: ClassVar[bool] = False
    """Whether it edits an existing scene: `View.source` is there."""
    needs_regions: ClassVar[bool] = False
    """Whether parts of the scene have texts of their own: `View.regions` is there."""
    needs_flow_prior: ClassVar[bool] = False
    """Whether the prior has to be a flow-matching model: alpha + sigma = 1."""
    needs_discriminator: ClassVar[bool] = False
    """Whether the critic must also estimate the ratio of densities (`variational.f_vsd.DensityRatioCritic`)."""
    needs_prior_stages: ClassVar[bool] = False
    """Whether the prior comes with the stages of its way to the first renders (`variational.disback.StagedPrior`)."""
    needs_undistilled_prior: ClassVar[bool] = False
    """Whether it is made of what a text changes in the answers, at any scale: a prior with guidance in its weights has
    changed that already."""

    @property
    def uses_negative_prompt(self) -> bool:
        """Whether, with these values, it asks about the negative prompt."""
        return False

    @abstractmethod
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        """The update for one view. `critic` is the prior itself unless `needs_critic`."""


def require_source(batch: ViewBatch) -> EditSource:
    """What the view is an edit of.

    Raises:
        ValueError: it is of none.
    """
    if batch.source is None:
        raise ValueError("this objective edits an existing scene, and the view has no source; give one, or use sds")
    return batch.source
