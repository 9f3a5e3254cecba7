"""An objective and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from configs.run import RunConfig
from guidance.critics.lora import LoRA
from guidance.gradient_clipping import Limits
from guidance.objectives.base import Objective
from guidance.timesteps import Falling, Times
from renderers.scene import SceneKnobs

FASTEST = 100.0


@dataclass(frozen=True)
class Recipe:
    """All that a run takes from the name of an objective."""

    objective: Objective
    times: Times = field(default_factory=Falling)
    limits: Limits = field(default_factory=Limits)
    critic: LoRA = field(default_factory=LoRA)
    rates: float = 1.0
    """Factor of all rates of the preset's scene, above 0."""

    def __post_init__(self) -> None:
        if not 0 < self.rates <= FASTEST:
            raise ValueError(f"rates is {self.rates}; expected a factor above 0, up to {FASTEST:g}")

    def laid_over(self, run: RunConfig) -> RunConfig:
        """The run with this recipe in the place of its own."""
        return replace(
            run,
            objective=self.objective,
            times=self.times,
            limits=self.limits,
            critic=self.critic,
            scene=faster(run.scene, self.rates),
        )


def faster(scene: SceneKnobs, factor: float) -> SceneKnobs:
    """The scene's knobs with every rate multiplied by `factor`."""
    rates = [f.name for f in fields(scene) if f.name.endswith(("rate", "rate_end"))]
    return replace(scene, **{name: getattr(scene, name) * factor for name in rates})
