"""How dense a cloud of splats is: from Gaussians to a regular grid of numbers.

Shapes: N splats, (X, Y, Z) points of the grid. Quaternions are w, x, y, z; scales are natural logarithms;
opacities are logits, as everywhere in splat files.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from renderers.kernels import library
from renderers.splats.scene import SplatScene

MAX_SIGMA = 3.0
"""Standard deviations beyond which a splat adds nothing."""
MIN_OPACITY = 1 / 255
"""Opacity below which a splat adds nothing."""
BOUND = 1.05
"""Half the side of the largest box that is looked at; content lies in the unit ball."""
BLUR = 0.5
"""Blur of every splat, in spacings of the grid, so that thin ones do not slip between its points."""


@dataclass(frozen=True)
class SplatParameters:
    """The raw parameters of N splats, as they are trained and stored, with K harmonics per channel."""

    means: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, "N 3"]
    """Natural logarithms of the standard deviations along the splat's own axes."""
    quats: Float[Tensor, "N 4"]
    """Rotations w, x, y, z, of any length but 0."""
    logit_opacities: Float[Tensor, " N"]
    sh: Float[Tensor, "N K 3"]
    """Spherical harmonics; colour is 0.5 + 0.28209479 sh[:, 0] and what depends on the view."""


AnySplats = SplatParameters | SplatScene
"""Both carry the same five tensors."""


@dataclass(frozen=True)
class ScalarGrid:
    """Numbers at the points of a cubic lattice."""

    values: Float[ndarray, "X Y Z"]
    origin: Float[ndarray, " 3"]
    """Position of the first point."""
    spacing: float
    """Distance between neighbours."""


def density(splats: AnySplats, resolution: int) -> ScalarGrid:
    """Sum over splats of opacity * exp(-0.5 d^T Sigma^-1 d) on a grid around them.

    The box fits the splats, inside of +-BOUND, with `resolution` points along its longest side.
    Raises ValueError when there is no splat to be seen.
    """
    means, covariances, opacities = _visible(splats)
    reach = MAX_SIGMA * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    low = np.maximum((means - reach).min(0), -BOUND)
    high = np.minimum((means + reach).max(0), BOUND)
    if (high <= low).any():
        raise ValueError(f"the scene is empty: no splat lies in the box of +-{BOUND} around the origin")
    spacing = float((high - low).max()) / (resolution - 1)
    shape = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    covariances = covariances + (BLUR * spacing) ** 2 * np.eye(3)
    grid = ScalarGrid(np.zeros(np.maximum(shape, 2), np.float32), low, spacing)
    _add(grid, means, covariances, opacities)
    return grid


def _visible(splats: AnySplats) -> tuple[ndarray, ndarray, ndarray]:
    """Means [N 3], covariances [N 3 3] and opacities [N] of the splats that can be seen, float64."""
    means, log_scales, quats, logits = (
        part.detach().double().cpu().numpy()
        for part in (splats.means, splats.log_scales, splats.quats, splats.logit_opacities)
    )
    opacities = 1 / (1 + np.exp(-logits.clip(-50, 50)))
    finite = np.isfinite(np.concatenate([means, log_scales, quats, opacities[:, None]], -1)).all(-1)
    keep = finite & (opacities >= MIN_OPACITY)
    if not keep.any():
        brightest = f"their highest opacity is {opacities.max():.2g}" if len(opacities) else "it has no splats"
        raise ValueError(f"the scene is empty: no splat is more opaque than {MIN_OPACITY:.2g} ({brightest})")
    axes = rotations(quats[keep]) * np.exp(log_scales[keep])[:, None, :]
    return means[keep], axes @ axes.transpose(0, 2, 1), opacities[keep]


def rotations(quats: Float[ndarray, "N 4"]) -> Float[ndarray, "N 3 3"]:
    """Rotation matrices of quaternions w, x, y, z of any length but 0."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=-1, keepdims=True).clip(1e-12)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], 1)


def _add(grid: ScalarGrid, means: ndarray, covariances: ndarray, peaks: ndarray) -> None:
    """Adds Gaussians to the values of `grid`, by the native kernel where it is built, else by the twin."""
    native = library()
    if native is None:
        add_reference(grid, means, covariances, peaks)
        return
    precisions = np.linalg.inv(covariances)[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    extents = MAX_SIGMA * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    arrays = [np.ascontiguousarray(a, np.float64) for a in (means, precisions, extents, peaks, grid.origin)]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
    sizes = [ctypes.c_int64(n) for n in grid.values.shape]
    native.sds3d_density(
        *pointers[:4], ctypes.c_int64(len(means)), ctypes.c_double(MAX_SIGMA), pointers[4],
        ctypes.c_double(grid.spacing), *sizes, ctypes.c_void_p(grid.values.ctypes.data),
    )  # fmt: skip


def add_reference(grid: ScalarGrid, means: ndarray, covariances: ndarray, peaks: ndarray) -> None:
    """The twin of the native kernel, in numpy: one box of the grid at a time."""
    extents = MAX_SIGMA * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    lows = np.ceil((means - extents - grid.origin) / grid.spacing).clip(0, grid.values.shape).astype(int)
    highs = (np.floor((means + extents - grid.origin) / grid.spacing) + 1).clip(0, grid.values.shape).astype(int)
    for mean, precision, peak, low, high in zip(means, np.linalg.inv(covariances), peaks, lows, highs, strict=True):
        if math.prod((high - low).clip(0)) == 0:
            continue
        axes = [grid.origin[d] + grid.spacing * np.arange(low[d], high[d]) - mean[d] for d in range(3)]
        offset = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        squared = np.einsum("xyza,ab,xyzb->xyz", offset, precision, offset, optimize=True)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid.values[box] += peak * np.exp(-0.5 * squared) * (squared <= MAX_SIGMA**2)
