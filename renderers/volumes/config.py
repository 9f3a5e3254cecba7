"""Knobs of a scene that is a volume (Mildenhall et al. 2020, NeRF)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from renderers.scene import SceneKnobs
from renderers.splats import spherical_harmonics
from renderers.volumes.voxel_field import LARGEST

if TYPE_CHECKING:
    from renderers.volumes.scene import NerfScene

LEVELS = 8
"""Hash tables of a field of these."""
_RANGES = {
    "resolution": (8, LARGEST),
    "resolution_end": (8, LARGEST),
    "growths": (0, 8),
    "levels": (1, LEVELS),
    "samples": (8, 2048),
    "cells": (4, 128),
    "refresh": (1, 1000),
    "thinnest": (1e-6, 0.5),
    "dense_until": (0.0, 1.0),
    "shaded": (0.0, 1.0),
    "textureless": (0.0, 1.0),
    "ambient": (0.0, 1.0),
}


@dataclass(frozen=True)
class Nerf(SceneKnobs):
    """Knobs of a volume. Lengths are in units of the unit ball; rates are Adam's."""

    field: Literal["voxels", "hashed"] = "voxels"
    """A dense grid of voxels, the fastest on a CPU; or hash tables with a small network behind."""
    resolution: int = 64
    """Corners of the voxels along a side of the cube around the ball at the start; finest voxels of the hash tables."""
    resolution_end: int = 128
    """Corners along a side in the end."""
    growths: int = 2
    """How many times the grid of voxels is made finer on the way there, each time by the same factor."""
    levels: int = 8
    """Hash tables that there are at the start, of the 8, the coarsest first; the others come in one by one. With the
    embedded prior, four or two at the start made assets no better than all."""
    grow_from: float = 0.2
    """Progress, 0..1, at which voxels are made finer for the first time, and the next hash table begins to come in."""
    grow_until: float = 0.6
    """Progress at which voxels are for the last time, and all hash tables are in."""
    samples: int = 128
    """Samples along a diameter of the ball."""
    scale: float = 20.0
    """Density is this times softplus of what is stored."""
    blob: float = 7.0
    """How much more is stored in the middle than at the edge at the start."""
    blob_width: float = 0.35
    """Standard deviation of that bump."""
    cells: int = 32
    """Cells along a side of the cube that are skipped where nothing is."""
    thinnest: float = 0.003
    """Cells in which no sample has this opacity are skipped."""
    dense_until: float = 0.05
    """Nothing is skipped before this progress."""
    refresh: int = 16
    """Steps after which it is found out again where something is."""
    rate: float = 0.1
    """Rate of the voxels at the start; that of surroundings is half of it, that of a hashed field a tenth."""
    rate_end: float = 0.03
    """The same at the end; in between it falls exponentially."""
    shaded: float = 0.0
    """Share of the pictures that are drawn under a random light once `shade_from` is reached, 0..1."""
    textureless: float = 0.5
    """Share of these that are drawn white, 0..1."""
    shade_from: float = 0.1
    """Progress from which on there is light."""
    ambient: float = 0.1
    """Share of the light that comes from everywhere, 0..1."""
    surroundings: int | None = None
    """Degree, 0..3, of spherical harmonics that are learned for what lies behind; None: the backgrounds it is given."""
    sparsity: float = 0.0
    """Weight of the mean alpha of the pictures."""
    opacity: float = 0.0
    """Weight of the mean of sqrt(alpha^2 + 0.01) (Poole et al. 2022, appendix A.3): empties what is not needed."""
    orientation: float = 0.0
    """Weight of normals that face away (Verbin et al. 2022, equation 11). Dear for a hashed field."""
    distortion: float = 0.0
    """Weight of density spread along the rays (Barron et al. 2022, equation 15)."""
    entropy: float = 0.0
    """Weight of the mean binary entropy of the alphas, in nats: drives them to 0 or 1."""
    smoothness: float = 20.0
    """Weight of the mean length of the gradient of the voxels' raw density (total variation): smooths surfaces."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; it lies between {least} and {most}")
        if self.resolution_end < self.resolution:
            found = f"resolution is {self.resolution} and resolution_end {self.resolution_end}"
            raise ValueError(f"{found}; a grid only becomes finer")
        if not 0 <= self.grow_from <= self.grow_until <= 1:
            found = f"growing from {self.grow_from} until {self.grow_until}"
            raise ValueError(f"{found}; 0 <= grow_from <= grow_until <= 1 is needed")
        for name in ("rate", "rate_end", "scale", "blob_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        for name in ("sparsity", "opacity", "orientation", "distortion", "entropy", "smoothness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; a weight is a number from 0 upwards")
        if self.surroundings is not None:
            spherical_harmonics.coefficients(self.surroundings)

    @property
    def step(self) -> float:
        """Distance between two samples."""
        return 2 / self.samples

    def resolution_at(self, progress: float) -> int:
        """Corners along a side of the grid of voxels at this progress, 0..1."""
        pace = (self.grow_until - self.grow_from) / max(self.growths - 1, 1)
        due = math.floor((progress - self.grow_from) / pace + 1e-6) + 1 if pace else int(progress >= self.grow_from)
        share = min(max(due, 0), self.growths) / max(self.growths, 1)
        factor: float = (self.resolution_end / self.resolution) ** share
        return round(self.resolution * factor)

    def levels_at(self, progress: float) -> float:
        """Hash tables that are in at this progress, 0..1; one that is coming in counts in part."""
        pace = max(self.grow_until - self.grow_from, 1e-6)
        return self.levels + (LEVELS - self.levels) * min(max((progress - self.grow_from) / pace, 0.0), 1.0)

    def build(self, device: torch.device | str, generator: torch.Generator) -> NerfScene:
        """A grey blob in the middle; `generator` also draws all chance that the scene needs later."""
        from renderers.volumes.scene import NerfScene

        return NerfScene(self, torch.device(device), generator)
