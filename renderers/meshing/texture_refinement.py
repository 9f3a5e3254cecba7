"""A texture made more like the pictures of the scene it was painted from, with the mesh as it is.

The second stage of DreamGaussian (Tang et al. 2023) without a prior: what is wanted is the scene's own pictures.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.config import MeshConfig
from renderers.meshes.mesh import Mesh
from renderers.scene import Scene

PIXELS = 256
"""Height and width of the pictures."""
RATE, SLOWEST = 2e-2, 0.1
"""Adam's rate at the start, and what is left of it at the end."""
MAX_STEPS = 2000
"""Steps."""


def refine_texture(mesh: Mesh, scene: Scene, steps: int, seed: int = 0) -> Mesh:
    """The mesh with its texture after `steps` pictures of the scene, each from another side.

    Pixels count where both are seen. Raises ValueError for steps out of range, and for a mesh with maps: its texture is
    not what is seen under light.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"a texture is refined by 1 to {MAX_STEPS} pictures; {steps} were asked for")
    if mesh.maps is not None:
        raise ValueError("the texture of a mesh that was trained under light is not what is seen; it is not refined")
    chance = torch.Generator().manual_seed(seed)
    solid = MeshConfig(train_geometry=False, texture_size=mesh.texture.shape[0]).from_mesh(
        mesh, "cpu", torch.Generator().manual_seed(seed)
    )
    cameras, optimiser = _spread(steps), torch.optim.Adam(solid.param_groups(0.0))
    grey = torch.full((1, 3), 0.5)
    for step, index in enumerate(torch.randperm(steps, generator=chance).tolist()):
        camera = cameras[index : index + 1]
        with torch.no_grad():
            target = scene.render(camera, grey)
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - (1 - SLOWEST) * step / steps)
        with torch.enable_grad():
            got = solid.render(camera, grey)
            both = (target.alpha.cpu() > 0.5) & (got.alpha > 0.5)
            loss = _apart(got.rgb, target.rgb.cpu().clamp(0, 1), both)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        with torch.no_grad():
            solid.base_color.clamp_(0, 1)
    return replace(mesh, texture=solid.mesh().texture)


def _apart(
    got: Float[Tensor, "1 H W 3"], target: Float[Tensor, "1 H W 3"], where: Bool[Tensor, "1 H W 1"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the colours there."""
    return ((got - target) * where).square().sum() / where.sum().clamp_min(1)


def _spread(count: int) -> Cameras:
    """Cameras all around, other ones than those that likenesses are measured from."""
    index = torch.arange(count)
    azimuth = torch.remainder((index + 0.5) * math.pi * (3 - math.sqrt(5)) + 1.0, 2 * math.pi)
    return look_at_origin(azimuth, torch.asin(0.95 * (1 - (2 * index + 1) / count)), PIXELS)
