"""Where the camera stands, told to a network that never heard of cameras: added to what it knows of the time."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guidance.priors.base import make_rng

HIDDEN_DIM = 128


class CameraTimeEmbedding(nn.Module):
    """A network's embedding of the time, with one of the camera on top, which starts as nothing.

    The camera is told before a pass, by `tell`; the network's own code then calls this in place of what it wraps.
    """

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        first, last = nn.Linear(5, HIDDEN_DIM), nn.Linear(HIDDEN_DIM, width)
        # A start of its own, the same every time: a run is a function of its seed.
        nn.init.kaiming_uniform_(first.weight, generator=make_rng(0))
        for zero in (first.bias, last.weight, last.bias):
            nn.init.zeros_(zero)
        self.camera_mlp = nn.Sequential(first, nn.SiLU(), last)
        self._cameras: Tensor | None = None

    def set_cameras(self, cameras: Float[Tensor, "B 5"]) -> None:
        """The cameras of the next pass, as `features` or rows of zeros where none is known."""
        self._cameras = cameras

    def forward(self, *args: Any) -> Tensor:
        embedded: Tensor = self.inner(*args)
        if self._cameras is None:
            return embedded
        added: Tensor = self._cameras[:, :1] * self.camera_mlp(self._cameras)
        return embedded + added.to(embedded.dtype)


def camera_features(camera: Float[Tensor, "B 2"]) -> Float[Tensor, "B 5"]:
    """1 for a camera that is known, and both angles on their circles."""
    azimuth, elevation = camera.unbind(-1)
    angles = [azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()]
    return torch.stack([torch.ones_like(azimuth), *angles], -1)


def camera_features_for(
    cameras: list[Float[Tensor, "B 2"] | None], like: Float[Tensor, "B C h w"]
) -> Float[Tensor, "N 5"]:
    """The features of one batch after another, zeros where a batch has no camera; float32."""
    unknown = torch.zeros(len(like), 5, device=like.device)
    return torch.cat(
        [unknown if camera is None else camera_features(camera.to(like.device).float()) for camera in cameras]
    )


def time_embedding_dim(embedding: nn.Module) -> int:
    """Width of what an embedding of the time answers: that of its last linear layer."""
    widths = [layer.out_features for layer in embedding.modules() if isinstance(layer, nn.Linear)]
    return widths[-1]
