"""Scenes of a mesh to train, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderers.cameras import Cameras
from renderers.meshes.scene import MeshScene
from renderers.scene import RenderOutput, Scene

SMALL: dict[str, Any] = {"faces": 1200, "texture_size": 64}


GREY = np.full((16, 16, 3), 128, np.uint8)


LIT: dict[str, Any] = {"light": "studio", "train_material": True, "train_normal_map": True}


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(size: int = 64) -> np.ndarray:
    """A texture of soft stripes in three colours."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(20 * x), np.sin(15 * y), np.sin(12 * (x + y))], -1)
    return (128 + 100 * waves).astype(np.uint8)


def train(scene: MeshScene, target: Callable[[Cameras], Tensor], steps: int, size: int = 64) -> None:
    """Half the squared difference to pictures over black, as the loop of a run would."""
    optimiser = torch.optim.Adam(scene.param_groups(0.0), betas=(0.9, 0.99), fused=True)
    rng = chance(1)
    for step in range(steps):
        cameras = scene.knobs.orbit.sample(2, size, rng)
        frame = scene.render(cameras, torch.zeros(2, 3))
        loss = 0.25 * (frame.rgb - target(cameras)).square().sum() + scene.regularization_loss(frame)
        for group, now in zip(optimiser.param_groups, scene.param_groups(step / steps), strict=True):
            group["lr"] = now["lr"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        scene.post_step(step / steps, frame, optimiser)
        assert scene.failure_reason() is None


def seen(scene: Scene, cameras: Cameras) -> RenderOutput:
    with torch.no_grad():
        return scene.render(cameras, torch.zeros(len(cameras), 3))
