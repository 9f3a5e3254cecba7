"""What every diffusion model answers, whatever it was trained on.

Shapes: B views, C x h x w latent, L text tokens. `t` is a fraction of the schedule in 0..1 (0 clean, 1 noise),
so models with any number of steps look alike. A noised latent is x_t = alpha * x + sigma * noise, and the answer
of a network is always that noise: models trained to predict velocity or clean pictures are converted at their door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Condition:
    """What a batch of pictures should show: text tokens, a pooled text, and where the camera stands."""

    text_embeds: Float[Tensor, "B L D"]
    attention_mask: Bool[Tensor, "B L"]
    """True where a token is present."""
    camera: Float[Tensor, "B 2"] | None
    """Azimuth and elevation in radians for priors that take them; None drops the camera."""
    image_embeds: Float[Tensor, "B N E"] | None = None
    """Tokens of a picture that shows what is wanted, for priors that see pictures."""
    perp_negatives: tuple[WeightedNegative, ...] = ()
    """What it should be told apart from; only `guidance.conditioning.perp_neg` reads it."""
    pooled_embeds: Float[Tensor, "B P"] | None = None
    """The text as one row of numbers, for networks that want that beside its tokens."""

    def __len__(self) -> int:
        return self.text_embeds.shape[0]

    def select(self, index: Int[Tensor, " N"]) -> Condition:
        """The conditions of these pictures alone."""
        return Condition(
            self.text_embeds[index],
            self.attention_mask[index],
            None if self.camera is None else self.camera[index],
            None if self.image_embeds is None else self.image_embeds[index],
            tuple(
                WeightedNegative(other.condition.select(index), other.weight[index]) for other in self.perp_negatives
            ),
            None if self.pooled_embeds is None else self.pooled_embeds[index],
        )


def cat_conditions(conditions: Sequence[Condition]) -> Condition:
    """Conditions of the same kind one after another; what they keep away from is left out."""

    def joined(name: str) -> Tensor | None:
        rows = [getattr(condition, name) for condition in conditions]
        return None if any(row is None for row in rows) else torch.cat(rows)

    tokens, mask = (
        torch.cat([getattr(condition, name) for condition in conditions]) for name in ("text_embeds", "attention_mask")
    )
    return Condition(tokens, mask, joined("camera"), joined("image_embeds"), pooled_embeds=joined("pooled_embeds"))


@dataclass(frozen=True)
class WeightedNegative:
    """A condition to keep away from, and how strongly."""

    condition: Condition
    weight: Float[Tensor, " B"]
    """Not above 0; 0 where a picture need not keep away."""


@runtime_checkable
class Denoiser(Protocol):
    """A role that the frozen prior and a trainable critic both play."""

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) of x_t = alpha * x + sigma * noise at fraction `t` of the schedule."""
        ...

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        """The noise in `x_t` under each of K conditions, in one pass of the network."""
        ...


@runtime_checkable
class Prior(Denoiser, Protocol):
    """A pretrained text-to-image model."""

    @property
    def image_size(self) -> int:
        """Height and width, in pixels, of the pictures the model was trained on."""
        ...

    @property
    def camera_conditioned(self) -> bool:
        """Whether the model takes the camera as a condition (then words for the view are not needed)."""
        ...

    def encode_prompt(self, texts: list[str]) -> Condition:
        """Texts as a condition without a camera. Raises ValueError for text the model cannot take."""
        ...

    def validate_prompt(self, text: str) -> str | None:
        """A remark about what of a text will be passed over, or None. Raises ValueError for text it cannot take."""
        ...

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Pictures in 0..1 to latents, differentiable."""
        ...

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Latents to pictures in 0..1 (not clamped), differentiable."""
        ...


@runtime_checkable
class MultiViewPrior(Prior, Protocol):
    """A prior that sees several views of one object at once, and is told every one's camera under every condition."""

    @property
    def views_per_group(self) -> int:
        """Views in a group. A batch holds whole groups, one after another, each at one noise time."""
        ...


def views_per_group(denoiser: Denoiser) -> int:
    """Views that a denoiser has to be shown at once, as `MultiViewPrior` says; 1 for one that sees each alone."""
    return int(getattr(denoiser, "views_per_group", 1))


@runtime_checkable
class ImagePromptPrior(Prior, Protocol):
    """A prior that can be shown what is wanted, by an image encoder and attention of its own (IP-Adapter)."""

    def encode_image_prompt(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        """Tokens of a picture in 0..1, for `Condition.image`."""
        ...


def expand_like_latents(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
    """A number per view, shaped to multiply latents."""
    return values[:, None, None, None]


def add_noise(
    x: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """x_t = alpha * x + sigma * noise."""
    return expand_like_latents(alpha) * x + expand_like_latents(sigma) * noise


def predict_x0(
    x_t: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> Float[Tensor, "B C h w"]:
    """The clean latent that a noise answer implies: x = (x_t - sigma * noise) / alpha."""
    return (x_t - expand_like_latents(sigma) * noise) / expand_like_latents(alpha)


def noise_from_velocity(
    x_t: Float[Tensor, "B C h w"], v: Float[Tensor, "B C h w"], alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """v = alpha * noise - sigma * x implies noise = sigma * x_t + alpha * v (Salimans & Ho 2022, appendix D)."""
    return expand_like_latents(sigma) * x_t + expand_like_latents(alpha) * v


def make_rng(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one component of a run."""
    return torch.Generator(device=device).manual_seed(seed)


@dataclass(frozen=True)
class LoRATarget:
    """A denoiser around a network of its own, which starts as a copy of a prior's."""

    denoiser: Denoiser
    """Answers under grad; told a text and a camera, or no camera."""
    network: nn.Module
    """Its network. Parameters that require grad are new, such as those that read a camera, and learn as a whole."""
    target_modules: tuple[str, ...]
    """Names of the layers of `network`, or endings of names, that get additions: linear ones and convolutions."""


@runtime_checkable
class SupportsLoRA(Denoiser, Protocol):
    """A prior that a critic can be made of."""

    def lora_target(self) -> LoRATarget:
        """A copy with nothing in common that learning would change."""
        ...
