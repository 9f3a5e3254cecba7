"""Knobs of a scene that is a volume (Mildenhall et al. 2020, NeRF)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from renderers.scene import SceneConfig
from renderers.splats import spherical_harmonics
from renderers.volumes.voxel_field import MAX_RESOLUTION

if TYPE_CHECKING:
    from renderers.volumes.scene import NerfScene

LEVELS = 8
"""Hash tables of a field of these."""
_RANGES = {
    "resolution": (8, MAX_RESOLUTION),
    "resolution_end": (8, MAX_RESOLUTION),
    "num_upsamplings": (0, 8),
    "init_levels": (1, LEVELS),
    "samples_per_diameter": (8, 2048),
    "occupancy_resolution": (4, 128),
    "occupancy_every": (1, 1000),
    "occupancy_threshold": (1e-6, 0.5),
    "occupancy_warmup": (0.0, 1.0),
    "p_shaded": (0.0, 1.0),
    "p_textureless": (0.0, 1.0),
    "ambient": (0.0, 1.0),
}


@dataclass(frozen=True)
class NerfConfig(SceneConfig):
    """Knobs of a volume. Lengths are in units of the unit ball; rates are Adam's."""

    lr_fields: ClassVar[tuple[str, ...]] = ("lr", "lr_final")

    field: Literal["voxels", "hashed"] = "voxels"
    """A dense grid of voxels, the fastest on a CPU; or hash tables with a small network behind."""
    resolution: int = 64
    """Corners of the voxels along a side of the cube around the ball at the start; finest voxels of the hash tables."""
    resolution_end: int = 128
    """Corners along a side in the end."""
    num_upsamplings: int = 2
    """How many times the grid of voxels is made finer on the way there, each time by the same factor."""
    init_levels: int = 8
    """Hash tables that there are at the start, of the 8, the coarsest first; the others come in one by one. With the
    embedded prior, four or two at the start made assets no better than all."""
    upsample_start: float = 0.2
    """Progress, 0..1, at which voxels are made finer for the first time, and the next hash table begins to come in."""
    upsample_stop: float = 0.6
    """Progress at which voxels are for the last time, and all hash tables are in."""
    samples_per_diameter: int = 128
    """Samples along a diameter of the ball."""
    density_scale: float = 20.0
    """Density is this times softplus of what is stored."""
    blob: float = 7.0
    """How much more is stored in the middle than at the edge at the start."""
    blob_width: float = 0.35
    """Standard deviation of that bump."""
    occupancy_resolution: int = 32
    """Cells along a side of the cube that are skipped where nothing is."""
    occupancy_threshold: float = 0.003
    """Cells in which no sample has this opacity are skipped."""
    occupancy_warmup: float = 0.05
    """Nothing is skipped before this progress."""
    occupancy_every: int = 16
    """Steps after which it is found out again where something is."""
    lr: float = 0.1
    """Rate of the voxels at the start; that of surroundings is half of it, that of a hashed field a tenth."""
    lr_final: float = 0.03
    """The same at the end; in between it falls exponentially."""
    p_shaded: float = 0.0
    """Share of the pictures that are drawn under a random light once `shading_start` is reached, 0..1."""
    p_textureless: float = 0.5
    """Share of these that are drawn white, 0..1."""
    shading_start: float = 0.1
    """Progress from which on there is light."""
    ambient: float = 0.1
    """Share of the light that comes from everywhere, 0..1."""
    background_sh_degree: int | None = None
    """Degree, 0..3, of spherical harmonics that are learned for what lies behind; None: the backgrounds it is given."""
    lambda_sparsity: float = 0.0
    """Weight of the mean alpha of the pictures."""
    lambda_opaque: float = 0.0
    """Weight of the mean of sqrt(alpha^2 + 0.01) (Poole et al. 2022, appendix A.3): empties what is not needed."""
    lambda_orient: float = 0.0
    """Weight of normals that face away (Verbin et al. 2022, equation 11). Dear for a hashed field."""
    lambda_distortion: float = 0.0
    """Weight of density spread along the rays (Barron et al. 2022, equation 15)."""
    lambda_entropy: float = 0.0
    """Weight of the mean binary entropy of the alphas, in nats: drives them to 0 or 1."""
    lambda_tv: float = 20.0
    """Weight of the mean length of the gradient of the voxels' raw density (total variation): smooths surfaces."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; it lies between {least} and {most}")
        if self.resolution_end < self.resolution:
            found = f"resolution is {self.resolution} and resolution_end {self.resolution_end}"
            raise ValueError(f"{found}; a grid only becomes finer")
        if not 0 <= self.upsample_start <= self.upsample_stop <= 1:
            found = f"growing from {self.upsample_start} until {self.upsample_stop}"
            raise ValueError(f"{found}; 0 <= upsample_start <= upsample_stop <= 1 is needed")
        for name in ("lr", "lr_final", "density_scale", "blob_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        for name in (
            "lambda_sparsity",
            "lambda_opaque",
            "lambda_orient",
            "lambda_distortion",
            "lambda_entropy",
            "lambda_tv",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; a weight is a number from 0 upwards")
        if self.background_sh_degree is not None:
            spherical_harmonics.num_sh_bases(self.background_sh_degree)

    @property
    def step(self) -> float:
        """Distance between two samples."""
        return 2 / self.samples_per_diameter

    def resolution_at(self, progress: float) -> int:
        """Corners along a side of the grid of voxels at this progress, 0..1."""
        pace = (self.upsample_stop - self.upsample_start) / max(self.num_upsamplings - 1, 1)
        due = (
            math.floor((progress - self.upsample_start) / pace + 1e-6) + 1
            if pace
            else int(progress >= self.upsample_start)
        )
        share = min(max(due, 0), self.num_upsamplings) / max(self.num_upsamplings, 1)
        factor: float = (self.resolution_end / self.resolution) ** share
        return round(self.resolution * factor)

    def levels_at(self, progress: float) -> float:
        """Hash tables that are in at this progress, 0..1; one that is coming in counts in part."""
        pace = max(self.upsample_stop - self.upsample_start, 1e-6)
        return self.init_levels + (LEVELS - self.init_levels) * min(
            max((progress - self.upsample_start) / pace, 0.0), 1.0
        )

    def build(self, device: torch.device | str, generator: torch.Generator) -> NerfScene:
        """A grey blob in the middle; `generator` also draws all chance that the scene needs later."""
        from renderers.volumes.scene import NerfScene

        return NerfScene(self, torch.device(device), generator)
