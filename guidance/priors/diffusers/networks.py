"""How the network of each family is asked: what it wants beside a noised latent, and in which units.

Shapes: N pictures in a pass, C x h x w latents, L tokens of D numbers, P numbers of a pooled text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guidance.priors.base import Condition

ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that low-rank additions go to (Hu et al. 2021, section 4.2)."""


@dataclass(frozen=True)
class NetworkInput:
    """What a network is asked in one pass, in its own precision."""

    x_t: Float[Tensor, "N C h w"]
    t: Float[Tensor, " N"]
    """Fraction of the schedule."""
    sigma: Float[Tensor, " N"]
    text: Condition
    camera: Float[Tensor, "N 5"]
    """As `camera.features`, or zeros where none is known."""


@runtime_checkable
class NetworkAdapter(Protocol):
    """The network of a family, and how it is asked; frozen dataclasses, so that a copy takes another network."""

    time_embedding_name: ClassVar[str]
    """Name of the part of the network that embeds the time."""
    lora_target_modules: ClassVar[tuple[str, ...]]
    """Endings of the names of layers that a critic adds to."""

    @property
    def views_per_group(self) -> int:
        """Views of one object that it has to be shown at once; 1 for a network that sees each alone."""
        ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def guidance_distilled(self) -> bool:
        """Whether guidance went into its weights, so that its answers must not be guided again."""
        ...

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        """What the network says, in its own words: noise, velocity, or a clean latent."""
        ...


@dataclass(frozen=True)
class UNet:
    """Stable Diffusion 1.x and 2.x, and DeepFloyd IF, whose answer comes with variances that are left out."""

    network: nn.Module
    num_train_timesteps: int
    """Of its schedule: it is told the time as a number from 0 to steps - 1."""
    embedded_guidance: float | None = None
    """What a latent-consistency model is told its guidance is; None for other models."""

    time_embedding_name: ClassVar[str] = "time_embedding"
    lora_target_modules: ClassVar[tuple[str, ...]] = (*ATTENTION_LAYERS, "add_k_proj", "add_v_proj")
    views_per_group: ClassVar[int] = 1

    @property
    def guidance_distilled(self) -> bool:
        return self.embedded_guidance is not None

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t = inputs.x_t
        guidance_embedding = None
        if self.embedded_guidance is not None:
            width: int = self.network.config.time_cond_proj_dim  # type: ignore[union-attr, assignment]
            guidance_embedding = (
                guidance_scale_embedding(self.embedded_guidance - 1, width).to(x_t).expand(len(x_t), -1)
            )
        raw: Tensor = self.network(
            x_t,
            inputs.t * (self.num_train_timesteps - 1),
            inputs.text.text_embeds,
            timestep_cond=guidance_embedding,
            added_cond_kwargs=_added_cond_kwargs(inputs.text),
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class SDXLUNet:
    """Stable Diffusion XL: it is also told a pooled text and the size of the picture (Podell et al. 2023, 2.2)."""

    network: nn.Module
    num_train_timesteps: int
    image_size: int
    """Height and width in pixels that it is told, as the original size and the wanted one, with no crop."""

    time_embedding_name: ClassVar[str] = "time_embedding"
    lora_target_modules: ClassVar[tuple[str, ...]] = ATTENTION_LAYERS
    views_per_group: ClassVar[int] = 1
    guidance_distilled: ClassVar[bool] = False

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t, pooled = inputs.x_t, _pooled_embeds(inputs.text)
        sizes = x_t.new_tensor([self.image_size, self.image_size, 0, 0, self.image_size, self.image_size]).expand(
            len(x_t), -1
        )
        raw: Tensor = self.network(
            x_t,
            inputs.t * (self.num_train_timesteps - 1),
            inputs.text.text_embeds,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes} | _added_cond_kwargs(inputs.text),
            return_dict=False,
        )[0]
        return raw


