"""Where the pictures are taken from.

The one frame of sds3d is glTF's: right-handed, +Y up, the front of an asset faces +Z, its left side is at +X.
Azimuth 0 is a camera in front of the asset (on +Z), pi/2 one at its left side (on +X); elevation is positive
above. Camera-to-world poses are OpenGL's (a camera looks along its -Z, +Y is up in the picture). The content
of a scene lies in the unit ball.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FOV = math.radians(40.0)
"""Vertical field of view that `DISTANCE` goes with, radians."""
DISTANCE = 3.0
"""Distance at which the unit ball just fits a picture of field of view `FOV`."""


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras with square pixels."""

    c2w: Float[Tensor, "B 4 4"]
    """Camera-to-world poses, OpenGL axes."""
    fov_y: Float[Tensor, " B"]
    """Vertical field of view, radians."""
    height: int
    width: int

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, rows: slice) -> Cameras:
        return Cameras(self.c2w[rows], self.fov_y[rows], self.height, self.width)

    @property
    def positions(self) -> Float[Tensor, "B 3"]:
        """Camera centres in the world."""
        return self.c2w[:, :3, 3]

    @property
    def azimuth(self) -> Float[Tensor, " B"]:
        """Angle of the camera around +Y, radians in (-pi, pi], 0 in front, pi/2 at +X."""
        return self.angles_around(torch.zeros_like(self.positions[0]))[0]

    @property
    def elevation(self) -> Float[Tensor, " B"]:
        """Angle of the camera above the horizon, radians."""
        return self.angles_around(torch.zeros_like(self.positions[0]))[1]

    def viewmats(self) -> Float[Tensor, "B 4 4"]:
        """World-to-camera matrices with OpenCV axes (x right, y down, z ahead), as gsplat wants them."""
        flip = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device)
        flip[1:3] *= -1
        # Without the check for singular matrices, which waits for the device: poses are none.
        inverse: Tensor = torch.linalg.inv_ex(self.c2w @ flip).inverse
        return inverse

    def intrinsics(self) -> Float[Tensor, "B 3 3"]:
        """Pinhole matrices K in pixels; the centre of the first pixel is at (0.5, 0.5)."""
        focal = 0.5 * self.height / torch.tan(0.5 * self.fov_y)
        k = torch.zeros(len(self), 3, 3, dtype=self.c2w.dtype, device=self.c2w.device)
        k[:, 0, 0] = focal
        k[:, 1, 1] = focal
        k[:, 0, 2] = 0.5 * self.width
        k[:, 1, 2] = 0.5 * self.height
        k[:, 2, 2] = 1.0
        return k

    def angles_around(self, point: Float[Tensor, " 3"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Azimuth and elevation of the cameras around a point other than the origin, radians."""
        x, y, z = (self.positions - point).unbind(-1)
        return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))

    def unproject(self, depth: Float[Tensor, "B H W 1"]) -> Float[Tensor, "B H W 3"]:
        """Where in the world the pixels are that lie at these depths along the cameras' axes."""
        half = torch.tan(0.5 * self.fov_y)[:, None, None]
        across = (torch.arange(self.width, device=depth.device) + 0.5 - 0.5 * self.width) / (0.5 * self.height)
        down = (torch.arange(self.height, device=depth.device) + 0.5 - 0.5 * self.height) / (0.5 * self.height)
        x = (half * across).expand(-1, self.height, -1)
        y = (-half * down[:, None]).expand(-1, -1, self.width)
        ray = torch.stack([x, y, -torch.ones_like(x)], -1)
        return torch.einsum("bij,bhwj->bhwi", self.c2w[:, :3, :3], ray * depth) + self.positions[:, None, None]

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.c2w.to(device), self.fov_y.to(device), self.height, self.width)


def look_at_origin(
    azimuth: Float[Tensor, " B"],
    elevation: Float[Tensor, " B"],
    size: int,
    distance: float = DISTANCE,
    fov_y: float = FOV,
) -> Cameras:
    """Cameras on a sphere that look at the origin, +Y up in the picture.

    Angles in radians; `size` is the height and width of the pictures in pixels.
    """
    horizontal = torch.cos(elevation)
    backward = torch.stack([horizontal * torch.sin(azimuth), torch.sin(elevation), horizontal * torch.cos(azimuth)], -1)
    # The right-hand axis from the azimuth alone: defined at the poles too.
    right = torch.stack([torch.cos(azimuth), torch.zeros_like(azimuth), -torch.sin(azimuth)], -1)
    up = torch.linalg.cross(backward, right)
    c2w = torch.zeros(len(azimuth), 4, 4, dtype=azimuth.dtype, device=azimuth.device)
    c2w[:, :3, 0] = right
    c2w[:, :3, 1] = up
    c2w[:, :3, 2] = backward
    c2w[:, :3, 3] = distance * backward
    c2w[:, 3, 3] = 1.0
    return Cameras(c2w, torch.full_like(azimuth, fov_y), size, size)


def orbit_cameras(views: int, elevation: float, size: int) -> Cameras:
    """`views` cameras around the asset at one elevation (radians), the first in front."""
    azimuth = torch.arange(views) * (2 * math.pi / views)
    return look_at_origin(azimuth, torch.full((views,), elevation), size)
