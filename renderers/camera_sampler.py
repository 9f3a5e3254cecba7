"""Where the next views of a run come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.cameras import DISTANCE, FOV, Cameras, look_at_origin


@dataclass(frozen=True)
class CameraSampler:
    """Cameras on a sphere around the asset, looking at its middle. Angles in degrees."""

    elevation_min: float = -15.0
    """Least elevation."""
    elevation_max: float = 55.0
    """Greatest elevation."""
    azimuth_center: float = 0.0
    """Azimuth of the middle of the range; 0 is the front."""
    azimuth_span: float = 360.0
    """Width of the range of azimuths; 0 is one side alone."""
    distance: float = DISTANCE
    """From the middle of the asset, whose content lies in the unit ball."""
    fov_y: float = math.degrees(FOV)
    """Vertical field of view."""

    def __post_init__(self) -> None:
        if not -90 <= self.elevation_min <= self.elevation_max <= 90:
            raise ValueError(
                f"elevations {self.elevation_min} to {self.elevation_max}: expected -90 <= lowest <= highest <= 90"
            )
        if not (0 <= self.azimuth_span <= 360 and math.isfinite(self.azimuth_center)):
            raise ValueError(
                f"azimuths {self.azimuth_span} wide around {self.azimuth_center}: expected a width of 0 to 360"
            )
        if not 1 < self.distance < math.inf:
            raise ValueError(f"distance {self.distance}: expected more than 1, or the camera is inside the unit ball")
        if not 0 < self.fov_y < 180:
            raise ValueError(f"fov {self.fov_y}: expected degrees between 0 and 180")

    def sample(self, count: int, size: int, rng: torch.Generator) -> Cameras:
        """`count` cameras spread evenly around with one random turn, elevations stratified over the range.

        `size` is the height and width of their pictures in pixels.
        """
        turn = torch.rand(1, generator=rng)
        share = (torch.arange(count) + turn) / count
        # All around, it does not matter where the range begins: at the front, as ever.
        begin = math.radians(self.azimuth_center) - (
            0.0 if self.azimuth_span == 360 else math.radians(self.azimuth_span) / 2
        )
        azimuth = begin + share * math.radians(self.azimuth_span)
        place = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
        elevation = torch.deg2rad(self.elevation_min + (self.elevation_max - self.elevation_min) * place)
        return look_at_origin(azimuth, elevation, size, self.distance, math.radians(self.fov_y))

    def sample_multiview(self, groups: int, views: int, size: int, rng: torch.Generator) -> Cameras:
        """Groups of `views` cameras, one after another, that stand evenly around the asset at one elevation each; the
        turns and the elevations of the groups are stratified.
        """
        turn = (torch.arange(groups) + torch.rand(1, generator=rng)) / (groups * views)
        azimuth = math.radians(self.azimuth_center) + math.tau * (turn[:, None] + torch.arange(views) / views)
        place = (torch.randperm(groups, generator=rng) + torch.rand(groups, generator=rng)) / groups
        elevation = torch.deg2rad(
            self.elevation_min + (self.elevation_max - self.elevation_min) * place
        ).repeat_interleave(views)
        return look_at_origin(azimuth.flatten(), elevation, size, self.distance, math.radians(self.fov_y))


def sample_backgrounds(count: int, rng: torch.Generator) -> Float[Tensor, "B 3"]:
    """A solid colour behind each view: a third white, a third grey of any level, a third any colour.

    A background that changes from step to step leaves a scene no way to paint it; it has to become transparent there.
    """
    kind = torch.randint(3, (count, 1), generator=rng)
    grey = torch.rand(count, 1, generator=rng).expand(count, 3)
    colour = torch.rand(count, 3, generator=rng)
    return torch.where(kind == 0, 1.0, torch.where(kind == 1, grey, colour))
