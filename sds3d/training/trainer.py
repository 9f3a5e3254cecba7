"""The loop: look at the scene, ask the prior, move the scene."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from configs.run import RunConfig
from guidance.critics.lora import strip_prefix
from guidance.gradient_clipping import GradientClipping
from guidance.objectives.base import EditSource, ViewBatch
from guidance.priors.base import Prior, make_rng, views_per_group
from guidance.uploading import uploaded
from renderers import gpu_kernels
from renderers.cameras import Cameras
from renderers.meshes.config import MeshConfig
from renderers.optimizer_rows import load_optimizer_state, optimizer_state
from renderers.scene import RenderOutput, TrainableScene, cat_outputs
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.mesh_import.load import LoadedMesh
from sds3d.runs.result import Result, particle_key, placement_of
from sds3d.training import view_sampling
from sds3d.training.device_usage import Stopwatch
from sds3d.training.guidance_models import GuidanceModels, attach_image_prompt
from sds3d.training.regions import region_masks_of
from sds3d.training.view_sampling import ChunkResult, SampledNoise, chunk_slices

_LATER = {"spare", "critic"}
"""Streams of chance that runs from before they came lack; they start anew."""
PARTICLE_SEED_STRIDE = 0x9E3779B8
"""Between the seeds of particles: a multiple of 8, so that none meets another stream of the run."""


MAX_NONFINITE_STEPS = 10
"""Steps on end whose gradients may hold no number before a run gives up."""


class TrainingFailed(RuntimeError):
    """The scene went wrong beyond repair; the message says how."""


class NonFinitePrior(TrainingFailed):
    """The prior gave nothing that the scene could move by; the message says why."""


@dataclass(frozen=True)
class StepResult:
    """What one step of a run did."""

    number: int
    """Steps that are done, this one included."""
    grad_rms: float
    """Root mean square of the objective's gradient; there is no loss worth looking at."""
    seconds: float
    prior_seconds: float
    """Of them, in the prior and its critic: encoding, answers, and what the critic learns."""
    scene_summary: str
    """Of the scene, in words."""
    output: RenderOutput
    logs: Mapping[str, float] = field(default_factory=dict)
    """Figures of the objective and of the critic."""
    warnings: tuple[str, ...] = ()
    """What was done where the memory ran out."""


@dataclass
class Particle:
    """One of the scenes of a run, and what moves it."""

    scene: TrainableScene
    optimizer: torch.optim.Adam

    @staticmethod
    def create(scene: TrainableScene, progress: float) -> Particle:
        """A scene with an optimiser that remembers nothing yet."""
        return Particle(scene, torch.optim.Adam(scene.param_groups(progress), betas=(0.9, 0.99), fused=True))


