"""A picture that shows what is wanted, as tokens for networks that see pictures.

Shapes: a picture of H x W pixels in 0..1, N tokens of E numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from guidance.priors.diffusers.codecs import Codec

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pictures, red, green and blue (Radford et al. 2021, its code)."""
_HEAD_DIM = 64
"""Numbers in a head of `Resampler`."""


@runtime_checkable
class ImagePromptEncoder(Protocol):
    """How a family sees a picture."""

    def encode(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        """Its tokens."""
        ...

    def null_tokens(self) -> Float[Tensor, "1 N E"]:
        """The tokens of no picture."""
        ...


@dataclass(frozen=True)
class IPAdapterEncoder:
    """IP-Adapter (Ye et al. 2023): what CLIP says of the picture; the adapter's own layers are in the network."""

    encoder: Any
    """CLIP's network for pictures."""
    uses_patch_tokens: bool
    """Whether the adapter reads its last layer but one, patch by patch, and not the one embedding of the whole."""

    def encode(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        return self._embed(clip_preprocess(rgb, self.encoder))

    def null_tokens(self) -> Float[Tensor, "1 N E"]:
        size = self.encoder.config.image_size
        zeros = torch.zeros(1, 3, size, size, device=self.encoder.device, dtype=self.encoder.dtype)
        tokens = self._embed(zeros)
        return tokens if self.uses_patch_tokens else torch.zeros_like(tokens)

    @torch.no_grad()
    def _embed(self, pixels: Float[Tensor, "1 3 S S"]) -> Float[Tensor, "1 N E"]:
        if self.uses_patch_tokens:
            return patch_tokens(self.encoder, pixels).float()
        image_embeds: Tensor = self.encoder(pixels).image_embeds
        return image_embeds[:, None].float()


@dataclass(frozen=True)
class ImageDreamEncoder:
    """ImageDream: tokens that a resampler makes of CLIP's patches, and the latents of the picture as rows behind."""

    encoder: Any
    resampler: Resampler
    codec: Codec
    size: int
    """Height and width at which the network is shown the picture, pixels."""
    device: torch.device
    """Where the codec works."""

    @torch.no_grad()
    def encode(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        patches = patch_tokens(self.encoder, clip_preprocess(rgb, self.encoder))
        image = center_crop_resize(rgb, self.size).to(self.device)
        return self._append_latents(patches, self.codec.encode(image))

    @torch.no_grad()
    def null_tokens(self) -> Float[Tensor, "1 N E"]:
        config = self.encoder.config
        pixels = torch.zeros(1, 3, config.image_size, config.image_size).to(self.encoder.device, self.encoder.dtype)
        image = torch.zeros(1, 3, self.size, self.size, device=self.device)
        return self._append_latents(torch.zeros_like(patch_tokens(self.encoder, pixels)), 0 * self.codec.encode(image))

    def _append_latents(
        self, patches: Float[Tensor, "1 P D"], latents: Float[Tensor, "1 C h w"]
    ) -> Float[Tensor, "1 N E"]:
        tokens = self.resampler(patches).float()
        flat = latents.float().flatten(1).to(tokens.device)
        rows = functional.pad(flat, (0, -flat.shape[1] % tokens.shape[-1])).unflatten(1, (-1, tokens.shape[-1]))
        return torch.cat([tokens, rows], 1)


class Resampler(nn.Module):
    """A few learnt queries that read many tokens, layer by layer (Alayrac et al. 2022, section 3.1.1)."""

    def __init__(self, in_features: int, width: int, queries: int, depth: int, heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, queries, width))
        self.proj_in, self.proj_out = nn.Linear(in_features, width), nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        layers = [nn.ModuleList([_PerceiverBlock(width, heads), _feed_forward(width)]) for _ in range(depth)]
        self.layers = nn.ModuleList(layers)

    @staticmethod
    def from_state_dict(tensors: dict[str, Tensor]) -> Resampler:
        """The one whose tensors these are. Raises ValueError where something is missing."""
        try:
            width, in_features = tensors["proj_in.weight"].shape
            depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
            heads = tensors["layers.0.0.to_q.weight"].shape[0] // _HEAD_DIM
            resampler = Resampler(in_features, width, tensors["latents"].shape[1], depth, heads)
            resampler.load_state_dict(tensors)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"its layers that read a picture do not fit ({str(error).splitlines()[0]})") from None
        return resampler

    def forward(self, tokens: Float[Tensor, "1 P G"]) -> Float[Tensor, "1 N E"]:
        projected: Tensor = self.proj_in(tokens.to(self.latents.dtype))
        latents: Tensor = self.latents
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            latents = latents + layer[0](projected, latents)
            latents = latents + layer[1](latents)
        output: Tensor = self.norm_out(self.proj_out(latents))
        return output


class _PerceiverBlock(nn.Module):
    """Attention of the queries to what is given and to themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * _HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * _HEAD_DIM, bias=False)
        self.to_out = nn.Linear(heads * _HEAD_DIM, width, bias=False)

    def forward(self, tokens: Float[Tensor, "1 P E"], latents: Float[Tensor, "1 N E"]) -> Float[Tensor, "1 N E"]:
        normed_latents = self.norm2(latents)
        key, value = self.to_kv(torch.cat([self.norm1(tokens), normed_latents], 1)).chunk(2, -1)
        rows = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(normed_latents), key, value)
        )
        output: Tensor = self.to_out(functional.scaled_dot_product_attention(*rows).transpose(1, 2).flatten(-2))
        return output


def _feed_forward(width: int) -> nn.Sequential:
    first, last = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
    return nn.Sequential(nn.LayerNorm(width), first, nn.GELU(), last)


def patch_tokens(encoder: Any, pixels: Float[Tensor, "1 3 S S"]) -> Float[Tensor, "1 P D"]:
    """What CLIP's last layer but one says of each patch, and of the whole first."""
    tokens: Tensor = encoder(pixels, output_hidden_states=True).hidden_states[-2]
    return tokens


def clip_preprocess(rgb: Float[Tensor, "1 3 H W"], encoder: Any) -> Float[Tensor, "1 3 S S"]:
    """The middle square of a picture as CLIP wants it."""
    square = center_crop_resize(rgb, encoder.config.image_size)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (_MEAN, _STD))
    return ((square - mean.to(square)) / std.to(square)).to(encoder.device, encoder.dtype)


def center_crop_resize(rgb: Float[Tensor, "1 3 H W"], size: int) -> Float[Tensor, "1 3 S S"]:
    """The middle square of a picture at another size."""
    height, width = rgb.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = rgb[..., top : top + side, left : left + side]
    return functional.interpolate(middle, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
