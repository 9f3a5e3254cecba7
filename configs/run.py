"""One run, typed: everything that decides what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from guidance.objective import Objective
from guidance.sds import SDS
from guidance.times import Times
from renderers.meshing import Meshing
from renderers.orbit import Orbit
from renderers.splats import Splats


@dataclass(frozen=True)
class RunConfig:
    """A run of score distillation. The same values on the same machine give the same asset."""

    prompt: str
    """What to make, such as "a teddy bear"."""
    negative: str = ""
    """What it should not look like."""
    prior: str = "mini"
    """Name of the diffusion model, or the folder of one."""
    objective: Objective = field(default_factory=SDS)
    """Rule that turns the prior's answers into a gradient."""
    scene: Splats = field(default_factory=Splats)
    """What is optimised."""
    orbit: Orbit = field(default_factory=Orbit)
    """Where it is looked at from."""
    times: Times = field(default_factory=Times)
    """How noisy the prior gets to see it."""
    mesh: Meshing = field(default_factory=Meshing)
    """How the finished scene becomes a mesh."""
    steps: int = 600
    """Optimisation steps."""
    views: int = 4
    """Pictures in a step."""
    seed: int = 0
    """Decides every random draw of the run."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a run takes at least 1")
        if self.steps > 1_000_000:
            raise ValueError(f"steps is {self.steps}; at most 1000000 are taken")
        if not 1 <= self.views <= 64:
            raise ValueError(f"views is {self.views}; expected 1 to 64 pictures in a step")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected 0 to {2**32 - 1}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}; expected auto, cpu or cuda")
