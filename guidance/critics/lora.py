"""A trainable companion of the prior: it learns what the renders look like, and answers as the prior would for them.

It is the prior's own network with low-rank additions to its layers (LoRA, Hu et al. 2021), which start as nothing, so
that its first answers are the prior's. It is told the text and always the camera.
Shapes: B views, C x h x w latents, K conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from guidance.priors.base import Condition, Denoiser, noised, per_view, together


@dataclass(frozen=True)
class Twin:
    """A denoiser around a network of its own, which starts as a copy of a prior's."""

    denoiser: Denoiser
    """Answers under grad; told a text and a camera, or no camera."""
    network: nn.Module
    """Its network. Parameters that require grad are new, such as those that read a camera, and learn as a whole."""
    layers: tuple[str, ...]
    """Names of the layers of `network`, or endings of names, that get additions: linear ones and convolutions."""


@runtime_checkable
class Trainable(Denoiser, Protocol):
    """A prior that a critic can be made of."""

    def twin(self) -> Twin:
        """A copy with nothing in common that learning would change."""
        ...


@dataclass(frozen=True)
class LoRA:
    """Knobs of what learns beside the scene, where the objective needs it."""

    rank: int = 8
    """Rank of the additions to each layer."""
    rate: float = 1e-3
    """AdamW's rate. ProlificDreamer used 1e-4 over 25000 steps."""
    camera_dropout: float = 0.1
    """Share of the views, 0..1, for which the critic learns without the camera."""
    steps: int = 1
    """Steps of the critic for one of the scene."""
    samples: int = 32
    """Pictures drawn by the prior before the first step, where renders have to be told from them."""
    stages: int = 4
    """Stages of the prior that are kept on its way to the first renders, where an objective goes that way back."""
    stage_steps: int = 25
    """Steps of the critic from one of them to the next."""

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "samples", "stages", "stage_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate}; expected a number between 0 and 1, such as 0.001")
        if not 0 <= self.camera_dropout <= 1:
            raise ValueError(f"camera_dropout is {self.camera_dropout}; expected a share from 0 to 1")

    def build(self, prior: Trainable, rng: torch.Generator) -> Critic:
        """A critic that agrees with the prior; `rng` also draws all chance that it needs later.

        Raises:
            ImportError: peft is not installed.
        """
        return Critic(self, Adapted(prior, self.rank, rng), rng)


