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

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that low-rank additions go to (Hu et al. 2021, section 4.2)."""


@dataclass(frozen=True)
class Question:
    """What a network is asked in one pass, in its own precision."""

    x_t: Float[Tensor, "N C h w"]
    t: Float[Tensor, " N"]
    """Fraction of the schedule."""
    sigma: Float[Tensor, " N"]
    text: Condition
    camera: Float[Tensor, "N 5"]
    """As `camera.features`, or zeros where none is known."""


@runtime_checkable
class Asking(Protocol):
    """The network of a family, and how it is asked; frozen dataclasses, so that a copy takes another network."""

    clock: ClassVar[str]
    """Name of the part of the network that embeds the time."""
    layers: ClassVar[tuple[str, ...]]
    """Endings of the names of layers that a critic adds to."""

    @property
    def together(self) -> int:
        """Views of one object that it has to be shown at once; 1 for a network that sees each alone."""
        ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def distilled(self) -> bool:
        """Whether guidance went into its weights, so that its answers must not be guided again."""
        ...

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        """What the network says, in its own words: noise, velocity, or a clean latent."""
        ...


@dataclass(frozen=True)
class UNet:
    """Stable Diffusion 1.x and 2.x, and DeepFloyd IF, whose answer comes with variances that are left out."""

    network: nn.Module
    steps: int
    """Of its schedule: it is told the time as a number from 0 to steps - 1."""
    guidance: float | None = None
    """What a latent-consistency model is told its guidance is; None for other models."""

    clock: ClassVar[str] = "time_embedding"
    layers: ClassVar[tuple[str, ...]] = (*ATTENTION, "add_k_proj", "add_v_proj")
    together: ClassVar[int] = 1

    @property
    def distilled(self) -> bool:
        return self.guidance is not None

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t = question.x_t
        strength = None
        if self.guidance is not None:
            width: int = self.network.config.time_cond_proj_dim  # type: ignore[union-attr, assignment]
            strength = guidance_waves(self.guidance - 1, width).to(x_t).expand(len(x_t), -1)
        raw: Tensor = self.network(
            x_t,
            question.t * (self.steps - 1),
            question.text.tokens,
            timestep_cond=strength,
            added_cond_kwargs=_shown(question.text),
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class SizedUNet:
    """Stable Diffusion XL: it is also told a pooled text and the size of the picture (Podell et al. 2023, 2.2)."""

    network: nn.Module
    steps: int
    size: int
    """Height and width in pixels that it is told, as the original size and the wanted one, with no crop."""

    clock: ClassVar[str] = "time_embedding"
    layers: ClassVar[tuple[str, ...]] = ATTENTION
    together: ClassVar[int] = 1
    distilled: ClassVar[bool] = False

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t, pooled = question.x_t, _pooled(question.text)
        sizes = x_t.new_tensor([self.size, self.size, 0, 0, self.size, self.size]).expand(len(x_t), -1)
        raw: Tensor = self.network(
            x_t,
            question.t * (self.steps - 1),
            question.text.tokens,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes} | _shown(question.text),
            return_dict=False,
        )[0]
        return raw


@dataclass(frozen=True)
class PatchTransformer:
    """PixArt (Chen et al. 2023): patches of latents, and a text whose padding is left out. Its answer comes with
    variances that are left out."""

    network: nn.Module
    steps: int
    size: int
    """Height and width in pixels that it is told, where it was trained to be."""

    clock: ClassVar[str] = "adaln_single.emb.timestep_embedder"
    layers: ClassVar[tuple[str, ...]] = ATTENTION
    together: ClassVar[int] = 1
    distilled: ClassVar[bool] = False

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t = question.x_t
        told: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.use_additional_conditions:
            told = {"resolution": x_t.new_full((len(x_t), 2), self.size), "aspect_ratio": x_t.new_ones(len(x_t), 1)}
        raw: Tensor = self.network(
            x_t,
            encoder_hidden_states=question.text.tokens,
            encoder_attention_mask=question.text.mask.to(x_t),
            timestep=question.t * (self.steps - 1),
            added_cond_kwargs=told,
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class LinearTransformer:
    """Sana (Xie et al. 2024): attention of linear cost over latents of 1/32 of the picture, and a text whose padding
    is left out."""

    network: nn.Module

    clock: ClassVar[str] = "time_embed.emb.timestep_embedder"
    layers: ClassVar[tuple[str, ...]] = ATTENTION
    together: ClassVar[int] = 1
    distilled: ClassVar[bool] = False

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t, scale = question.x_t, float(self.network.config.timestep_scale)  # type: ignore[union-attr, arg-type]
        raw: Tensor = self.network(
            x_t,
            encoder_hidden_states=question.text.tokens,
            encoder_attention_mask=question.text.mask.to(x_t),
            timestep=question.sigma * (1000 * scale),
            return_dict=False,
        )[0]
        return raw[:, : x_t.shape[1]]


@dataclass(frozen=True)
class JointTransformer:
    """Stable Diffusion 3: text and picture in one attention, and a pooled text."""

    network: nn.Module

    clock: ClassVar[str] = "time_text_embed"
    layers: ClassVar[tuple[str, ...]] = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    together: ClassVar[int] = 1
    distilled: ClassVar[bool] = False

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        raw: Tensor = self.network(
            hidden_states=question.x_t,
            timestep=question.sigma * 1000,
            encoder_hidden_states=question.text.tokens,
            pooled_projections=_pooled(question.text),
            return_dict=False,
        )[0]
        return raw


@dataclass(frozen=True)
class PackedTransformer:
    """FLUX: patches of 2 x 2 latents as a sequence, each told its place. Its public weights are all distilled."""

    network: nn.Module
    guidance: float | None
    """What a guidance-distilled one is told its guidance is; None for one that is not told."""

    clock: ClassVar[str] = "time_text_embed"
    layers: ClassVar[tuple[str, ...]] = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    together: ClassVar[int] = 1
    distilled: ClassVar[bool] = True

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t, tokens = question.x_t, question.text.tokens
        guidance = None if self.guidance is None else x_t.new_full((len(x_t),), self.guidance, dtype=torch.float32)
        raw: Tensor = self.network(
            hidden_states=packed(x_t),
            timestep=question.sigma,
            guidance=guidance,
            pooled_projections=_pooled(question.text),
            encoder_hidden_states=tokens,
            txt_ids=tokens.new_zeros(tokens.shape[1], 3),
            img_ids=places(x_t.shape[-2] // 2, x_t.shape[-1] // 2).to(x_t),
            return_dict=False,
        )[0]
        return unpacked(raw, x_t.shape[-2], x_t.shape[-1])


def packed(x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N S E"]:
    """Patches of 2 x 2 latents row by row; in a patch the channels count slowest."""
    return nn.functional.pixel_unshuffle(x, 2).flatten(2).mT


def unpacked(rows: Float[Tensor, "N S E"], height: int, width: int) -> Float[Tensor, "N C h w"]:
    """Undoes `packed`."""
    return nn.functional.pixel_shuffle(rows.mT.unflatten(2, (height // 2, width // 2)), 2)


def places(height: int, width: int) -> Float[Tensor, "S 3"]:
    """Of patches row by row: 0, row, column."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()


def guidance_waves(guidance: float, width: int) -> Float[Tensor, "1 W"]:
    """A strength of guidance as sines and cosines (Luo et al. 2023, Latent Consistency Models, section 4.3)."""
    half = width // 2
    rates = torch.exp(-torch.arange(half) * (torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = guidance * 1000 * rates
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]


def _shown(text: Condition) -> dict[str, list[Tensor]]:
    """The picture of a condition, for networks with an IP-Adapter: one embedding of the whole, or many of patches."""
    if text.image is None:
        return {}
    return {"image_embeds": [text.image if text.image.shape[1] == 1 else text.image[:, None]]}


def _pooled(text: Condition) -> Float[Tensor, "N P"]:
    if text.pooled is None:
        raise ValueError("this network wants a pooled text; make its conditions with its own prior's read")
    return text.pooled
