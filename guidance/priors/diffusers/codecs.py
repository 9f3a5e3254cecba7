"""Pictures to latents and back, with gradient. Shapes: B pictures of H x W pixels, C x h x w latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guidance.priors.diffusers.gradient_scaling import with_scaled_gradient
from guidance.priors.diffusers.offload import on_device

GRAPH_BUDGET = 2 << 30
"""Bytes of a GPU that the way back through an encoder may keep; above them one picture is there at a time."""
_KEPT = 7
"""Tensors that a residual block keeps: inputs of two norms, two activations and two convolutions, and its output."""
LATENT_OUTPUT = {"AutoencoderKL": "latent_dist", "AutoencoderTiny": "latents", "AutoencoderDC": "latent"}
"""Classes of autoencoders that are read, and what each answers."""


@runtime_checkable
class Codec(Protocol):
    """Pictures are in 0..1; latents are float32 of about unit variance."""

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]: ...

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]: ...


@dataclass(frozen=True)
class PixelCodec:
    """For models of pixels: latents are the pictures in -1..1."""

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return rgb * 2 - 1

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return (latents + 1) / 2


@dataclass(frozen=True)
class VAECodec:
    """A model's autoencoder; what it encodes is the mean of its posterior, so that the same picture is the same
    latent."""

    vae: Any
    latent_attr: str
    """What it answers: `latent_dist`, a distribution, or the latents themselves, as `latents` or `latent`."""
    scaling_factor: float | Float[Tensor, "1 C 1 1"]
    shift_factor: float | Float[Tensor, "1 C 1 1"]
    """Latents are (what it says - shift) * scale; one number, or one for each channel."""
    execution_device: torch.device | None = None
    """Where it works, if it does not lie there (see `on_device`)."""
    checkpoint_per_image: bool = False
    """Whether it takes one picture at a time and, on the way back, looks at each once more: what it thought in between
    is never there for more than one."""

    @staticmethod
    def from_vae(vae: Any, whitened: bool = False) -> VAECodec:
        """With the scale and shift of its own configuration.

        `whitened`: channels may have a mean and a spread of their own (`latents_mean`, `latents_std`); of diffusers'
        pipelines those of Stable Diffusion XL go by them. Raises ValueError where they are no such numbers.
        """
        latent_attr = LATENT_OUTPUT[type(vae).__name__]
        scale, shift = float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0)
        means, stds = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if not whitened or (means is None and stds is None):
            return VAECodec(vae, latent_attr, scale, shift)
        for name, values in (("latents_mean", means), ("latents_std", stds)):
            valid = isinstance(values, list | tuple) and len(values) == vae.config.latent_channels
            if not valid or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
                raise ValueError(f"its autoencoder's {name} is {values}; expected a number for each channel")
        if min(stds) <= 0:
            raise ValueError(f"its autoencoder's latents_std is {stds}; expected numbers above 0")
        # As diffusers' StableDiffusionXLPipeline decodes Playground v2.5: latents * std / scaling_factor + mean.
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (means, stds))
        return VAECodec(vae, latent_attr, scale / std, mean)

    @property
    def downsample_factor(self) -> int:
        """Pixels along a side of one latent."""
        name = "encoder_block_out_channels" if self.latent_attr == "latent" else "block_out_channels"
        return int(2 ** (len(self.vae.config[name]) - 1))

    @property
    def channels(self) -> int:
        """Numbers in one latent."""
        return int(self.vae.config.latent_channels)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        if rgb.shape[-1] % self.downsample_factor or rgb.shape[-2] % self.downsample_factor:
            height, width = rgb.shape[-2:]
            raise ValueError(
                f"pictures are {width} x {height}; this model takes multiples of {self.downsample_factor} pixels"
            )
        encoded = self._encode
        if self.vae.dtype == torch.float16 and rgb.requires_grad:
            encoded = partial(with_scaled_gradient, self._encode)
        if not (self.checkpoint_per_image or self._is_large(rgb)):
            return encoded(rgb)
        return torch.cat([checkpoint(encoded, image, use_reentrant=False) for image in rgb.split(1)])

    def graph_bytes(self, rgb: Float[Tensor, "B 3 H W"]) -> int:
        """About what autograd keeps of these pictures for the way back, from the sizes of the layers."""
        if self.latent_attr != "latent_dist":
            return 0  # Small ones, and ones whose layers are of other kinds.
        config = self.vae.config
        widths = sum(width / 4**level for level, width in enumerate(config.block_out_channels))
        numbers = _KEPT * config.layers_per_block * widths * rgb.shape[0] * rgb.shape[-1] * rgb.shape[-2]
        return int(numbers * torch.finfo(self.vae.dtype).bits // 8)

    def _is_large(self, rgb: Float[Tensor, "B 3 H W"]) -> bool:
        """Whether a GPU should see one picture at a time, twice, as with `sparing`: more time, and less memory."""
        return rgb.requires_grad and rgb.device.type == "cuda" and self.graph_bytes(rgb) > GRAPH_BUDGET

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        if not self.checkpoint_per_image:
            return self._decode(latents)
        return torch.cat([checkpoint(self._decode, latent, use_reentrant=False) for latent in latents.split(1)])

    def _encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        with on_device(self.vae, self.execution_device):
            output = self.vae.encode((rgb * 2 - 1).to(self.vae.dtype))
            mean: Tensor = output.latent_dist.mode() if self.latent_attr == "latent_dist" else output[self.latent_attr]
        latents = mean.to(_at_least_float32(rgb))
        return (latents - _to_like(self.shift_factor, latents)) * _to_like(self.scaling_factor, latents)

    def _decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        with on_device(self.vae, self.execution_device):
            inputs = latents / _to_like(self.scaling_factor, latents) + _to_like(self.shift_factor, latents)
            rgb: Tensor = self.vae.decode(inputs.to(self.vae.dtype), return_dict=False)[0]
        return (rgb.to(_at_least_float32(latents)) + 1) / 2


def _to_like(value: float | Tensor, latents: Tensor) -> float | Tensor:
    return value.to(latents) if isinstance(value, Tensor) else value


def _at_least_float32(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
