"""Surfels as splats that fill space, for what is made from a density: of discs alone, only walls are left."""

from __future__ import annotations

import math

import torch

from renderers.splats.density_grid import AnySplats, SplatParameters
from renderers.splats.scene import SplatScene

THICKNESS = 0.25
"""Standard deviation across a surfel, as a share of the geometric mean of the two along it. Less leaves meshes rough,
more makes them smoother and their outlines worse: 0.5 took 0.007 and 0.017 of the IoU of an armchair and a bear."""


@torch.no_grad()
def inflate_surfels(scene: SplatScene) -> AnySplats:
    """The splats of a scene; surfels with a third axis that goes with the two that they have."""
    if not scene.wish.surfels:
        return scene
    log_scales = scene.log_scales.clone()
    log_scales[:, 2] = log_scales[:, :2].mean(-1) + math.log(THICKNESS)
    return SplatParameters(scene.means, log_scales, scene.quats, scene.logit_opacities, scene.sh)
