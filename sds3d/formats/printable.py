"""A mesh that can be printed: one closed shell, facing outward, on request with a flat base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from renderers.meshes.mesh import Mesh, Surface
from renderers.meshing.isosurface import outward, repair

BASE = 0.02
"""Share of the height that a flat base takes off."""


def welded(mesh: Mesh) -> tuple[Surface, Int[ndarray, " P"]]:
    """The shape with the corners of its seams joined, and for every point a vertex of the mesh that lies there."""
    points, first, point_of = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    return Surface(points, point_of.reshape(-1)[mesh.faces].astype(np.int32)), first


def shells(surface: Surface) -> Int[ndarray, " F"]:
    """The number of the connected piece that each triangle belongs to, 0 and up."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, c = surface.faces.T
    ends = np.concatenate([a, b]), np.concatenate([b, c])
    count = len(surface.vertices)
    _, piece = connected_components(coo_matrix((np.ones(len(ends[0])), ends), (count, count)), directed=False)
    _, number = np.unique(piece[a], return_inverse=True)
    numbers: ndarray = number.reshape(-1)
    return numbers


def printable(mesh: Mesh, flat_base: bool) -> tuple[Mesh, list[str]]:
    """The largest shell alone, and remarks on what was done and what was found; its colours stay at its points.

    Raises ValueError where that shell is not closed: nothing is claimed that does not hold.
    """
    remarks: list[str] = []
    surface, first = welded(mesh)
    number = shells(surface)
    volumes = [Surface(surface.vertices, surface.faces[number == k]).volume for k in range(number.max() + 1)]
    largest = int(np.argmax(np.abs(volumes)))
    if len(volumes) > 1:
        rest = sum(abs(v) for v in volumes) - abs(volumes[largest])
        share = rest / max(abs(volumes[largest]), 1e-30)
        remarks.append(f"left out {len(volumes) - 1} smaller shells, {share:.1%} of the volume of the one that is kept")
    solid = outward(Surface(surface.vertices, surface.faces[number == largest]))
    if flat_base:
        points = solid.vertices.astype(np.float64)
        used = points[np.unique(solid.faces), 1]
        floor = used.min() + BASE * (used.max() - used.min())
        points[:, 1] = np.maximum(points[:, 1], floor)
        solid = replace(solid, vertices=points)
        remarks.append(f"the lowest {BASE:.0%} are pressed flat")
    solid = outward(repair(solid))
    if not (len(solid.faces) and solid.closed and solid.volume > 0 and shells(solid).max() == 0):
        raise ValueError("the mesh is not one closed shell, and could not be made one; it is not fit for printing")
    remarks.append("closed, one outer shell, facing outward: checked; walls that cross each other: not checked")
    return _coloured(solid, mesh, surface, first), remarks


def _coloured(solid: Surface, mesh: Mesh, surface: Surface, first: Int[ndarray, " P"]) -> Mesh:
    """The shell with the texture coordinates of the nearest old point at each of its own."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(surface.vertices).query(solid.vertices)
    return Mesh(solid.vertices, solid.faces, solid.normals, mesh.uv[first[near]], mesh.texture)
