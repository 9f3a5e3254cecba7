"""A flat picture as a scene: the same from everywhere. For trying objectives, and for lessons.

Shapes: B cameras, H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from renderers.camera_sampler import CameraSampler
from renderers.cameras import Cameras
from renderers.scene import RenderOutput, SceneConfig, TrainableScene


@dataclass(frozen=True)
class ImageConfig(SceneConfig):
    """Knobs of a flat picture: grey noise at the start, every pixel free."""

    lr_fields: ClassVar[tuple[str, ...]] = ("lr", "lr_final")

    orbit: ClassVar[CameraSampler] = CameraSampler(elevation_min=15.0, elevation_max=15.0, azimuth_span=0.0)

    size: int = 96
    """Pixels along a side."""
    spread: float = 0.1
    """Standard deviation of the noise around mid grey at the start."""
    lr: float = 2e-2
    """Rate of Adam at the start."""
    lr_final: float = 2e-3
    """Rate at the end; in between it falls exponentially."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}; expected 8 to 2048 pixels")
        for name in ("lr", "lr_final"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"spread is {self.spread}; it is a number from 0 upwards")

    def build(self, device: torch.device | str, generator: torch.Generator) -> ImageScene:
        noise = torch.randn(1, 3, self.size, self.size, generator=generator, device=generator.device)
        return ImageScene(self, (0.5 + self.spread * noise).to(device))


class ImageScene(TrainableScene):
    """A picture under training; opaque."""

    def __init__(self, knobs: ImageConfig, pixels: Float[Tensor, "1 3 H W"]) -> None:
        super().__init__()
        self.knobs = knobs
        self.pixels = nn.Parameter(pixels)

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """The picture once for every camera, resampled where the cameras have other sizes."""
        shown: Tensor = self.pixels
        size = (cameras.height, cameras.width)
        if shown.shape[-2:] != size:
            shown = functional.interpolate(shown, size, mode="bilinear", antialias=True)
        rgb = shown.permute(0, 2, 3, 1).expand(len(cameras), -1, -1, -1)
        alpha = torch.ones_like(rgb[..., :1])
        # It stands upright on the origin, square to every camera.
        return RenderOutput(rgb, alpha, alpha * cameras.positions.norm(dim=-1)[:, None, None, None].to(alpha))

    def param_groups(self, progress: float) -> list[dict[str, Any]]:
        rate = self.knobs.lr * (self.knobs.lr_final / self.knobs.lr) ** progress
        return [{"params": [self.pixels], "lr": rate, "name": "pixels", "eps": 1e-15}]

    def regularization_loss(self, frame: RenderOutput) -> Float[Tensor, ""]:
        return self.pixels.new_zeros(())

    def post_step(self, progress: float, frame: RenderOutput, optimiser: Optimizer) -> None:
        """Nothing to keep in order: pixels may leave 0..1, as a prior's pictures do."""

    def failure_reason(self) -> str | None:
        bad = int((~self.pixels.isfinite()).sum())
        return f"{bad} values of the picture are not finite" if bad else None

    def describe(self) -> str:
        return f"{self.knobs.size} x {self.knobs.size} pixels"

    def training_state(self) -> dict[str, Tensor]:
        return {"pixels": self.pixels.detach().clone()}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        if "pixels" not in state or state["pixels"].shape != self.pixels.shape:
            raise ValueError(f"the saved scene is no picture of {self.describe()}")
        self.pixels = nn.Parameter(state["pixels"].to(self.pixels.device).clone())
