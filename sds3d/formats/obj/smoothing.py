"""Normals after smoothing groups: faces of one group are smooth where they meet, those of none are flat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def smoothed(
    positions: Float[ndarray, "P 3"], faces: Int[ndarray, "F 3"], group: Int[ndarray, " F"]
) -> tuple[Float[ndarray, "N 3"], Int[ndarray, "F 3"]]:
    """Normals, and which of them each corner has; `group` of 0 or less stands for none."""
    with np.errstate(all="ignore"):
        corners = positions[faces]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.broadcast_to(-1 - np.arange(len(faces))[:, None], faces.shape)
    groups = np.where(group[:, None] > 0, np.broadcast_to(group[:, None], faces.shape), flat)
    points = np.unique(positions, axis=0, return_inverse=True)[1].reshape(-1)[faces]
    _, normal_of = np.unique(np.stack([points.reshape(-1), groups.reshape(-1)], -1), axis=0, return_inverse=True)
    normal_of = normal_of.reshape(-1)
    sums = np.zeros((int(normal_of.max(initial=-1)) + 1, 3))
    np.add.at(sums, normal_of, np.repeat(np.nan_to_num(across), 3, 0))
    return sums, normal_of.reshape(faces.shape)
