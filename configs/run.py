"""One run, typed: everything that decides what comes out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass

from guidance.conditioning.prompt import Prompt, ViewConditioning
from guidance.critics.lora import CriticConfig
from guidance.gradient_clipping import GradientClipping
from guidance.objectives.base import Objective
from guidance.objectives.differences.sds import SDS
from guidance.priors.diffusers.options import PriorOptions
from guidance.timesteps import AnnealedUniform, TimestepSampler
from renderers.camera_sampler import CameraSampler
from renderers.gpu_kernels import Renderer
from renderers.meshes.config import MeshConfig
from renderers.meshing.extraction import MeshExtractionConfig
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig

MAX_REGIONS = 16


MAX_RENDER_SIZES = 16
MAX_MAGNITUDE = 1e9
"""Largest magnitude of any number of a run."""


@dataclass(frozen=True)
class Region:
    """A ball of the scene that has a text of its own."""

    text: str
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """In the frame of the asset: +X its left, +Y up, +Z its front."""
    radius: float = 0.5

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a part of the scene has no text")
        if not all(abs(coordinate) <= 1 for coordinate in self.center):
            raise ValueError(f"the centre of {self.text!r} is {self.center}; expected numbers from -1 to 1")
        if not 0 < self.radius <= 1:
            raise ValueError(f"the radius of {self.text!r} is {self.radius}; expected a number above 0, up to 1")


@dataclass(frozen=True)
class RunConfig:
    """A run of score distillation. The same values on the same machine give the same asset."""

    prompt: str
    """What to make, such as "a teddy bear"."""
    negative_prompt: str = ""
    """What it should not look like."""
    image_prompt: str = ""
    """Picture file that shows what is wanted, for priors that see pictures."""
    prior: str = "mini"
    """Name of the diffusion model (see: sds3d models), the folder of one, or owner/name on the hub."""
    prior_options: PriorOptions = field(default_factory=PriorOptions)
    """What goes on top of a model of others, and how it is opened."""
    objective: Objective = field(default_factory=SDS)
    """Rule that turns the prior's answers into a gradient."""
    scene: SceneConfig = field(default_factory=SplatConfig)
    """What is optimised."""
    source_run: str = ""
    """Folder of a finished run whose scene this one starts from, and which it edits."""
    init_mesh: str = ""
    """Mesh file, such as a GLB or OBJ, that a scene of kind mesh starts from."""
    regions: tuple[Region, ...] = ()
    """Parts of the scene with texts of their own, for objectives that compose regions."""
    cameras: CameraSampler = field(default_factory=CameraSampler)
    """Where it is looked at from."""
    timesteps: TimestepSampler = field(default_factory=AnnealedUniform)
    """How noisy the prior gets to see it."""
    clipping: GradientClipping = field(default_factory=GradientClipping)
    """What the gradient may be at most."""
    view_conditioning: ViewConditioning = "auto"
    """How the prior is told the angle of a view: by the camera where it sees one and else by words (auto), by words,
    or not at all."""
    perp_neg: float = 0.0
    """How strongly a view keeps away from the front and the side (Perp-Neg), 0 not at all and 1 as published; takes
    two answers of the prior more."""
    debias_model: str = ""
    """Folder or name of a masked language model, such as bert-base-uncased, that takes out of each view's prompt the
    words that argue against the view."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """What learns beside the scene, where the objective needs it."""
    mesh_extraction: MeshExtractionConfig = field(default_factory=MeshExtractionConfig)
    """How the finished scene becomes a mesh."""
    steps: int = 600
    """Optimisation steps."""
    batch_size: int = 4
    """Pictures in a step."""
    render_sizes: tuple[int, ...] = ()
    """Heights of the renders in pixels, such as 64 128 256 512, each for an equal share of the run. They are enlarged
    to what the prior is shown; none: always as large as that. Small ones save time and memory, of volumes above all."""
    num_chunks: int = 1
    """Parts that a step's pictures are looked at in, one after another, for small memories: the same step, but for
    objectives and limits that weigh the views of a step against one another."""
    particles: int = 1
    """Scenes that are made at once, each from a start of its own; they take the steps in turn and share a critic."""
    seed: int = 0
    """Decides every random draw of the run."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` for the second GPU, or `auto` for CUDA where there is one."""
    renderer: Renderer = "auto"
    """What draws splats and volumes on a GPU: gsplat and nerfacc, which nvcc compiles at first use (auto), or plain
    torch, which needs nothing and is slower (torch)."""

    def __post_init__(self) -> None:
        for name, value in _iter_floats(self, ""):
            if math.isnan(value):
                raise ValueError(f"{name} is nan; expected a number")
            if MAX_MAGNITUDE < abs(value) < math.inf:
                raise ValueError(f"{name} is {value:g}; expected a number up to {MAX_MAGNITUDE:g}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a run takes at least 1")
        if self.steps > 1_000_000:
            raise ValueError(f"steps is {self.steps}; at most 1000000 are taken")
        if not 1 <= self.batch_size <= 64:
            raise ValueError(f"batch_size is {self.batch_size}; expected 1 to 64 pictures in a step")
        if len(self.render_sizes) > MAX_RENDER_SIZES or not all(8 <= size <= 4096 for size in self.render_sizes):
            found = ", ".join(map(str, self.render_sizes))
            raise ValueError(f"render_sizes is {found}; expected up to {MAX_RENDER_SIZES} heights of 8 to 4096 pixels")
        if not 1 <= self.num_chunks <= self.batch_size:
            raise ValueError(
                f"num_chunks is {self.num_chunks}; expected 1 to {self.batch_size}, the pictures in a step"
            )
        if not 1 <= self.particles <= 64:
            raise ValueError(f"particles is {self.particles}; expected 1 to 64 scenes at once")
        if not 0 <= self.seed < 2**29:
            raise ValueError(f"seed is {self.seed}; expected 0 to {2**29 - 1}")
        if self.init_mesh and not isinstance(self.scene, MeshConfig):
            raise ValueError("a model is what a mesh starts from; give --scene mesh")
        if len(self.regions) > MAX_REGIONS:
            raise ValueError(f"the scene has {len(self.regions)} parts; at most {MAX_REGIONS} are taken")
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", self.device):
            raise ValueError(f"device is {self.device!r}; expected auto, cpu or cuda, or one of several GPUs as cuda:1")

    def render_size(self, progress: float, shown: int) -> int:
        """Height of the renders at `progress`, never above that of what the prior is `shown`."""
        if not self.render_sizes:
            return shown
        place = min(int(progress * len(self.render_sizes)), len(self.render_sizes) - 1)
        return min(self.render_sizes[place], shown)

    def build_prompt(self) -> Prompt:
        """What the prior is asked for. Opens the language model of `debias_model`, where there is one.

        Raises:
            ValueError: the prompt, or how it is to be told, does not fit.
            ImportError, OSError: the language model can not be opened.
        """
        prompt = Prompt(self.prompt, self.negative_prompt, self.view_conditioning, self.perp_neg)
        if not self.debias_model:
            return prompt
        from guidance.conditioning.debias import LanguageModel, debias_prompt

        texts = debias_prompt(self.prompt, LanguageModel.load(self.debias_model).view_probabilities)
        return Prompt(self.prompt, self.negative_prompt, self.view_conditioning, self.perp_neg, texts)


def _iter_floats(value: object, name: str) -> Iterator[tuple[str, float]]:
    """Every number with a point in a dataclass and in those within it, by its name with dots."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, tuple):
        for inner in value:
            yield from _iter_floats(inner, name)
    elif is_dataclass(value):
        for f in fields(value):
            yield from _iter_floats(getattr(value, f.name), f"{name}.{f.name}".lstrip("."))
