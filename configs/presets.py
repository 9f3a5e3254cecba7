"""Ready runs: a name for how much time an asset is worth, and an objective's name for how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.published import DREAMFUSION, PUBLISHED
from configs.recipe import ObjectivePreset
from configs.registry import objective_class, unknown_name_message
from configs.run import RunConfig
from configs.tuned import TUNED
from guidance.timesteps import AnnealedUniform
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig


@dataclass(frozen=True)
class Preset:
    """How much time an asset is worth; the prompt, seed and device stay the user's."""

    description: str
    steps: int
    batch_size: int = 4
    objective: str = "sds"
    """Name of the objective, where the user gives none."""
    scene: SceneConfig = field(default_factory=SplatConfig)
    """Splats: of what docs/scenes.md sets side by side the fastest, the leanest, and what its mesh is most like."""

    def run(self, prompt: str, objective: str | None = None, for_mini_prior: bool = True) -> RunConfig:
        """The preset's run for a prompt.

        Args:
            objective: name or `module:Class` of another objective than the preset's.
            for_mini_prior: whether its prior will be of the embedded one's kind.

        Raises:
            ValueError, ImportError: as `objective_preset`.
        """
        config = RunConfig(prompt, scene=self.scene, steps=self.steps, batch_size=self.batch_size)
        return objective_preset(objective or self.objective, for_mini_prior).apply_to(config)


PRESETS: dict[str, Preset] = {
    "draft": Preset("a look at the asset, within three minutes on two cores", steps=800),
    "standard": Preset("more steps from more sides, within ten minutes on two cores", steps=3000, batch_size=6),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that names the nearest one."""
    if name not in PRESETS:
        raise ValueError(unknown_name_message("preset", name, sorted(PRESETS)))
    return PRESETS[name]


def objective_preset(name: str, for_mini_prior: bool) -> ObjectivePreset:
    """The recipe of an objective's name or `module:Class`: the tuned one with the embedded prior, else the published.

    An objective from elsewhere has its own default values.

    Raises:
        ValueError: no objective has that name, or it has no default for one of its fields.
        ImportError: a plug-in does not load.
    """
    cls, table = objective_class(name), TUNED if for_mini_prior else PUBLISHED
    known = next((row for row in table.values() if type(row.objective) is cls), None)
    if known is not None:
        return known
    try:
        return ObjectivePreset(cls(), AnnealedUniform() if for_mini_prior else DREAMFUSION)
    except TypeError as error:
        raise ValueError(f"the objective {name} needs a default for each of its fields: {error}") from None
