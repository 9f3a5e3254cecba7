"""The network of the embedded prior: a sketch of what text and camera let expect, and a denoiser that is shown it.

The sketch is a plain regression from the conditions to a picture. It learns without noise, dozens of times faster than
the denoiser would learn the same from its noisiest inputs. The denoiser is made of convolutions on a grid of patches
around a transformer, and corrects the velocity that the sketch alone would give.

Shapes: B pictures, C latent channels on a G x G grid, L words, W the transformer's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from guidance.priors.mini.sketch import ALPHA_CHANNELS, Sketch, composite_over_background, expected_velocity, mlp
from guidance.priors.schedule import ScaledLinearSchedule


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; saved beside its weights."""

    vocabulary: int
    """Number of words, the empty one included."""
    channels: int = 48
    """C, latent channels."""
    grid: int = 16
    """G, height and width of the latent."""
    convolution_width: int = 96
    """Channels of the convolutions around the transformer."""
    convolution_blocks: int = 2
    """Residual blocks before and after the transformer."""
    width: int = 256
    """W, channels of the transformer, which works on G/2 x G/2 tokens."""
    depth: int = 6
    """Blocks of the transformer."""
    heads: int = 4
    words: int = 12
    """L, the longest text."""
    sketch_width: int = 768
    """Width of the perceptron that draws the sketch."""
    sketch_channels: int = 48
    """Channels of the convolutions that finish it."""


