"""DisBack: distillation that goes a way back (Zhang et al. 2024, section 4).

Where prior and renders are far apart, the prior's answers for renders are guesses. So the prior first learns the
renders of the start scene, step by step, and the scene is then pulled through those stages in reverse, each near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from guidance.critics.lora import LoRADenoiser
from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.variational.vsd import VSD
from guidance.objectives.weighting import Weighting, check_choice, check_finite
from guidance.priors.base import Condition, Denoiser, views_per_group


@runtime_checkable
class StagedPrior(Denoiser, Protocol):
    """A prior with a way that leads to it."""

    @property
    def stages(self) -> Sequence[Denoiser]:
        """From what knows the renders best to the prior itself."""
        ...


@dataclass(frozen=True)
class DisBack(GuidedObjective):
    """The gradient of VSD with the stage of the prior due at `View.progress`; the critic starts as the first."""

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="DisBack: VSD along the prior's own way back",
        reference="Zhang et al. 2024 (DisBack), section 4, and SYZhang0805/DisBack",
        forward_passes=(2, 2),
        guidance_scale="as VSD: 7.5",
        timestep_range="0.02 to 0.98",
        summary="VSD from a start that the prior has never seen the like of",
        critic_passes=1,
    )
    needs_critic: ClassVar[bool] = True
    needs_prior_stages: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    weighting: Weighting = "sds"
    stages_end: float = 0.4
    """Progress, 0..1, from which on the prior itself is asked; the stages before it take equal parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.stages_end <= 1:
            raise ValueError(f"stages_end is {self.stages_end}; expected a progress from 0 to 1")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        """A prior without stages is its own only one."""
        stages = prior.stages if isinstance(prior, StagedPrior) else (prior,)
        index = self.stage(len(stages), batch.progress)
        update = VSD(self.guidance_scale, self.weighting, guidance_rescale=self.guidance_rescale)(
            stages[index], critic, batch
        )
        return ObjectiveOutput(update.grad, {**update.logs, "stage": float(index)})

    def stage(self, count: int, progress: float) -> int:
        """Which of `count` stages is due; the last is the prior."""
        if progress >= self.stages_end:
            return count - 1
        return int(progress / self.stages_end * (count - 1))


@dataclass(frozen=True)
class BacktrackedPrior:
    """A `StagedPrior` prior; where no stage is asked for, it is the prior itself."""

    prior: Denoiser
    stages: tuple[Denoiser, ...]
    """From what knows the renders best to the prior."""

    @staticmethod
    def from_stage_weights(
        prior: Denoiser, denoiser: LoRADenoiser, stage_weights: Sequence[dict[str, Tensor]]
    ) -> BacktrackedPrior:
        """Stages with weights that were kept while a critic learnt renders, the first to be kept first.

        `denoiser` is the prior's twin that will wear them.
        """
        return BacktrackedPrior(prior, (*(_Stage(denoiser, weights) for weights in reversed(stage_weights)), prior))

    @property
    def views_per_group(self) -> int:
        """Views that the prior has to be shown at once."""
        return views_per_group(self.prior)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.prior.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.prior.predict_noise(x_t, t, conditions)


@dataclass(frozen=True)
class _Stage:
    """The prior with additions of some time; all stages share one network."""

    denoiser: LoRADenoiser
    weights: dict[str, Tensor]

    @property
    def views_per_group(self) -> int:
        """Views that the prior has to be shown at once."""
        return views_per_group(self.denoiser)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.denoiser.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        self.denoiser.load_lora_state(self.weights)
        return self.denoiser.predict_noise(x_t, t, conditions)
