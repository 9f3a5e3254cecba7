"""Ready runs: a name for how much time an asset is worth, and an objective's name for how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.published import PUBLISHED, UNIFORM
from configs.recipe import Recipe
from configs.registry import objective_class, unknown
from configs.run import RunConfig
from configs.tuned import TUNED
from guidance.timesteps import Falling
from renderers.scene import SceneKnobs
from renderers.splats.config import Splats


@dataclass(frozen=True)
class Preset:
    """How much time an asset is worth; the prompt, seed and device stay the user's."""

    purpose: str
    steps: int
    views: int = 4
    objective: str = "sds"
    """Name of the objective, where the user gives none."""
    scene: SceneKnobs = field(default_factory=Splats)
    """Splats: of what docs/scenes.md sets side by side the fastest, the leanest, and what its mesh is most like."""

    def run(self, prompt: str, objective: str | None = None, embedded: bool = True) -> RunConfig:
        """The preset's run for a prompt.

        Args:
            objective: name or `module:Class` of another objective than the preset's.
            embedded: whether its prior will be of the embedded one's kind.

        Raises:
            ValueError, ImportError: as `recipe`.
        """
        ready = RunConfig(prompt, scene=self.scene, steps=self.steps, views=self.views)
        return recipe(objective or self.objective, embedded).laid_over(ready)


PRESETS: dict[str, Preset] = {
    "draft": Preset("a look at the asset, within three minutes on two cores", steps=800),
    "standard": Preset("more steps from more sides, within ten minutes on two cores", steps=3000, views=6),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that names the nearest one."""
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, sorted(PRESETS)))
    return PRESETS[name]


def recipe(name: str, embedded: bool) -> Recipe:
    """The recipe of an objective's name or `module:Class`: the tuned one with the embedded prior, else the published.

    An objective from elsewhere has its own default values.

    Raises:
        ValueError: no objective has that name, or it has no default for one of its fields.
        ImportError: a plug-in does not load.
    """
    kind, rows = objective_class(name), TUNED if embedded else PUBLISHED
    known = next((row for row in rows.values() if type(row.objective) is kind), None)
    if known is not None:
        return known
    try:
        return Recipe(kind(), Falling() if embedded else UNIFORM)
    except TypeError as error:
        raise ValueError(f"the objective {name} needs a default for each of its fields: {error}") from None
