"""The loop: look at the scene, ask the prior, move the scene."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from configs.run import RunConfig
from guidance.objective import View
from guidance.prior import Prior, generator
from guidance.prompt import Prompt
from renderers.orbit import backdrops
from renderers.rows import adam_state, restore_adam
from renderers.scene import Frame
from renderers.splats import SplatScene


class Unhealthy(RuntimeError):
    """The scene went wrong beyond repair; the message says how."""


@dataclass(frozen=True)
class Step:
    """What one step of a run did."""

    number: int
    """Steps that are done, this one included."""
    gradient: float
    """Root mean square of the objective's gradient; there is no loss worth looking at."""
    seconds: float
    prior_seconds: float
    """Of them, in the prior: encoding, its answers, and the way back through the encoding."""
    splats: int
    frame: Frame


@dataclass(frozen=True)
class Result:
    """What a run has made so far: all that meshes and files are made of."""

    scene: SplatScene
    config: RunConfig
    done: int
    """Steps behind it."""

    @staticmethod
    def of(state: dict[str, Tensor], config: RunConfig) -> Result:
        """The result in a checkpoint, without the prior. Raises ValueError if it is not one of such a run."""
        if "done" not in state:
            raise ValueError("the checkpoint is not one of a run")
        scene = config.scene.build("cpu", generator(0))
        scene.restore(part(state, "scene"))
        return Result(scene, config, int(state["done"]))


class Run:
    """One run of score distillation, resumable at any step."""

    def __init__(self, config: RunConfig, prior: Prior, device: torch.device) -> None:
        self.config, self.prior, self.device = config, prior, device
        self.prompt = Prompt(config.prompt, config.negative)
        # One stream of chance for each component: changing how one draws leaves the others as they were.
        self.chance = {
            name: generator(config.seed * 8 + place)
            for place, name in enumerate(("cameras", "backdrops", "noise", "times", "spare"))
        }
        self.scene: SplatScene = config.scene.build(device, generator(config.seed * 8 + 7))
        self.done = 0
        self.optimiser = self._adam()

    def steps(self) -> Iterator[Step]:
        """Runs to the end, one step at a time. Raises Unhealthy."""
        while self.done < self.config.steps:
            yield self._step()

    def _step(self) -> Step:
        began = time.perf_counter()
        config, prior, scene, chance = self.config, self.prior, self.scene, self.chance
        progress = self.done / config.steps

        cameras = config.orbit.draw(config.views, prior.picture_size, chance["cameras"]).to(self.device)
        frame = scene.render(cameras, backdrops(config.views, chance["backdrops"]).to(self.device))
        asked = time.perf_counter()
        x = prior.encode(frame.rgb.permute(0, 3, 1, 2))
        with torch.no_grad():
            wanted = self.prompt.seen_from(prior, cameras.azimuth, cameras.elevation)
            t = config.times.draw(config.views, progress, chance["times"]).to(x)
            noise = torch.randn(x.shape, generator=chance["noise"]).to(x)
            second = torch.randn(x.shape, generator=chance["spare"]).to(x)
            uniform = torch.rand(config.views, generator=chance["spare"]).to(x)
            lowest = config.times.lowest(progress)
            view = View(x.detach(), noise, t, wanted, second, uniform, progress, lowest)
            update = config.objective(prior, prior, view)
            # Half precision overflows now and then: such values pull nowhere.
            gradient = torch.nan_to_num(update.gradient, nan=0.0, posinf=0.0, neginf=0.0)
        answered = time.perf_counter()
        loss = pulled(x, gradient) + scene.penalty(frame)

        for group, now in zip(self.optimiser.param_groups, scene.groups(progress), strict=True):
            group["lr"] = now["lr"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        scene.settle(progress, frame, self.optimiser)
        self.done += 1
        if trouble := scene.healthy():
            raise Unhealthy(f"step {self.done}: {trouble}")
        strength = float(gradient.square().mean().sqrt())
        return Step(self.done, strength, time.perf_counter() - began, answered - asked, len(scene), frame)

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on bit for bit."""
        tensors = {f"scene.{name}": value for name, value in self.scene.state().items()}
        tensors |= {f"adam.{name}": value for name, value in adam_state(self.optimiser).items()}
        tensors |= {f"chance.{name}": rng.get_state() for name, rng in self.chance.items()}
        return tensors | {"done": torch.tensor(self.done)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is not of such a run."""
        if "done" not in state or part(state, "chance").keys() != self.chance.keys():
            raise ValueError("the checkpoint is not one of a run")
        self.scene.restore(part(state, "scene"))
        for name, value in part(state, "chance").items():
            self.chance[name].set_state(value)
        self.done = int(state["done"])
        self.optimiser = self._adam()
        restore_adam(self.optimiser, part(state, "adam"))

    @property
    def result(self) -> Result:
        return Result(self.scene, self.config, self.done)

    def _adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.scene.groups(self.done / self.config.steps), betas=(0.9, 0.99), fused=True)


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of a state that start with a name and a dot, without it."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(name + ".")}


def pulled(x: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient with respect to x is `gradient`, summed within a view and averaged over views."""
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().sum() / len(x)
