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

from guidance.critics.lora import Adapted
from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite
from guidance.objectives.guided import Guided
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Condition, Denoiser, together


@runtime_checkable
class Staged(Denoiser, Protocol):
    """A prior with a way that leads to it."""

    @property
    def stages(self) -> Sequence[Denoiser]:
        """From what knows the renders best to the prior itself."""
        ...


@dataclass(frozen=True)
class DisBack(Guided):
    """The gradient of VSD with the stage of the prior due at `View.progress`; the critic starts as the first."""

    about: ClassVar[About | None] = About(
        title="DisBack: VSD along the prior's own way back",
        source="Zhang et al. 2024 (DisBack), section 4, and SYZhang0805/DisBack",
        passes=(2, 2),
        scale="as VSD: 7.5",
        times="0.02 to 0.98",
        good_for="VSD from a start that the prior has never seen the like of",
        critic=1,
    )
    needs_critic: ClassVar[bool] = True
    needs_stages: ClassVar[bool] = True

    scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    weighting: Weighting = "sds"
    until: float = 0.4
    """Progress, 0..1, from which on the prior itself is asked; the stages before it take equal parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.until <= 1:
            raise ValueError(f"until is {self.until}; expected a progress from 0 to 1")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        """A prior without stages is its own only one."""
        stages = prior.stages if isinstance(prior, Staged) else (prior,)
        place = self.stage(len(stages), view.progress)
        update = VSD(self.scale, self.weighting, rescale=self.rescale)(stages[place], critic, view)
        return Update(update.gradient, {**update.logs, "stage": float(place)})

    def stage(self, count: int, progress: float) -> int:
        """Which of `count` stages is due; the last is the prior."""
        if progress >= self.until:
            return count - 1
        return int(progress / self.until * (count - 1))


@dataclass(frozen=True)
class Backtracked:
    """A `Staged` prior; where no stage is asked for, it is the prior itself."""

    prior: Denoiser
    stages: tuple[Denoiser, ...]
    """From what knows the renders best to the prior."""

    @staticmethod
    def of(prior: Denoiser, adapted: Adapted, kept: Sequence[dict[str, Tensor]]) -> Backtracked:
        """Stages with weights that were kept while a critic learnt renders, the first to be kept first.

        `adapted` is the prior's twin that will wear them.
        """
        return Backtracked(prior, (*(_Stage(adapted, weights) for weights in reversed(kept)), prior))

    @property
    def together(self) -> int:
        """Views that the prior has to be shown at once."""
        return together(self.prior)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.prior.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.prior.predict(x_t, t, conditions)


@dataclass(frozen=True)
class _Stage:
    """The prior with additions of some time; all stages share one network."""

    adapted: Adapted
    weights: dict[str, Tensor]

    @property
    def together(self) -> int:
        """Views that the prior has to be shown at once."""
        return together(self.adapted)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.adapted.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        self.adapted.load(self.weights)
        return self.adapted.predict(x_t, t, conditions)
