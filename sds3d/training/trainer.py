"""The loop: look at the scene, ask the prior, move the scene."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from configs.run import RunConfig
from guidance.critics.lora import part
from guidance.gradient_clipping import Limits
from guidance.objectives.base import Source, View
from guidance.priors.base import Prior, generator, together
from renderers.cameras import Cameras
from renderers.meshes.config import Solid
from renderers.optimizer_rows import adam_state, restore_adam
from renderers.scene import Frame, TrainableScene, joined
from sds3d.mesh_import.load import Loaded
from sds3d.runs.result import Result, numbered, placement_of
from sds3d.training import view_sampling
from sds3d.training.guidance_models import Companions, shown
from sds3d.training.regions import regions
from sds3d.training.view_sampling import Drawn, Looked, chunked

_LATER = {"spare", "critic"}
"""Streams of chance that runs from before they came lack; they start anew."""
APART = 0x9E3779B8
"""Between the seeds of particles: a multiple of 8, so that none meets another stream of the run."""


MOST_LOST = 10
"""Steps on end whose gradients may hold no number before a run gives up."""


class Unhealthy(RuntimeError):
    """The scene went wrong beyond repair; the message says how."""


class Unanswered(Unhealthy):
    """The prior gave nothing that the scene could move by; the message says why."""


@dataclass(frozen=True)
class Step:
    """What one step of a run did."""

    number: int
    """Steps that are done, this one included."""
    gradient: float
    """Root mean square of the objective's gradient; there is no loss worth looking at."""
    seconds: float
    prior_seconds: float
    """Of them, in the prior and its critic: encoding, answers, and what the critic learns."""
    size: str
    """Of the scene, in words."""
    frame: Frame
    logs: Mapping[str, float] = field(default_factory=dict)
    """Figures of the objective and of the critic."""
    remarks: tuple[str, ...] = ()
    """What was done where the memory ran out."""


@dataclass
class Particle:
    """One of the scenes of a run, and what moves it."""

    scene: TrainableScene
    optimiser: torch.optim.Adam

    @staticmethod
    def of(scene: TrainableScene, progress: float) -> Particle:
        """A scene with an optimiser that remembers nothing yet."""
        return Particle(scene, torch.optim.Adam(scene.groups(progress), betas=(0.9, 0.99), fused=True))


