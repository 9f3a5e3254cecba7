"""Knobs of a scene of splats, Gaussians or surfels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from renderers.scene import SceneKnobs
from renderers.splats import spherical_harmonics

if TYPE_CHECKING:
    from renderers.splats.scene import SplatScene

MOST = 5_000_000
"""Splats that a scene may ask for."""


@dataclass(frozen=True)
class Splats(SceneKnobs):
    """Knobs of a scene of splats. Lengths are in units of the unit ball; rates are Adam's."""

    count: int = 3000
    """Splats at the start."""
    max_count: int = 8000
    """Splats at most."""
    sh_degree: int = 0
    """0: colours are the same from everywhere; up to 3."""
    radius: float = 0.6
    """Radius of the ball that is filled at the start."""
    opacity: float = 0.1
    """Opacity of every splat at the start, 0..1."""
    smallest: float = 0.004
    """Least standard deviation along an axis."""
    largest: float = 0.12
    """Greatest standard deviation along an axis."""
    mean_rate: float = 4e-3
    """Rate of the centres at the start."""
    mean_rate_end: float = 4e-4
    """Rate of the centres at the end; in between it falls exponentially."""
    scale_rate: float = 1e-2
    """Rate of the logarithms of the scales."""
    quat_rate: float = 1e-2
    """Rate of the unit quaternions."""
    opacity_rate: float = 5e-2
    """Rate of the logits of the opacities."""
    colour_rate: float = 2e-2
    """Rate of the coefficients of spherical harmonics."""
    grow_from: float = 0.1
    """Progress, 0..1, at which growing and pruning begin."""
    grow_until: float = 0.7
    """Progress at which growing ends; pruning goes on at the same pace until 0.2 later."""
    grow_times: int = 10
    """How often splats are added in that window, evenly spread."""
    grow_share: float = 0.2
    """Share of the splats that is cloned (small ones) or split (large ones) each time."""
    split_above: float = 0.04
    """A splat with a standard deviation above this is split, else cloned."""
    prune_below: float = 0.02
    """Splats of less opacity than this are removed."""
    reach: float = 1.15
    """Splats with their centre outside the ball of this radius are removed."""
    sparsity: float = 0.0
    """Weight of the mean alpha of the pictures."""
    entropy: float = 0.0
    """Weight of the mean binary entropy of the opacities, in nats: drives them to 0 or 1."""
    anisotropy: float = 0.1
    """Weight of the mean square of log(longest axis / shortest axis / 8), where above 0; of surfels, of the two axes
    that they have.
    """
    growth: Literal["share", "threshold", "mcmc"] = "share"
    """share: the `grow_share` that is pulled hardest divides. threshold: all that are pulled harder than `grow_pull`
    do, as in 3DGS. mcmc: none dies, faint ones move to strong ones, and noise explores.
    """
    grow_pull: float = 5.0
    """threshold: mean pull per half width of a picture above which a splat divides. It goes with the prior and the
    objective: 5 suits the embedded prior with SDS; photometric losses, such as that of 3DGS, take 0.0002.
    """
    reset_every: int = 0
    """threshold: rounds after which all opacities are lowered to twice `prune_below`; 0: never."""
    noise: float = 2e4
    """mcmc: noise of the centres of faint splats, in rates of the centres."""
    opacity_cost: float = 0.0
    """Weight of the mean opacity; with mcmc it makes more splats faint enough to move, and pictures softer."""
    scale_cost: float = 0.0
    """Weight of the mean standard deviation."""
    antialiased: bool = False
    """Splats smaller than a pixel fade instead of growing to its size (Mip-Splatting's 2D filter). Files of splats do
    not tell this; viewers that draw them the usual way show such splats thicker.
    """
    absolute: bool = False
    """A splat's pull is the sum of the sizes of its pixels' pulls, which cannot cancel (AbsGS); costs some time."""
    shape: Literal["gaussians", "surfels"] = "gaussians"
    """gaussians: ellipsoids. surfels: flat discs (2DGS), seen where the ray meets them; files and chance take them for
    ellipsoids whose third axis is `smallest`, meshes for thicker ones.
    """
    unevenness: float = 1e3
    """surfels: weight of the mean of (1 - cosine) between their normals and those of the depths that they show. It goes
    with the prior and the objective: this suits the embedded prior with SDS, and thrice as much shows less detail;
    photometric losses take 0.05.
    """
    distortion: float = 5e3
    """surfels: weight of the mean distance in depth between what a pixel shows; as above, for the embedded prior."""

    def __post_init__(self) -> None:
        spherical_harmonics.coefficients(self.sh_degree)
        if not 1 <= self.count <= self.max_count:
            raise ValueError(f"count is {self.count} and max_count {self.max_count}; 1 <= count <= max_count is needed")
        if self.max_count > MOST:
            raise ValueError(f"max_count is {self.max_count}; at most {MOST} splats are taken")
        for name in ("radius", "mean_rate", "mean_rate_end"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        if not 0 < self.smallest < self.largest:
            found = f"smallest is {self.smallest} and largest {self.largest}"
            raise ValueError(f"{found}; 0 < smallest < largest is needed")
        if not 0 < self.opacity < 1:
            raise ValueError(f"opacity is {self.opacity}; it lies between 0 and 1")
        if not 0 <= self.grow_from < self.grow_until <= 1 or self.grow_times < 1:
            raise ValueError(
                f"growing from {self.grow_from} until {self.grow_until}, {self.grow_times} times; "
                "0 <= grow_from < grow_until <= 1 and at least once is needed"
            )
        for name in ("grow_pull", "reset_every", "noise", "opacity_cost", "scale_cost", "unevenness", "distortion"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number from 0 upwards")
        for name in ("antialiased", "absolute"):
            if getattr(self, name) and self.shape == "surfels":
                raise ValueError(f"{name} is {getattr(self, name)} and shape is surfels; only gaussians can be {name}")

    def build(self, device: torch.device | str, generator: torch.Generator) -> SplatScene:
        """A ball of grey splats; `generator` also draws all chance that the scene needs later."""
        from renderers.splats.scene import SplatScene

        return SplatScene(self, torch.device(device), generator)
