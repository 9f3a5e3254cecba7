"""What the mesh rasteriser takes and gives: places, triangles with their edges, and what every pixel sees.

Shapes: B pictures, P points, F triangles, E edges, K wings (each triangle once at each of its edges), H and W pixels.
A place is homogeneous: (x w, y w, w) with x and y in pixels (y down, the centre of the first pixel at (0.5, 0.5)) and
w the depth along the camera's axis; it is linear in the point, also behind the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from renderers.cameras import Cameras


@dataclass(frozen=True)
class Edges:
    """The sides of triangles, each once."""

    vertices: Int32[Tensor, "E 2"]
    """The two points."""
    face_offsets: Int32[Tensor, " E1"]
    """Where the wings of each edge begin; one more at the end."""
    edge_faces: Int32[Tensor, " K"]
    """Twice a triangle's number, and 1 more where it runs from the edge's second end to its first."""

    @cached_property
    def neighbours(self) -> Int32[Tensor, "N 2"]:
        """Pairs of triangles, at every edge that exactly two share."""
        begin = self.face_offsets.long()[:-1][self.face_offsets.diff() == 2]
        return torch.stack([self.edge_faces[begin], self.edge_faces[begin + 1]], -1) // 2

    @property
    def crowded(self) -> int:
        """Edges that more than two triangles share."""
        return int((self.face_offsets.diff() > 2).sum())


class Topology:
    """How points are joined; both sides of a triangle are drawn."""

    def __init__(self, corners: Int32[Tensor, "F 3"], points: int) -> None:
        """`corners`: points of each triangle, counter-clockwise seen from its front; `points`: how many there are.

        Raises ValueError for a triangle that names a point which does not exist.
        """
        check_corners(corners, points)
        self.corners = corners.contiguous()
        self.points = points

    def __len__(self) -> int:
        return len(self.corners)

    @cached_property
    def edges(self) -> Edges:
        """Found once, when first asked for."""
        count, device = max(self.points, 1), self.corners.device
        start = self.corners.long().flatten()
        end = self.corners.long().roll(-1, 1).flatten()
        keys, edge = torch.unique(torch.minimum(start, end) * count + torch.maximum(start, end), return_inverse=True)
        wings = torch.arange(len(start), device=device) // 3 * 2 + (start > end)
        first = torch.zeros(len(keys) + 1, dtype=torch.int32, device=device)
        first[1:] = torch.bincount(edge, minlength=len(keys)).cumsum(0)
        ends = torch.stack([keys // count, keys % count], -1)
        return Edges(ends.int(), first, wings[edge.argsort(stable=True)].int())


@dataclass(frozen=True)
class Fragments:
    """What every pixel's centre sees; holds no gradients."""

    face: Int32[Tensor, "B H W"]
    """Index of the nearest triangle, -1 where there is none."""
    bary: Float[Tensor, "B H W 3"]
    """Perspective-correct weights of its three corners. These and the next two are 0 where there is no triangle."""
    depth: Float[Tensor, "B H W"]
    """Depth of the surface."""
    area: Float[Tensor, "B H W"]
    """Doubled area, in pixels, of the whole triangle were all of it seen at the scale here; negative from behind."""

    @property
    def seen(self) -> Bool[Tensor, "B H W"]:
        """True where a pixel sees a triangle."""
        return self.face >= 0


@dataclass(frozen=True)
class SilhouetteCrossings:
    """Where outlines pass between the centres of neighbouring pixels; holds no gradients.

    The second axis: 0 between a pixel and the one to its right, 1 between it and the one below.
    """

    edge: Int32[Tensor, "B 2 H W"]
    """The edge that crosses, -1 where there is none."""
    offset: Float[Tensor, "B 2 H W"]
    """How far it is from the pixel's centre, 0..1."""


def check_corners(corners: Int32[Tensor, "F 3"], points: int) -> None:
    """Raises ValueError for a triangle that names a point which does not exist."""
    if not corners.numel():
        return
    least, most = int(corners.min()), int(corners.max())
    if least < 0 or most >= points:
        raise ValueError(f"a triangle names point {least if least < 0 else most}; there are {points}, counted from 0")


def project_points(points: Float[Tensor, "P 3"], cameras: Cameras) -> Float[Tensor, "B P 3"]:
    """Points of the world in the pictures of every camera, differentiable in the points."""
    view = cameras.viewmats().double()
    onto = cameras.intrinsics().double() @ view[:, :3]
    onto = onto.to(points)
    return points @ onto[:, :, :3].transpose(1, 2) + onto[:, None, :, 3]
