"""Pictures of a scene by which two of them are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.cameras import orbit_cameras
from renderers.scene import Scene


@torch.no_grad()
def shown(scene: Scene, size: int = 24) -> Tensor:
    """[4 H W 3] four sides over grey, on the CPU."""
    return scene.render(orbit_cameras(4, 0.3, size), torch.full((4, 3), 0.5)).rgb.cpu()
