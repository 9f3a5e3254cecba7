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
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What a batch of pictures should show: text tokens, a pooled text, and where the camera stands."""

    tokens: Float[Tensor, "B L D"]
    mask: Bool[Tensor, "B L"]
    """True where a token is present."""
    camera: Float[Tensor, "B 2"] | None
    """Azimuth and elevation in radians for priors that take them; None drops the camera."""
    image: Float[Tensor, "B N E"] | None = None
    """Tokens of a picture that shows what is wanted, for priors that see pictures."""
    against: tuple[Against, ...] = ()
    """What it should be told apart from; only `guidance.conditioning.perp_neg` reads it."""
    pooled: Float[Tensor, "B P"] | None = None
    """The text as one row of numbers, for networks that want that beside its tokens."""

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def rows(self, index: Int[Tensor, " N"]) -> Condition:
        """The conditions of these pictures alone."""
        return Condition(
            self.tokens[index],
            self.mask[index],
            None if self.camera is None else self.camera[index],
            None if self.image is None else self.image[index],
            tuple(Against(other.condition.rows(index), other.weight[index]) for other in self.against),
            None if self.pooled is None else self.pooled[index],
        )


def chained(conditions: Sequence[Condition]) -> Condition:
    """Conditions of the same kind one after another; what they keep away from is left out."""

    def joined(name: str) -> Tensor | None:
        rows = [getattr(condition, name) for condition in conditions]
        return None if any(row is None for row in rows) else torch.cat(rows)

    tokens, mask = (torch.cat([getattr(condition, name) for condition in conditions]) for name in ("tokens", "mask"))
    return Condition(tokens, mask, joined("camera"), joined("image"), pooled=joined("pooled"))


@dataclass(frozen=True)
class Against:
    """A condition to keep away from, and how strongly."""

    condition: Condition
    weight: Float[Tensor, " B"]
    """Not above 0; 0 where a picture need not keep away."""


@runtime_checkable
class Denoiser(Protocol):
    """A role that the frozen prior and a trainable critic both play."""

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) of x_t = alpha * x + sigma * noise at fraction `t` of the schedule."""
        ...

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        """The noise in `x_t` under each of K conditions, in one pass of the network."""
        ...


@runtime_checkable
class Prior(Denoiser, Protocol):
    """A pretrained text-to-image model."""

    @property
    def picture_size(self) -> int:
        """Height and width, in pixels, of the pictures the model was trained on."""
        ...

    @property
    def sees_camera(self) -> bool:
        """Whether the model takes the camera as a condition (then words for the view are not needed)."""
        ...

    def read(self, texts: list[str]) -> Condition:
        """Texts as a condition without a camera. Raises ValueError for text the model cannot take."""
        ...

    def check(self, text: str) -> str | None:
        """A remark about what of a text will be passed over, or None. Raises ValueError for text it cannot take."""
        ...

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Pictures in 0..1 to latents, differentiable."""
        ...

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Latents to pictures in 0..1 (not clamped), differentiable."""
        ...


@runtime_checkable
class Joint(Prior, Protocol):
    """A prior that sees several views of one object at once, and is told every one's camera under every condition."""

    @property
    def together(self) -> int:
        """Views in a group. A batch holds whole groups, one after another, each at one noise time."""
        ...


def together(denoiser: Denoiser) -> int:
    """Views that a denoiser has to be shown at once, as `Joint` says; 1 for one that sees each alone."""
    return int(getattr(denoiser, "together", 1))


@runtime_checkable
class Seeing(Prior, Protocol):
    """A prior that can be shown what is wanted, by an image encoder and attention of its own (IP-Adapter)."""

    def look(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        """Tokens of a picture in 0..1, for `Condition.image`."""
        ...


def per_view(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
    """A number per view, shaped to multiply latents."""
    return values[:, None, None, None]


def noised(
    x: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """x_t = alpha * x + sigma * noise."""
    return per_view(alpha) * x + per_view(sigma) * noise


def cleaned(
    x_t: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> Float[Tensor, "B C h w"]:
    """The clean latent that a noise answer implies: x = (x_t - sigma * noise) / alpha."""
    return (x_t - per_view(sigma) * noise) / per_view(alpha)


def noise_from_velocity(
    x_t: Float[Tensor, "B C h w"], v: Float[Tensor, "B C h w"], alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """v = alpha * noise - sigma * x implies noise = sigma * x_t + alpha * v (Salimans & Ho 2022, appendix D)."""
    return per_view(sigma) * x_t + per_view(alpha) * v


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one component of a run."""
    return torch.Generator(device=device).manual_seed(seed)
