"""A trainable companion of the prior: it learns what the renders look like, and answers as the prior would for them.

It is the prior's own network with low-rank additions to its layers (LoRA, Hu et al. 2021), which start as nothing, so
that its first answers are the prior's. It is told the text and always the camera.
Shapes: B views, C x h x w latents, K conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from guidance.priors.base import Condition, SupportsLoRA, add_noise, expand_like_latents, views_per_group


@dataclass(frozen=True)
class CriticConfig:
    """Knobs of what learns beside the scene, where the objective needs it."""

    rank: int = 8
    """Rank of the additions to each layer."""
    lr: float = 1e-3
    """AdamW's rate. ProlificDreamer used 1e-4 over 25000 steps."""
    camera_dropout: float = 0.1
    """Share of the views, 0..1, for which the critic learns without the camera."""
    steps_per_update: int = 1
    """Steps of the critic for one of the scene."""
    num_prior_samples: int = 32
    """Pictures drawn by the prior before the first step, where renders have to be told from them."""
    num_stages: int = 4
    """Stages of the prior that are kept on its way to the first renders, where an objective goes that way back."""
    stage_steps: int = 25
    """Steps of the critic from one of them to the next."""

    def __post_init__(self) -> None:
        for name in ("rank", "steps_per_update", "num_prior_samples", "num_stages", "stage_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.lr < 1:
            raise ValueError(f"lr is {self.lr}; expected a number between 0 and 1, such as 0.001")
        if not 0 <= self.camera_dropout <= 1:
            raise ValueError(f"camera_dropout is {self.camera_dropout}; expected a share from 0 to 1")

    def build(self, prior: SupportsLoRA, rng: torch.Generator) -> Critic:
        """A critic that agrees with the prior; `rng` also draws all chance that it needs later.

        Raises:
            ImportError: peft is not installed.
        """
        return Critic(self, LoRADenoiser(prior, self.rank, rng), rng)


class LoRADenoiser:
    """A `Denoiser`: a prior with additions to the layers of its network, which say nothing until they are changed."""

    def __init__(self, prior: SupportsLoRA, rank: int, rng: torch.Generator) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ImportError(f'a critic needs peft ({error}); install it with: pip install "sds3d[hub]"') from error
        target = prior.lora_target()
        fully_trained = {name for name, parameter in target.network.named_parameters() if parameter.requires_grad}
        with fork_rng_from(rng):
            inject_adapter_in_model(
                LoraConfig(r=rank, lora_alpha=rank, target_modules=list(target.target_modules)), target.network
            )
        self.network, self._denoiser = target.network, target.denoiser
        # peft wraps a layer: what was `conv.weight` is `conv.base_layer.weight` now.
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_("lora_" in name or name.replace(".base_layer", "") in fully_trained)
            if parameter.requires_grad:
                # Small steps vanish in half precision, whatever the network itself is in.
                parameter.data = parameter.data.float()

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self._denoiser.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self._denoiser.predict_noise(x_t, t, conditions)

    @property
    def views_per_group(self) -> int:
        """Views that have to be shown at once."""
        return views_per_group(self._denoiser)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def lora_state(self) -> dict[str, Tensor]:
        """Copies of what learns, for `load`."""
        return {name: parameter.detach().clone() for name, parameter in self.trainable_parameters().items()}

    @torch.no_grad()
    def load_lora_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of another network or rank."""
        own = self.trainable_parameters()
        if {n: w.shape for n, w in state.items()} != {n: p.shape for n, p in own.items()}:
            raise ValueError("the saved critic does not fit this prior and rank")
        for name, parameter in own.items():
            parameter.copy_(state[name])


class Critic:
    """A `Denoiser` that learns; make it with `LoRA.build`. No classifier-free guidance belongs on its answers."""

    def __init__(self, config: CriticConfig, denoiser: LoRADenoiser, rng: torch.Generator) -> None:
        self.config, self.denoiser, self.rng = config, denoiser, rng
        self._trainable = denoiser.trainable_parameters()
        self._optimizer = torch.optim.AdamW(self._trainable.values(), lr=config.lr, betas=(0.9, 0.99), fused=True)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.denoiser.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.denoiser.predict_noise(x_t, t, conditions)

    @torch.enable_grad()
    def train_step(self, latents: Float[Tensor, "B C h w"], condition: Condition, num_chunks: int = 1) -> float:
        """Learns from clean latents of renders, in `num_chunks` one after another for small memories; returns the mean
        square error of its velocity before the last step."""
        latents, loss, group_size = latents.detach(), latents.new_zeros(len(latents)), self.denoiser.views_per_group
        chunk_size = -(-(len(latents) // group_size) // num_chunks) * group_size
        for _ in range(self.config.steps_per_update):
            noise = torch.randn(latents.shape, generator=self.rng).to(latents)
            t = stratified_timesteps(len(latents) // group_size, self.rng).repeat_interleave(group_size).to(latents)
            camera_mask = torch.rand(len(latents) // group_size, generator=self.rng) >= self.config.camera_dropout
            camera_mask = camera_mask.repeat_interleave(group_size).to(latents.device)
            self._optimizer.zero_grad(set_to_none=True)
            chunk_losses = []
            for rows in torch.arange(len(latents), device=latents.device).split(chunk_size):
                chunk_loss = self.per_view_loss(
                    latents[rows], noise[rows], t[rows], condition.select(rows), camera_mask[rows]
                )
                # The sum over a latent: gradients of its mean would vanish in half precision; AdamW sees no difference.
                (chunk_loss.mean() * latents[0].numel() * (len(rows) / len(latents))).backward()
                chunk_losses.append(chunk_loss.detach())
            self._optimizer.step()
            loss = torch.cat(chunk_losses)
        return float(loss.mean())

    def per_view_loss(
        self,
        latents: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
        camera_mask: Bool[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """Mean square error of the velocity in each view, where the camera is known if `camera_mask`.

        In velocity no time outweighs the others, and it is what the embedded prior's network says itself. With
        v = alpha * noise - sigma * x, and with v = noise - x where alpha + sigma = 1, the error of the noise is alpha
        times that of v.
        """
        alpha, sigma = self.alpha_sigma(t)
        x_t, velocity_error = add_noise(latents, noise, alpha, sigma), torch.empty_like(latents)
        for mask, masked_condition in ((camera_mask, condition), (~camera_mask, replace(condition, camera=None))):
            rows = mask.nonzero()[:, 0]
            if len(rows):
                noise_pred = self.predict_noise(x_t[rows], t[rows], [masked_condition.select(rows)])[0]
                velocity_error[rows] = (noise_pred - noise[rows]) / expand_like_latents(alpha[rows]).clamp_min(1e-3)
        return velocity_error.square().flatten(1).mean(1)

    def training_state(self) -> dict[str, Tensor]:
        """All that `load_training_state` needs to go on bit for bit, but for the generator."""
        return {f"weights.{name}": value for name, value in self.denoiser.lora_state().items()} | {
            f"adam.{name}": value for name, value in optimizer_state(self._optimizer, self._trainable).items()
        }

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of another critic."""
        self.denoiser.load_lora_state(strip_prefix(state, "weights"))
        load_optimizer_state(self._optimizer, self._trainable, strip_prefix(state, "adam"))


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of what Adam remembers of parameters, for `load_optimizer_state`."""
    return {
        f"{key}.{name}": value.clone()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]
) -> None:
    """Takes over what `moments` gave; nothing of a parameter means that it was never stepped."""
    optimizer.state.clear()
    for key, value in state.items():
        kind, name = key.split(".", 1)
        optimizer.state[parameters[name]][kind] = value.to(parameters[name].device, copy=True)


def stratified_timesteps(count: int, rng: torch.Generator) -> Float[Tensor, " B"]:
    """Noise times over the whole schedule, one in each of `count` equal parts, in random order."""
    return (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count


@contextmanager
def fork_rng_from(rng: torch.Generator) -> Iterator[None]:
    """Inside, torch's own chance comes from `rng`; outside, it is as it was. For layers, which start by that chance."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=rng)))
        yield


def strip_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state that start with a name and a dot, without it."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(prefix + ".")}