class Run:
    """One run of score distillation, resumable at any step."""

    def __init__(
        self,
        config: RunConfig,
        prior: Prior,
        device: torch.device,
        source: Result | None = None,
        model: Loaded | None = None,
    ) -> None:
        """`source` is what the folder of `config.source` holds, `model` what the file of `config.model` does; a run
        that is restored next needs no model.
        """
        self.config, self.prior, self.device = config, prior, device
        self.prompt = shown(config.asked(), config, prior)
        # One stream of chance for each component: changing how one draws leaves the others as they were.
        self.chance = {
            name: generator(config.seed * 8 + place)
            for place, name in enumerate(("cameras", "backdrops", "noise", "times", "spare", "critic"))
        }
        self.chunks = config.accumulate
        """Parts that a step's pictures are looked at in; more where the memory has run out."""
        self.beside = Companions(config, prior, self.prompt, device, self.chance["critic"])
        self.done, self.lost = 0, 0
        starts = (generator(config.seed * 8 + 7 + place * APART) for place in range(config.particles))
        self.particles = [Particle.of(started(config, device, start, model), 0.0) for start in starts]
        self.placement = None if model is None else model.placement
        self.source = None if source is None else source.scene.to(device)
        if source is not None:
            self.source_prompt = replace(self.prompt, text=source.config.prompt, texts={})
            for place, particle in enumerate(self.particles):
                particle.scene.restore(source.scene.state())
                self.particles[place] = Particle.of(particle.scene, 0.0)

    @property
    def scene(self) -> TrainableScene:
        """The first of the scenes."""
        return self.particles[0].scene

    def prepare(self) -> None:
        """What has to happen once, before the first step; `steps` does it where it has not been done."""
        self.beside.prepare([particle.scene for particle in self.particles])

    def steps(self) -> Iterator[Step]:
        """Runs to the end, one step at a time. Raises Unhealthy."""
        self.prepare()
        while self.done < self.config.steps:
            yield self._step()

    def _step(self) -> Step:
        began = time.perf_counter()
        config, beside = self.config, self.beside
        particle = self.particles[self.done % config.particles]
        scene, optimiser = particle.scene, particle.optimiser
        progress = self.done / config.steps

        for group, now in zip(optimiser.param_groups, scene.groups(progress), strict=True):
            group["lr"] = now["lr"]
        looked, remarks = self._spared(particle, progress)
        asked = time.perf_counter()
        learnt = beside.learn(looked.x, looked.posed, self.chunks)
        learning = time.perf_counter() - asked
        optimiser.step()
        frame = joined(looked.frames)
        scene.settle(progress, frame, optimiser)
        self.done += 1
        if trouble := scene.healthy():
            raise Unhealthy(f"step {self.done}: {trouble}")
        strength = float(looked.gradient.square().mean().sqrt())
        self.lost = self.lost + 1 if strength == 0 and bool(looked.lost) else 0
        if self.lost == min(MOST_LOST, config.steps):
            why = "its weights are damaged, or too large for half precision (--extras.precision full)"
            raise Unanswered(f"step {self.done}: {config.prior} answers with no number (NaN) any more; {why}")
        seconds, logs = time.perf_counter() - began, {**looked.logs, **learnt}
        return Step(self.done, strength, seconds, looked.seconds + learning, scene.told(), frame, logs, tuple(remarks))

    def _spared(self, particle: Particle, progress: float) -> tuple[Looked, list[str]]:
        """A look, in smaller chunks of pictures where the memory runs out; what was done about it, in words."""
        most, remarks = self.config.views // together(self.prior), list[str]()
        while True:
            before = {name: rng.get_state() for name, rng in self.chance.items()}
            try:
                return self._look(particle, progress), remarks
            except torch.OutOfMemoryError:
                for name, state in before.items():
                    self.chance[name].set_state(state)
                if self.chunks >= most:
                    raise
                self.chunks = min(2 * self.chunks, most)
                remarks.append(f"the memory ran out: from here on a step's pictures in {self.chunks} parts")
            torch.cuda.empty_cache()

    def _look(self, particle: Particle, progress: float) -> Looked:
        """Renders all views of a step, asks about them, and leaves the gradients in the scene's parameters; chunk
        after chunk, which changes nothing but the memory it takes.
        """
        config, prior, beside, chance = self.config, self.prior, self.beside, self.chance
        cameras = view_sampling.cameras(config, prior, config.views, chance["cameras"]).to(self.device)
        behind = view_sampling.behind(prior, config.views, chance["backdrops"]).to(self.device)
        drawn: Drawn | None = None
        looked: list[Looked] = []
        particle.optimiser.zero_grad(set_to_none=True)
        for rows in chunked(config.views, self.chunks, together(prior)):
            frame = particle.scene.render(cameras[rows], behind[rows])
            asked = time.perf_counter()
            x = prior.encode(bounded(frame.rgb, config.limits, config.views).permute(0, 3, 1, 2))
            drawn = drawn or self._drawn(x.detach(), progress)
            with torch.no_grad():
                view = self._view(cameras[rows], behind[rows], frame, x.detach(), drawn.rows(rows), progress)
                update = config.objective(beside.teacher(view.wanted.empty), beside.critic, view)
                # Half precision overflows now and then: such values pull nowhere.
                gradient = torch.nan_to_num(update.gradient, nan=0.0, posinf=0.0, neginf=0.0)
                gradient = config.limits.of_latents(gradient, progress)
            seconds = time.perf_counter() - asked
            share = len(x) / config.views
            (share * (pulled(x, gradient) + particle.scene.penalty(frame))).backward()
            lost = ~update.gradient.isfinite().any()
            looked.append(Looked([frame], x.detach(), gradient, view.wanted.posed, update.logs, seconds, lost))
        return Looked.joined(looked)

    def _drawn(self, like: Float[Tensor, "b C h w"], progress: float) -> Drawn:
        """All chance of a step's views that their latents decide the shape of."""
        config, chance = self.config, self.chance
        shape = (config.views, *like.shape[1:])
        return Drawn(
            noise=torch.randn(shape, generator=chance["noise"]).to(like),
            t=view_sampling.times(config, self.prior, progress, chance["times"]).to(like),
            second=torch.randn(shape, generator=chance["spare"]).to(like),
            uniform=torch.rand(config.views, generator=chance["spare"]).to(like),
        )

    def _view(
        self,
        cameras: Cameras,
        behind: Float[Tensor, "B 3"],
        frame: Frame,
        x: Float[Tensor, "B C h w"],
        drawn: Drawn,
        progress: float,
    ) -> View:
        """What the objective is shown of a frame."""
        config, prior = self.config, self.prior
        source = None
        if self.source is not None:
            before = prior.encode(self.source.render(cameras, behind).rgb.permute(0, 3, 1, 2))
            source = Source(before, self.source_prompt.seen_from(prior, cameras.azimuth, cameras.elevation).text)
        return View(
            x,
            noise=drawn.noise,
            t=drawn.t,
            wanted=self.prompt.seen_from(prior, cameras.azimuth, cameras.elevation),
            second=drawn.second,
            uniform=drawn.uniform,
            progress=progress,
            lowest=config.times.lowest(progress),
            source=source,
            regions=regions(config.parts, self.prompt, prior, cameras, frame, x) if config.parts else None,
        )

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on bit for bit."""
        tensors = {f"beside.{name}": value for name, value in self.beside.state().items()}
        for place, particle in enumerate(self.particles):
            scene, adam = numbered("scene", place), numbered("adam", place)
            tensors |= {f"{scene}.{name}": value for name, value in particle.scene.state().items()}
            tensors |= {f"{adam}.{name}": value for name, value in adam_state(particle.optimiser).items()}
        tensors |= {f"chance.{name}": rng.get_state() for name, rng in self.chance.items()}
        if self.placement is not None:
            tensors["placement"] = torch.tensor([*self.placement.middle, self.placement.scale], dtype=torch.float64)
        return tensors | {"done": torch.tensor(self.done)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is not of such a run."""
        if "done" not in state or (part(state, "chance").keys() ^ self.chance.keys()) - _LATER:
            raise ValueError("the checkpoint is not one of a run")
        self.done = int(state["done"])
        self.placement = placement_of(state)
        for place, particle in enumerate(self.particles):
            particle.scene.restore(part(state, numbered("scene", place)))
            self.particles[place] = Particle.of(particle.scene, self.done / self.config.steps)
            restore_adam(self.particles[place].optimiser, part(state, numbered("adam", place)))
        self.beside.restore(part(state, "beside"))
        # Last: what the companions are made of anew draws chance.
        for name, value in part(state, "chance").items():
            self.chance[name].set_state(value)

    @property
    def result(self) -> Result:
        first, *others = (particle.scene for particle in self.particles)
        return Result(first, self.config, self.done, tuple(others), self.placement)


def started(config: RunConfig, device: torch.device, rng: torch.Generator, model: Loaded | None) -> TrainableScene:
    """A scene as it is before the first step, from a model where there is one."""
    if model is not None and isinstance(config.scene, Solid):
        return config.scene.of(model.mesh, device, rng)
    return config.scene.build(device, rng)


def pulled(x: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient with respect to x is `gradient`, summed within a view and averaged over views."""
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().sum() / len(x)


def bounded(rgb: Float[Tensor, "B H W 3"], limits: Limits, count: int) -> Float[Tensor, "B H W 3"]:
    """The same pictures, whose gradients on the way back are bounded; the share that each has in the mean over all
    `count` views is none of the bound's business.
    """
    if limits.pixel is None or not rgb.requires_grad:
        return rgb
    seen = rgb.view_as(rgb)
    seen.register_hook(lambda gradient: limits.of_picture(gradient * count) / count)
    return seen
