"""The embedded prior's latents: square patches of a picture through a fixed linear map.

The map keeps the leading principal components of patches and evens out their sizes a little, so that detail is not
drowned by noise long before shape is. It is linear, costs nothing, and the gradient reaches pixels exactly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class PatchCodec(nn.Module):
    """Pictures [B, 3, H, W] in 0..1 <-> latents [B, C, H/P, W/P] of about unit variance."""

    basis: Tensor
    """[C, 3*P*P] orthonormal rows."""
    mean: Tensor
    """[3*P*P] of the patches of pictures in -1..1."""
    scale: Tensor
    """[C] that a component is multiplied with."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("basis", torch.zeros(channels, 3 * patch * patch))
        self.register_buffer("mean", torch.zeros(3 * patch * patch))
        self.register_buffer("scale", torch.ones(channels))

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        patches = F.pixel_unshuffle(2 * rgb - 1, self.patch)
        centered = patches - self.mean[:, None, None]
        return torch.einsum("cp,bphw->bchw", self.basis * self.scale[:, None], centered)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        patches = torch.einsum("cp,bchw->bphw", self.basis / self.scale[:, None], latents) + self.mean[:, None, None]
        return (F.pixel_shuffle(patches, self.patch) + 1) / 2

    def response(self) -> Float[Tensor, "4 3 C"]:
        """What a unit of red, green or blue in a quarter of a patch (upper left, upper right, lower left, lower right)
        adds to the latents."""
        half = self.patch // 2
        quarters = torch.eye(4).reshape(4, 1, 2, 2).repeat_interleave(half, 2).repeat_interleave(half, 3)
        colors = torch.eye(3).reshape(1, 3, 3, 1, 1)
        images = (quarters[:, None] * colors).reshape(12, 3, self.patch, self.patch).to(self.basis)
        return (self.encode(images) - self.encode(torch.zeros_like(images))).reshape(4, 3, -1)

    @torch.no_grad()
    def fit(self, rgb: Float[Tensor, "B 3 H W"], whitening: float = 0.5) -> float:
        """Learns the map from pictures; returns the share of the patches' variance that it keeps.

        Args:
            whitening: 0 keeps the components' own sizes, 1 makes all of them equal.
        """
        patches = F.pixel_unshuffle(2 * rgb - 1, self.patch).permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = patches.mean(0)
        variance, axes = torch.linalg.eigh(torch.cov((patches - mean).T))
        variance, axes = variance.flip(0), axes.flip(1)
        kept_variance = variance[: len(self.scale)].clamp_min(1e-8)
        scale = kept_variance ** (-whitening / 2)
        scale = scale / (scale.square() * kept_variance).mean().sqrt()
        self.basis.copy_(axes[:, : len(self.scale)].T)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        return float(kept_variance.sum() / variance.sum())