class Adapted:
    """A `Denoiser`: a prior with additions to the layers of its network, which say nothing until they are changed."""

    def __init__(self, prior: Trainable, rank: int, rng: torch.Generator) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ImportError(f'a critic needs peft ({error}); install it with: pip install "sds3d[hub]"') from error
        twin = prior.twin()
        whole = {name for name, parameter in twin.network.named_parameters() if parameter.requires_grad}
        with seeded(rng):
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(twin.layers)), twin.network)
        self.network, self._denoiser = twin.network, twin.denoiser
        # peft wraps a layer: what was `conv.weight` is `conv.base_layer.weight` now.
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_("lora_" in name or name.replace(".base_layer", "") in whole)
            if parameter.requires_grad:
                # Small steps vanish in half precision, whatever the network itself is in.
                parameter.data = parameter.data.float()

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self._denoiser.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self._denoiser.predict(x_t, t, conditions)

    @property
    def together(self) -> int:
        """Views that have to be shown at once."""
        return together(self._denoiser)

    def trained(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Copies of what learns, for `load`."""
        return {name: parameter.detach().clone() for name, parameter in self.trained().items()}

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes over what `weights` gave. Raises ValueError if it is of another network or rank."""
        mine = self.trained()
        if {n: w.shape for n, w in weights.items()} != {n: p.shape for n, p in mine.items()}:
            raise ValueError("the saved critic does not fit this prior and rank")
        for name, parameter in mine.items():
            parameter.copy_(weights[name])


class Critic:
    """A `Denoiser` that learns; make it with `LoRA.build`. No classifier-free guidance belongs on its answers."""

    def __init__(self, knobs: LoRA, adapted: Adapted, rng: torch.Generator) -> None:
        self.knobs, self.adapted, self.rng = knobs, adapted, rng
        self._trained = adapted.trained()
        self._optimiser = torch.optim.AdamW(self._trained.values(), lr=knobs.rate, betas=(0.9, 0.99), fused=True)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.adapted.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.adapted.predict(x_t, t, conditions)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "B C h w"], condition: Condition, parts: int = 1) -> float:
        """Learns from clean latents of renders, in `parts` one after another for small memories; returns the mean
        square error of its velocity before the last step."""
        x, error, many = x.detach(), x.new_zeros(len(x)), self.adapted.together
        size = -(-(len(x) // many) // parts) * many
        for _ in range(self.knobs.steps):
            noise = torch.randn(x.shape, generator=self.rng).to(x)
            t = spread_times(len(x) // many, self.rng).repeat_interleave(many).to(x)
            shown = torch.rand(len(x) // many, generator=self.rng) >= self.knobs.camera_dropout
            shown = shown.repeat_interleave(many).to(x.device)
            self._optimiser.zero_grad(set_to_none=True)
            errors = []
            for rows in torch.arange(len(x), device=x.device).split(size):
                wrong = self.error(x[rows], noise[rows], t[rows], condition.rows(rows), shown[rows])
                # The sum over a latent: gradients of its mean would vanish in half precision; AdamW sees no difference.
                (wrong.mean() * x[0].numel() * (len(rows) / len(x))).backward()
                errors.append(wrong.detach())
            self._optimiser.step()
            error = torch.cat(errors)
        return float(error.mean())

    def error(
        self,
        x: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
        shown: Bool[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """Mean square error of the velocity in each view, where the camera is known if `shown`.

        In velocity no time outweighs the others, and it is what the embedded prior's network says itself. With
        v = alpha * noise - sigma * x, and with v = noise - x where alpha + sigma = 1, the error of the noise is alpha
        times that of v.
        """
        alpha, sigma = self.levels(t)
        x_t, wrong = noised(x, noise, alpha, sigma), torch.empty_like(x)
        for views, told in ((shown, condition), (~shown, replace(condition, camera=None))):
            rows = views.nonzero()[:, 0]
            if len(rows):
                answer = self.predict(x_t[rows], t[rows], [told.rows(rows)])[0]
                wrong[rows] = (answer - noise[rows]) / per_view(alpha[rows]).clamp_min(1e-3)
        return wrong.square().flatten(1).mean(1)

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on bit for bit, but for the generator."""
        return {f"weights.{name}": value for name, value in self.adapted.weights().items()} | {
            f"adam.{name}": value for name, value in moments(self._optimiser, self._trained).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of another critic."""
        self.adapted.load(part(state, "weights"))
        restore_moments(self._optimiser, self._trained, part(state, "adam"))


def moments(optimiser: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of what Adam remembers of parameters, for `restore_moments`."""
    return {
        f"{key}.{name}": value.clone()
        for name, parameter in named.items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_moments(optimiser: torch.optim.Optimizer, named: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
    """Takes over what `moments` gave; nothing of a parameter means that it was never stepped."""
    optimiser.state.clear()
    for key, value in state.items():
        kind, name = key.split(".", 1)
        optimiser.state[named[name]][kind] = value.to(named[name].device, copy=True)


def spread_times(count: int, rng: torch.Generator) -> Float[Tensor, " B"]:
    """Noise times over the whole schedule, one in each of `count` equal parts, in random order."""
    return (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count


@contextmanager
def seeded(rng: torch.Generator) -> Iterator[None]:
    """Inside, torch's own chance comes from `rng`; outside, it is as it was. For layers, which start by that chance."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=rng)))
        yield


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of a state that start with a name and a dot, without it."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(name + ".")}
