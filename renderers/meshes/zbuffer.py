"""Which triangle each pixel sees, for numpy arrays: where points land, and what is nearest.

Shapes: B pictures, V vertices, F triangles, H and W pixels. Screen positions are x and y in pixels (y down, the
centre of the first pixel at (0.5, 0.5)) and the depth along the camera's axis. Both sides of a triangle are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.cameras import Cameras
from renderers.meshes import rasterization
from renderers.meshes.triangles import Topology


@dataclass(frozen=True)
class Fragments:
    """What every pixel sees."""

    face: Int[ndarray, "B H W"]
    """Index of the nearest triangle, -1 where there is none."""
    bary: Float[ndarray, "B H W 3"]
    """Perspective-correct weights of its three corners; 0 where there is none."""
    depth: Float[ndarray, "B H W"]
    """Depth of the surface; 0 where there is none."""

    @property
    def seen(self) -> ndarray:
        """[B H W] True where a pixel sees a triangle."""
        seen: ndarray = self.face >= 0
        return seen


def project(vertices: Float[ndarray, "V 3"], cameras: Cameras) -> Float[ndarray, "B V 3"]:
    """Points of the world in the pictures of every camera, as float32 screen positions."""
    view = cameras.viewmats().double().cpu().numpy()
    k = cameras.intrinsics().double().cpu().numpy()
    points = vertices.astype(np.float64) @ view[:, :3, :3].transpose(0, 2, 1) + view[:, None, :3, 3]
    depth = points[..., 2:]
    safe = np.where(depth > 0, depth, 1.0)
    xy = points[..., :2] / safe * k[:, None, [0, 1], [0, 1]] + k[:, None, [0, 1], [2, 2]]
    return np.concatenate([xy, depth], -1).astype(np.float32)


def rasterize(screen: Float[ndarray, "B V 3"], faces: Int[ndarray, "F 3"], height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre.

    Screen positions say nothing of what lies behind the camera: a triangle with a corner there is not drawn.
    Raises ValueError for a triangle that names a vertex which does not exist.
    """
    triangles = Topology(torch.from_numpy(np.ascontiguousarray(faces, np.int32)), screen.shape[1])
    positions = screen.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        depth = np.where(positions[..., 2:] > 0, positions[..., 2:], np.nan)
        places = np.concatenate([positions[..., :2] * depth, depth], -1).astype(np.float32)
    seen = rasterization.rasterize(torch.from_numpy(places), triangles, height, width)
    return Fragments(seen.face.numpy(), seen.bary.numpy(), seen.depth.numpy())
