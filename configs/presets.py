"""Ready runs: a name for how much time an asset is worth."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.catalog import unknown
from configs.run import RunConfig
from guidance.objective import Objective
from guidance.sds import SDS
from guidance.times import Times
from renderers.splats import Splats


@dataclass(frozen=True)
class Preset:
    """All that a run takes from its preset; the prompt, seed and device stay the user's."""

    purpose: str
    steps: int
    views: int = 4
    objective: Objective = field(default_factory=lambda: SDS(scale=2.0, weighting="reconstruction", rescale=0.5))
    scene: Splats = field(default_factory=Splats)
    times: Times = field(default_factory=Times)

    def run(self, prompt: str) -> RunConfig:
        """The preset's run for a prompt."""
        return RunConfig(
            prompt, objective=self.objective, scene=self.scene, times=self.times, steps=self.steps, views=self.views
        )


PRESETS: dict[str, Preset] = {
    "draft": Preset("a look at the asset, within three minutes on two cores", steps=800),
    "standard": Preset("more steps from more sides, within ten minutes on two cores", steps=3000, views=6),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that names the nearest one."""
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, sorted(PRESETS)))
    return PRESETS[name]
