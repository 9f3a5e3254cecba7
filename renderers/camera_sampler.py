"""Where the next views of a run come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.cameras import DISTANCE, FOV, Cameras, looking_at_origin


@dataclass(frozen=True)
class Orbit:
    """Cameras on a sphere around the asset, looking at its middle. Angles in degrees."""

    lowest: float = -15.0
    """Least elevation."""
    highest: float = 55.0
    """Greatest elevation."""
    towards: float = 0.0
    """Azimuth of the middle of the range; 0 is the front."""
    around: float = 360.0
    """Width of the range of azimuths; 0 is one side alone."""
    distance: float = DISTANCE
    """From the middle of the asset, whose content lies in the unit ball."""
    fov: float = math.degrees(FOV)
    """Vertical field of view."""

    def __post_init__(self) -> None:
        if not -90 <= self.lowest <= self.highest <= 90:
            raise ValueError(f"elevations {self.lowest} to {self.highest}: expected -90 <= lowest <= highest <= 90")
        if not (0 <= self.around <= 360 and math.isfinite(self.towards)):
            raise ValueError(f"azimuths {self.around} wide around {self.towards}: expected a width of 0 to 360")
        if not 1 < self.distance < math.inf:
            raise ValueError(f"distance {self.distance}: expected more than 1, or the camera is inside the unit ball")
        if not 0 < self.fov < 180:
            raise ValueError(f"fov {self.fov}: expected degrees between 0 and 180")

    def draw(self, count: int, size: int, rng: torch.Generator) -> Cameras:
        """`count` cameras spread evenly around with one random turn, elevations stratified over the range.

        `size` is the height and width of their pictures in pixels.
        """
        turn = torch.rand(1, generator=rng)
        share = (torch.arange(count) + turn) / count
        # All around, it does not matter where the range begins: at the front, as ever.
        begin = math.radians(self.towards) - (0.0 if self.around == 360 else math.radians(self.around) / 2)
        azimuth = begin + share * math.radians(self.around)
        place = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
        elevation = torch.deg2rad(self.lowest + (self.highest - self.lowest) * place)
        return looking_at_origin(azimuth, elevation, size, self.distance, math.radians(self.fov))

    def draw_around(self, groups: int, views: int, size: int, rng: torch.Generator) -> Cameras:
        """Groups of `views` cameras, one after another, that stand evenly around the asset at one elevation each; the
        turns and the elevations of the groups are stratified.
        """
        turn = (torch.arange(groups) + torch.rand(1, generator=rng)) / (groups * views)
        azimuth = math.radians(self.towards) + math.tau * (turn[:, None] + torch.arange(views) / views)
        place = (torch.randperm(groups, generator=rng) + torch.rand(groups, generator=rng)) / groups
        elevation = torch.deg2rad(self.lowest + (self.highest - self.lowest) * place).repeat_interleave(views)
        return looking_at_origin(azimuth.flatten(), elevation, size, self.distance, math.radians(self.fov))


def backdrops(count: int, rng: torch.Generator) -> Float[Tensor, "B 3"]:
    """A solid colour behind each view: a third white, a third grey of any level, a third any colour.

    A background that changes from step to step leaves a scene no way to paint it; it has to become transparent there.
    """
    kind = torch.randint(3, (count, 1), generator=rng)
    grey = torch.rand(count, 1, generator=rng).expand(count, 3)
    colour = torch.rand(count, 3, generator=rng)
    return torch.where(kind == 0, 1.0, torch.where(kind == 1, grey, colour))