@dataclass(frozen=True)
class PixArtTransformer:
    """PixArt (Chen et al. 2023): patches of latents, and a text whose padding is left out. Its answer comes with
    variances that are left out."""

    network: nn.Module
    num_train_timesteps: int
    image_size: int
    """Height and width in pixels that it is told, where it was trained to be."""

    time_embedding_name: ClassVar[str] = "adaln_single.emb.timestep_embedder"
    lora_target_modules: ClassVar[tuple[str, ...]] = ATTENTION_LAYERS
    views_per_group: ClassVar[int] = 1
    guidance_distilled: ClassVar[bool] = False

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t = inputs.x_t
        added_cond: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.use_additional_conditions:
            added_cond = {
                "resolution": x_t.new_full((len(x_t), 2), self.image_size),
                "aspect_ratio": x_t.new_ones(len(x_t), 1),
            }
        raw: Tensor = self.network(
            x_t,
            encoder_hidden_states=inputs.text.text_embeds,
            encoder_attention_mask=inputs.text.attention_mask.to(x_t),
            timestep=inputs.t * (self.num_train_timesteps - 1),
            added_cond_kwargs=added_cond,
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class SanaTransformer:
    """Sana (Xie et al. 2024): attention of linear cost over latents of 1/32 of the picture, and a text whose padding
    is left out."""

    network: nn.Module

    time_embedding_name: ClassVar[str] = "time_embed.emb.timestep_embedder"
    lora_target_modules: ClassVar[tuple[str, ...]] = ATTENTION_LAYERS
    views_per_group: ClassVar[int] = 1
    guidance_distilled: ClassVar[bool] = False

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t, scale = inputs.x_t, float(self.network.config.timestep_scale)  # type: ignore[union-attr, arg-type]
        raw: Tensor = self.network(
            x_t,
            encoder_hidden_states=inputs.text.text_embeds,
            encoder_attention_mask=inputs.text.attention_mask.to(x_t),
            timestep=inputs.sigma * (1000 * scale),
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class SD3Transformer:
    """Stable Diffusion 3: text and picture in one attention, and a pooled text."""

    network: nn.Module

    time_embedding_name: ClassVar[str] = "time_text_embed"
    lora_target_modules: ClassVar[tuple[str, ...]] = (
        *ATTENTION_LAYERS,
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )
    views_per_group: ClassVar[int] = 1
    guidance_distilled: ClassVar[bool] = False

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        raw: Tensor = self.network(
            hidden_states=inputs.x_t,
            timestep=inputs.sigma * 1000,
            encoder_hidden_states=inputs.text.text_embeds,
            pooled_projections=_pooled_embeds(inputs.text),
            return_dict=False,
        )[0]
        return raw


@dataclass(frozen=True)
class FluxTransformer:
    """FLUX: patches of 2 x 2 latents as a sequence, each told its place. Its public weights are all distilled."""

    network: nn.Module
    embedded_guidance: float | None
    """What a guidance-distilled one is told its guidance is; None for one that is not told."""

    time_embedding_name: ClassVar[str] = "time_text_embed"
    lora_target_modules: ClassVar[tuple[str, ...]] = (
        *ATTENTION_LAYERS,
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )
    views_per_group: ClassVar[int] = 1
    guidance_distilled: ClassVar[bool] = True

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t, tokens = inputs.x_t, inputs.text.text_embeds
        guidance = (
            None
            if self.embedded_guidance is None
            else x_t.new_full((len(x_t),), self.embedded_guidance, dtype=torch.float32)
        )
        raw: Tensor = self.network(
            hidden_states=pack_latents(x_t),
            timestep=inputs.sigma,
            guidance=guidance,
            pooled_projections=_pooled_embeds(inputs.text),
            encoder_hidden_states=tokens,
            txt_ids=tokens.new_zeros(tokens.shape[1], 3),
            img_ids=latent_image_ids(x_t.shape[-2] // 2, x_t.shape[-1] // 2).to(x_t),
            return_dict=False,
        )[0]
        return unpack_latents(raw, x_t.shape[-2], x_t.shape[-1])


def pack_latents(x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N S E"]:
    """Patches of 2 x 2 latents row by row; in a patch the channels count slowest."""
    return nn.functional.pixel_unshuffle(x, 2).flatten(2).mT


def unpack_latents(packed: Float[Tensor, "N S E"], height: int, width: int) -> Float[Tensor, "N C h w"]:
    """Undoes `packed`."""
    return nn.functional.pixel_shuffle(packed.mT.unflatten(2, (height // 2, width // 2)), 2)


def latent_image_ids(height: int, width: int) -> Float[Tensor, "S 3"]:
    """Of patches row by row: 0, row, column."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()


def guidance_scale_embedding(guidance_scale: float, width: int) -> Float[Tensor, "1 W"]:
    """A strength of guidance as sines and cosines (Luo et al. 2023, Latent Consistency Models, section 4.3)."""
    half = width // 2
    frequencies = torch.exp(-torch.arange(half) * (torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = guidance_scale * 1000 * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]


def _added_cond_kwargs(text: Condition) -> dict[str, list[Tensor]]:
    """The picture of a condition, for networks with an IP-Adapter: one embedding of the whole, or many of patches."""
    if text.image_embeds is None:
        return {}
    return {"image_embeds": [text.image_embeds if text.image_embeds.shape[1] == 1 else text.image_embeds[:, None]]}


def _pooled_embeds(text: Condition) -> Float[Tensor, "N P"]:
    if text.pooled_embeds is None:
        raise ValueError("this network wants a pooled text; make its conditions with its own prior's read")
    return text.pooled_embeds
