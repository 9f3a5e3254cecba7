"""Knobs of a scene of splats, Gaussians or surfels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from renderers.scene import SceneConfig
from renderers.splats import spherical_harmonics

if TYPE_CHECKING:
    from renderers.splats.scene import SplatScene

MAX_SPLATS = 5_000_000
"""Splats that a scene may ask for."""


@dataclass(frozen=True)
class SplatConfig(SceneConfig):
    """Knobs of a scene of splats. Lengths are in units of the unit ball; rates are Adam's."""

    lr_fields: ClassVar[tuple[str, ...]] = (
        "means_lr",
        "means_lr_final",
        "scales_lr",
        "quats_lr",
        "opacities_lr",
        "sh_lr",
    )

    init_count: int = 3000
    """Splats at the start."""
    cap_max: int = 8000
    """Splats at most."""
    sh_degree: int = 0
    """0: colours are the same from everywhere; up to 3."""
    init_radius: float = 0.6
    """Radius of the ball that is filled at the start."""
    init_opacity: float = 0.1
    """Opacity of every splat at the start, 0..1."""
    min_scale: float = 0.004
    """Least standard deviation along an axis."""
    max_scale: float = 0.12
    """Greatest standard deviation along an axis."""
    means_lr: float = 4e-3
    """Rate of the centres at the start."""
    means_lr_final: float = 4e-4
    """Rate of the centres at the end; in between it falls exponentially."""
    scales_lr: float = 1e-2
    """Rate of the logarithms of the scales."""
    quats_lr: float = 1e-2
    """Rate of the unit quaternions."""
    opacities_lr: float = 5e-2
    """Rate of the logits of the opacities."""
    sh_lr: float = 2e-2
    """Rate of the coefficients of spherical harmonics."""
    refine_start: float = 0.1
    """Progress, 0..1, at which growing and pruning begin."""
    refine_stop: float = 0.7
    """Progress at which growing ends; pruning goes on at the same pace until 0.2 later."""
    refine_count: int = 10
    """How often splats are added in that window, evenly spread."""
    grow_fraction: float = 0.2
    """Share of the splats that is cloned (small ones) or split (large ones) each time."""
    grow_scale3d: float = 0.04
    """A splat with a standard deviation above this is split, else cloned."""
    prune_opa: float = 0.02
    """Splats of less opacity than this are removed."""
    prune_radius: float = 1.15
    """Splats with their centre outside the ball of this radius are removed."""
    lambda_sparsity: float = 0.0
    """Weight of the mean alpha of the pictures."""
    lambda_entropy: float = 0.0
    """Weight of the mean binary entropy of the opacities, in nats: drives them to 0 or 1."""
    lambda_anisotropy: float = 0.1
    """Weight of the mean square of log(longest axis / shortest axis / 8), where above 0; of surfels, of the two axes
    that they have.
    """
    strategy: Literal["share", "threshold", "mcmc"] = "share"
    """share: the `grow_fraction` with the largest gradients is cloned or split. threshold: all with gradients above
    `grow_grad2d` are, as in 3DGS. mcmc: splats of low opacity are relocated, and noise explores.
    """
    grow_grad2d: float = 5.0
    """threshold: mean pull per half width of a picture above which a splat divides. It goes with the prior and the
    objective: 5 suits the embedded prior with SDS; photometric losses, such as that of 3DGS, take 0.0002.
    """
    reset_every: int = 0
    """threshold: rounds after which all opacities are lowered to twice `prune_opa`; 0: never."""
    noise_lr: float = 2e4
    """mcmc: noise of the centres of faint splats, in rates of the centres."""
    opacity_reg: float = 0.0
    """Weight of the mean opacity; with mcmc it makes more splats faint enough to move, and pictures softer."""
    scale_reg: float = 0.0
    """Weight of the mean standard deviation."""
    antialiased: bool = False
    """Splats smaller than a pixel fade instead of growing to its size (Mip-Splatting's 2D filter). Files of splats do
    not tell this; viewers that draw them the usual way show such splats thicker.
    """
    absgrad: bool = False
    """A splat's pull is the sum of the sizes of its pixels' pulls, which cannot cancel (AbsGS); costs some time."""
    primitive: Literal["gaussians", "surfels"] = "gaussians"
    """gaussians: ellipsoids. surfels: flat discs (2DGS), seen where the ray meets them; files and chance take them for
    ellipsoids whose third axis is `min_scale`, meshes for thicker ones.
    """
    lambda_normal: float = 1e3
    """surfels: weight of the mean of (1 - cosine) between their normals and those of the depths that they show. It goes
    with the prior and the objective: this suits the embedded prior with SDS, and thrice as much shows less detail;
    photometric losses take 0.05.
    """
    lambda_distortion: float = 5e3
    """surfels: weight of the mean distance in depth between what a pixel shows; as above, for the embedded prior."""

    def __post_init__(self) -> None:
        spherical_harmonics.num_sh_bases(self.sh_degree)
        if not 1 <= self.init_count <= self.cap_max:
            raise ValueError(
                f"init_count is {self.init_count} and cap_max {self.cap_max}; 1 <= init_count <= cap_max is needed"
            )
        if self.cap_max > MAX_SPLATS:
            raise ValueError(f"cap_max is {self.cap_max}; at most {MAX_SPLATS} splats are taken")
        for name in ("init_radius", "means_lr", "means_lr_final"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        if not 0 < self.min_scale < self.max_scale:
            found = f"min_scale is {self.min_scale} and max_scale {self.max_scale}"
            raise ValueError(f"{found}; 0 < min_scale < max_scale is needed")
        if not 0 < self.init_opacity < 1:
            raise ValueError(f"init_opacity is {self.init_opacity}; it lies between 0 and 1")
        if not 0 <= self.refine_start < self.refine_stop <= 1 or self.refine_count < 1:
            raise ValueError(
                f"refine_start is {self.refine_start}, refine_stop {self.refine_stop} and refine_count "
                f"{self.refine_count}; "
                "0 <= refine_start < refine_stop <= 1 and at least once is needed"
            )
        for name in (
            "grow_grad2d",
            "reset_every",
            "noise_lr",
            "opacity_reg",
            "scale_reg",
            "lambda_normal",
            "lambda_distortion",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number from 0 upwards")
        for name in ("antialiased", "absgrad"):
            if getattr(self, name) and self.primitive == "surfels":
                raise ValueError(
                    f"{name} is {getattr(self, name)} and primitive is surfels; only gaussians can be {name}"
                )

    def build(self, device: torch.device | str, generator: torch.Generator) -> SplatScene:
        """A ball of grey splats; `generator` also draws all chance that the scene needs later."""
        from renderers.splats.scene import SplatScene

        return SplatScene(self, torch.device(device), generator)