class Trainer:
    """One run of score distillation, resumable at any step."""

    def __init__(
        self,
        config: RunConfig,
        prior: Prior,
        device: torch.device,
        source: Result | None = None,
        model: LoadedMesh | None = None,
    ) -> None:
        """`source` is what the folder of `config.source` holds, `model` what the file of `config.model` does; a run
        that is restored next needs no model.
        """
        self.config, self.prior, self.device = config, prior, device
        self.prompt = attach_image_prompt(config.build_prompt(), config, prior)
        # One stream of chance for each component: changing how one draws leaves the others as they were.
        self.rngs = {
            name: make_rng(config.seed * 8 + place)
            for place, name in enumerate(("cameras", "backdrops", "noise", "times", "spare", "critic"))
        }
        self.num_chunks = config.num_chunks
        """Parts that a step's pictures are looked at in; more where the memory has run out."""
        self.guidance = GuidanceModels(config, prior, self.prompt, device, self.rngs["critic"])
        self.step, self.nonfinite_steps = 0, 0
        self._in_prior = Stopwatch(device)
        starts = (make_rng(config.seed * 8 + 7 + place * PARTICLE_SEED_STRIDE) for place in range(config.particles))
        self.particles = [Particle.create(build_scene(config, device, start, model), 0.0) for start in starts]
        self.placement = None if model is None else model.placement
        self.source = None if source is None else source.scene_on(device)
        if source is not None:
            self.source_prompt = replace(self.prompt, text=source.config.prompt, view_texts={})
            for place, particle in enumerate(self.particles):
                particle.scene.load_training_state(source.scene.training_state())
                self.particles[place] = Particle.create(particle.scene, 0.0)

    @property
    def scene(self) -> TrainableScene:
        """The first of the scenes."""
        return self.particles[0].scene

    def prepare(self) -> None:
        """What has to happen once, before the first step; `steps` does it where it has not been done."""
        self.guidance.prepare([particle.scene for particle in self.particles])

    def make_kernels_ready(self, say: Callable[[str], None] | None = None) -> None:
        """Has what draws on a GPU compiled before the first step, and not in it; `say` hears where that takes minutes.

        Raises ImportError, with the ways out, where it can not be.
        """
        gpu_kernels.choose(self.config.renderer)
        library = {SplatConfig: "gsplat", NerfConfig: "nerfacc"}.get(type(self.config.scene))
        if self.device.type == "cuda" and library is not None and gpu_kernels.wanted():
            gpu_kernels.make_ready(library, say)

    def steps(self) -> Iterator[StepResult]:
        """Runs to the end, one step at a time. Raises Unhealthy."""
        self.make_kernels_ready()
        self.prepare()
        while self.step < self.config.steps:
            yield self._step()

    def _step(self) -> StepResult:
        began = time.perf_counter()
        config, beside = self.config, self.guidance
        particle = self.particles[self.step % config.particles]
        scene, optimiser = particle.scene, particle.optimizer
        progress = self.step / config.steps

        for group, now in zip(optimiser.param_groups, scene.param_groups(progress), strict=True):
            group["lr"] = now["lr"]
        looked, remarks = self._forward_backward_with_oom_retry(particle, progress)
        with self._in_prior:
            learnt = beside.update_critic(looked.latents, looked.critic_condition, self.num_chunks)
        optimiser.step()
        frame = cat_outputs(looked.outputs)
        scene.post_step(progress, frame, optimiser)
        self.step += 1
        if trouble := scene.failure_reason():
            raise TrainingFailed(f"step {self.step}: {trouble}")
        # Read together: each read waits for the device.
        strength, lost = torch.stack([looked.grad.square().mean().sqrt(), looked.nonfinite.to(looked.grad)]).tolist()
        self.nonfinite_steps = self.nonfinite_steps + 1 if strength == 0 and lost else 0
        if self.nonfinite_steps == min(MAX_NONFINITE_STEPS, config.steps):
            why = "its weights are damaged, or too large for half precision (--prior-options.precision full)"
            raise NonFinitePrior(f"step {self.step}: {config.prior} answers with no number (NaN) any more; {why}")
        seconds, logs = time.perf_counter() - began, {**looked.logs, **learnt}
        return StepResult(
            self.step, strength, seconds, self._in_prior.seconds, scene.describe(), frame, logs, tuple(remarks)
        )

    def _forward_backward_with_oom_retry(self, particle: Particle, progress: float) -> tuple[ChunkResult, list[str]]:
        """A look, in smaller chunks of pictures where the memory runs out; what was done about it, in words."""
        most, remarks = self.config.batch_size // views_per_group(self.prior), list[str]()
        while True:
            before = {name: rng.get_state() for name, rng in self.rngs.items()}
            try:
                return self._forward_backward(particle, progress), remarks
            except torch.OutOfMemoryError:
                for name, state in before.items():
                    self.rngs[name].set_state(state)
                if self.num_chunks >= most:
                    raise
                self.num_chunks = min(2 * self.num_chunks, most)
                remarks.append(f"the memory ran out: from here on a step's pictures in {self.num_chunks} parts")
            torch.cuda.empty_cache()

    def _forward_backward(self, particle: Particle, progress: float) -> ChunkResult:
        """Renders all views of a step, asks about them, and leaves the gradients in the scene's parameters; chunk
        after chunk, which changes nothing but the memory it takes.
        """
        config, prior, beside, chance = self.config, self.prior, self.guidance, self.rngs
        near = view_sampling.step_cameras(config, prior, config.batch_size, chance["cameras"], progress)
        behind = view_sampling.step_backgrounds(prior, config.batch_size, chance["backdrops"])
        c2w, fov_y, behind = uploaded([near.c2w, near.fov_y, behind], self.device)
        cameras = replace(near, c2w=c2w, fov_y=fov_y)
        self._in_prior.reset()
        drawn: SampledNoise | None = None
        looked: list[ChunkResult] = []
        particle.optimizer.zero_grad(set_to_none=True)
        for rows in chunk_slices(config.batch_size, self.num_chunks, views_per_group(prior)):
            frame = particle.scene.render(cameras[rows], behind[rows])
            with self._in_prior:
                x = prior.encode(self._shown(clip_pixel_gradients(frame.rgb, config.clipping, config.batch_size)))
            drawn = drawn or self._sample_noise(x.detach(), progress)
            with torch.no_grad(), self._in_prior:
                view = self._make_view_batch(
                    cameras[rows], near[rows], behind[rows], frame, x.detach(), drawn.select(rows), progress
                )
                update = config.objective(beside.teacher(view.conditions.uncond), beside.critic, view)
                # Half precision overflows now and then: such values pull nowhere.
                gradient = torch.nan_to_num(update.grad, nan=0.0, posinf=0.0, neginf=0.0)
                gradient = config.clipping.clip_latents(gradient, progress)
            share = len(x) / config.batch_size
            (share * (surrogate_loss(x, gradient) + particle.scene.regularization_loss(frame))).backward()
            lost = ~update.grad.isfinite().any()
            looked.append(
                ChunkResult([frame], x.detach(), gradient, view.conditions.text_with_camera, update.logs, lost)
            )
        return ChunkResult.cat(looked)

    def _sample_noise(self, like: Float[Tensor, "b C h w"], progress: float) -> SampledNoise:
        """All chance of a step's views that their latents decide the shape of."""
        config, chance = self.config, self.rngs
        shape = (config.batch_size, *like.shape[1:])
        noise = torch.randn(shape, generator=chance["noise"])
        t = view_sampling.step_timesteps(config, self.prior, progress, chance["times"])
        second = torch.randn(shape, generator=chance["spare"])
        uniform = torch.rand(config.batch_size, generator=chance["spare"])
        return SampledNoise(*(each.to(like) for each in uploaded([noise, t, second, uniform], like.device)))

    def _shown(self, rgb: Float[Tensor, "B h w 3"]) -> Float[Tensor, "B 3 H W"]:
        """Renders as the prior is shown them."""
        return view_sampling.enlarged(rgb, self.prior.image_size)

    def _make_view_batch(
        self,
        cameras: Cameras,
        near: Cameras,
        behind: Float[Tensor, "B 3"],
        frame: RenderOutput,
        x: Float[Tensor, "B C h w"],
        drawn: SampledNoise,
        progress: float,
    ) -> ViewBatch:
        """What the objective is shown of a frame; `near` are the cameras in main memory."""
        config, prior, angles = self.config, self.prior, (near.azimuth, near.elevation)
        source = None
        if self.source is not None:
            before = prior.encode(self._shown(self.source.render(cameras, behind).rgb))
            source = EditSource(before, self.source_prompt.conditions_for(prior, *angles).text)
        return ViewBatch(
            x,
            noise=drawn.noise,
            t=drawn.t,
            conditions=self.prompt.conditions_for(prior, *angles),
            extra_noise=drawn.extra_noise,
            u=drawn.u,
            progress=progress,
            t_min=config.timesteps.lower_bound(progress),
            source=source,
            regions=region_masks_of(config.regions, self.prompt, prior, cameras, frame, x) if config.regions else None,
        )

    def training_state(self) -> dict[str, Tensor]:
        """All that `load_training_state` needs to go on bit for bit."""
        tensors = {f"beside.{name}": value for name, value in self.guidance.training_state().items()}
        for place, particle in enumerate(self.particles):
            scene, adam = particle_key("scene", place), particle_key("adam", place)
            tensors |= {f"{scene}.{name}": value for name, value in particle.scene.training_state().items()}
            tensors |= {f"{adam}.{name}": value for name, value in optimizer_state(particle.optimizer).items()}
        tensors |= {f"chance.{name}": rng.get_state() for name, rng in self.rngs.items()}
        if self.placement is not None:
            tensors["placement"] = torch.tensor([*self.placement.center, self.placement.scale], dtype=torch.float64)
        return tensors | {"done": torch.tensor(self.step)}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is not of such a run."""
        if "done" not in state or (strip_prefix(state, "chance").keys() ^ self.rngs.keys()) - _LATER:
            raise ValueError("the checkpoint is not one of a run")
        self.step = int(state["done"])
        self.placement = placement_of(state)
        for place, particle in enumerate(self.particles):
            particle.scene.load_training_state(strip_prefix(state, particle_key("scene", place)))
            self.particles[place] = Particle.create(particle.scene, self.step / self.config.steps)
            load_optimizer_state(self.particles[place].optimizer, strip_prefix(state, particle_key("adam", place)))
        self.guidance.load_training_state(strip_prefix(state, "beside"))
        # Last: what the companions are made of anew draws chance.
        for name, value in strip_prefix(state, "chance").items():
            self.rngs[name].set_state(value)

    @property
    def result(self) -> Result:
        first, *others = (particle.scene for particle in self.particles)
        return Result(first, self.config, self.step, tuple(others), self.placement)


def build_scene(
    config: RunConfig, device: torch.device, rng: torch.Generator, model: LoadedMesh | None
) -> TrainableScene:
    """A scene as it is before the first step, from a model where there is one."""
    if model is not None and isinstance(config.scene, MeshConfig):
        return config.scene.from_mesh(model.mesh, device, rng)
    return config.scene.build(device, rng)


def surrogate_loss(x: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient with respect to x is `grad`, summed within a view and averaged over views."""
    target = (x - grad).detach()
    return 0.5 * (x - target).square().sum() / len(x)


def clip_pixel_gradients(
    rgb: Float[Tensor, "B H W 3"], limits: GradientClipping, count: int
) -> Float[Tensor, "B H W 3"]:
    """The same pictures, whose gradients on the way back are bounded; the share that each has in the mean over all
    `count` views is none of the bound's business.
    """
    if limits.pixel_norm is None or not rgb.requires_grad:
        return rgb
    seen = rgb.view_as(rgb)
    seen.register_hook(lambda gradient: limits.clip_pixels(gradient * count) / count)
    return seen