class MiniNetwork(nn.Module):
    """Predicts the velocity v = alpha * noise - sigma * x of a noised latent (Salimans & Ho 2022)."""

    response: Tensor
    """[4, 3, C] what a unit of a colour in a quarter of a patch adds to the latents; see `PatchCodec.response`."""
    schedule = ScaledLinearSchedule()
    detach_sketch = True
    """Whether the sketch is left alone by what the denoiser learns."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c, w = config.convolution_width, config.width
        self.word_embedding = nn.Embedding(config.vocabulary, w)
        self.empty_word = nn.Parameter(torch.zeros(w))
        self.text_pool = mlp(w, w, w)
        self.time = mlp(64, w, w)
        self.camera = mlp(2 * _AZIMUTH_HARMONICS + 2 * _ELEVATION_HARMONICS + 1, w, w)
        self.mix = mlp(4 * w, 4 * w, w)
        self.sketch = Sketch(config.width, config.sketch_width, config.sketch_channels, config.channels, config.grid)
        self.conv_in = nn.Conv2d(2 * config.channels + ALPHA_CHANNELS, c, 3, padding=1)
        self.doubt = nn.Linear(w, config.channels)
        """Logarithm of the variance around the sketch, by channel."""
        self.register_buffer("response", torch.zeros(ALPHA_CHANNELS, 3, config.channels))
        self.down = nn.ModuleList(_Residual(c, w) for _ in range(config.convolution_blocks))
        self.to_tokens = nn.Linear(4 * c, w)
        self.position = nn.Parameter(0.02 * torch.randn((config.grid // 2) ** 2, w))
        self.blocks = nn.ModuleList(_Block(w, config.heads) for _ in range(config.depth))
        self.from_tokens = nn.Linear(w, 4 * c)
        self.join = nn.Conv2d(2 * c, c, 1)
        self.up = nn.ModuleList(_Residual(c, w) for _ in range(config.convolution_blocks))
        self.norm_out = nn.GroupNorm(8, c)
        self.conv_out = nn.Conv2d(c, config.channels, 3, padding=1)
        nn.init.normal_(self.word_embedding.weight)
        for layer, bias in ((self.conv_out, 0.0), (self.doubt, math.log(0.2))):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]

    def forward(
        self,
        x_t: Float[Tensor, "B C G G"],
        t: Float[Tensor, " B"],
        tokens: Float[Tensor, "B L W"],
        mask: Bool[Tensor, "B L"],
        camera: Float[Tensor, "B 2"] | None,
        camera_known: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B C G G"]:
        """Velocity at fraction `t` of the schedule.

        Args:
            tokens: word embeddings, see `embed`; rows where `mask` is False are ignored.
            camera: azimuth and elevation in radians, or None for any.
            camera_known: rows of `camera` to use; the others count as any.
        """
        text, view = self._embed_conditions(tokens, mask, camera, camera_known, len(x_t))
        # The product lets every object turn in its own way.
        emb = self.mix(torch.cat([self.time(timestep_embedding(t)), text, view, text * view], -1))
        tokens = torch.where(mask[..., None], tokens, self.empty_word)

        sketch = self.sketch(text, view)
        guess, opacity, velocity = self._first_guess(x_t, t, sketch.detach() if self.detach_sketch else sketch, emb)
        h = torch.cat([x_t, guess, opacity], 1)
        h = self.conv_in(h.contiguous(memory_format=torch.channels_last))
        for block in self.down:
            h = block(h, emb)
        skip = h
        n = self.config.grid // 2
        s = F.pixel_unshuffle(h, 2).flatten(2).transpose(1, 2)
        s = torch.cat([self.to_tokens(s) + self.position, tokens], 1)
        for block in self.blocks:
            s = block(s, emb)
        s = self.from_tokens(s[:, : n * n]).transpose(1, 2).unflatten(2, (n, n))
        h = self.join(torch.cat([F.pixel_shuffle(s, 2), skip], 1))
        for block in self.up:
            h = block(h, emb)
        return velocity + self.conv_out(F.silu(self.norm_out(h)))  # type: ignore[no-any-return]

    def _first_guess(self, x_t: Tensor, t: Tensor, sketch: Tensor, emb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sketch before the picture's background, its opacity, and the velocity they imply; float32 throughout."""
        with torch.autocast(x_t.device.type, enabled=False):
            alpha, sigma = (level[:, None, None, None] for level in self.schedule.alpha_sigma(t))
            # The first steps from pure noise would divide by nearly nothing.
            guess = composite_over_background(x_t, sketch.float(), self.response, alpha.clamp_min(1e-3), sigma)
            variance = F.linear(emb.float(), self.doubt.weight, self.doubt.bias).clamp(-7, 2).exp()[:, :, None, None]
            return guess, sketch[:, x_t.shape[1] :].float(), expected_velocity(x_t, guess, variance, alpha, sigma)

    def predict_sketch(
        self,
        tokens: Float[Tensor, "B L W"],
        mask: Bool[Tensor, "B L"],
        camera: Float[Tensor, "B 2"] | None,
        camera_known: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B S G G"]:
        """Predicts the sketch: latents of the object before mid grey, then `ALPHA_CHANNELS` of alpha (-1..1)."""
        return self.sketch(*self._embed_conditions(tokens, mask, camera, camera_known, len(tokens)))  # type: ignore[no-any-return]

    def _embed_conditions(
        self, tokens: Tensor, mask: Tensor, camera: Tensor | None, known: Tensor | None, count: int
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Text and camera as one vector each."""
        present = mask[..., None].to(tokens.dtype)
        # A sum over words, not a mean over places: a short text speaks as loudly as a long one.
        text = self.text_pool((tokens * present).sum(1) / present.sum(1).clamp_min(1).sqrt())
        return text, self.camera(_camera_features(camera, known, count, tokens))

    def embed(self, words: Tensor) -> Float[Tensor, "B L W"]:
        """Embeddings of word numbers [B, L]."""
        return self.word_embedding(words)  # type: ignore[no-any-return]


_AZIMUTH_HARMONICS, _ELEVATION_HARMONICS = 6, 3


def _camera_features(
    camera: Float[Tensor, "B 2"] | None, known: Bool[Tensor, " B"] | None, count: int, like: Tensor
) -> Float[Tensor, "B F"]:
    """Harmonics of azimuth and elevation and a one, or zeros where the camera is not known."""
    if camera is None:
        return torch.zeros(
            count, 2 * _AZIMUTH_HARMONICS + 2 * _ELEVATION_HARMONICS + 1, dtype=torch.float32, device=like.device
        )
    azimuth = camera[:, :1] * torch.arange(1, _AZIMUTH_HARMONICS + 1, device=camera.device)
    elevation = camera[:, 1:] * torch.arange(1, _ELEVATION_HARMONICS + 1, device=camera.device)
    features = torch.cat(
        [azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos(), torch.ones_like(camera[:, :1])], -1
    )
    return features if known is None else features * known[:, None]


def timestep_embedding(t: Float[Tensor, " B"]) -> Float[Tensor, "B 64"]:
    """Sines and cosines of a time in 0..1, wavelengths from 2 pi down to 2 pi / 1000."""
    angles = t[:, None] * torch.exp(torch.linspace(0.0, math.log(1000.0), 32, device=t.device))
    return torch.cat([angles.sin(), angles.cos()], -1)


class _Residual(nn.Module):
    """Two 3x3 convolutions; the condition scales and shifts between them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(width, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, 1)
        y = self.conv1(F.silu(self.norm1(h)))
        y = self.conv2(F.silu(self.norm2(y) * (1 + scale) + shift))
        return h + y  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Attention and a two-layer perceptron, both modulated by the condition (DiT, Peebles & Xie 2023)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():  # shift 0, scale 0, gate 1
            self.modulation.bias.copy_(torch.tensor([0.0, 0.0, 1.0]).repeat_interleave(width).repeat(2))
        for layer in (self.to_out, self.contract):
            nn.init.normal_(layer.weight, std=0.3 / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, s: Tensor, emb: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(emb))[:, None].chunk(6, -1)
        qkv = self.to_qkv(self.norm1(s) * (1 + scale1) + shift1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: on a CPU the backward pass of the fused attention costs more than all of this.
        weights = torch.softmax((q * (q.shape[-1] ** -0.5)) @ k.transpose(-2, -1), -1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        s = s + gate1 * self.to_out(attended)
        inner = F.silu(self.expand(self.norm2(s) * (1 + scale2) + shift2))
        return s + gate2 * self.contract(inner)  # type: ignore[no-any-return]
