"""An objective and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from configs.run import RunConfig
from guidance.critics.lora import CriticConfig
from guidance.gradient_clipping import GradientClipping
from guidance.objectives.base import Objective
from guidance.timesteps import AnnealedUniform, TimestepSampler

MAX_LR_SCALE = 100.0


@dataclass(frozen=True)
class ObjectivePreset:
    """All that a run takes from the name of an objective."""

    objective: Objective
    timesteps: TimestepSampler = field(default_factory=AnnealedUniform)
    clipping: GradientClipping = field(default_factory=GradientClipping)
    critic: CriticConfig = field(default_factory=CriticConfig)
    lr_scale: float = 1.0
    """Factor of all rates of the preset's scene, above 0."""

    def __post_init__(self) -> None:
        if not 0 < self.lr_scale <= MAX_LR_SCALE:
            raise ValueError(f"lr_scale is {self.lr_scale}; expected a factor above 0, up to {MAX_LR_SCALE:g}")

    def apply_to(self, run: RunConfig) -> RunConfig:
        """The run with this recipe in the place of its own."""
        return replace(
            run,
            objective=self.objective,
            timesteps=self.timesteps,
            clipping=self.clipping,
            critic=self.critic,
            scene=run.scene.scale_lrs(self.lr_scale),
        )
