"""Closed surfaces: where a density passes a level, made smooth, made of fewer triangles, and mended.

Shapes: X, Y, Z points of a grid, V vertices, F triangles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from renderers.meshes.mesh import Surface
from renderers.splats.density_grid import ScalarGrid

MIN_COMPONENT_VOLUME = 0.02
"""Pieces smaller than this fraction of the largest one's volume are dropped."""
MENDINGS = 20
"""Most rounds of mending a simplified surface."""


def marching_surface(grid: ScalarGrid, level: float) -> Surface:
    """One closed shell per piece of the set where the density is above `level`, cavities filled, floaters dropped.

    Raises ValueError where nothing is above the level.
    """
    from skimage.measure import marching_cubes

    densest = float(grid.values.max())
    if not 0 < level < densest:
        raise ValueError(
            f"no surface at density {level:.3g}: the level must be above 0 and below {densest:.3g}, "
            "the density at the scene's densest point"
        )
    values = np.pad(grid.values, 1)
    # -1..1 with 0 at the level; a Gaussian's flank is nearly straight in it, so linear interpolation places it well.
    field = (values - level) / (values + level)
    solid, gone = _solid(field > 0)
    field[solid & (field <= 0)] = 1.0
    field[gone] = -1.0
    vertices, faces, _, _ = marching_cubes(field, 0.0, allow_degenerate=False)
    return outward(Surface(grid.origin + grid.spacing * (vertices.astype(np.float64) - 1), faces.astype(np.int32)))


def _solid(inside: Bool[ndarray, "X Y Z"]) -> tuple[Bool[ndarray, "X Y Z"], Bool[ndarray, "X Y Z"]]:
    """(the kept pieces with their cavities filled, what was dropped)."""
    from scipy import ndimage

    labels, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = (sizes >= MIN_COMPONENT_VOLUME * sizes.max()) & (sizes > 0)
    solid = kept[labels]
    filled: ndarray = ndimage.binary_fill_holes(solid)
    return filled, inside & ~filled


def outward(surface: Surface) -> Surface:
    """The same surface with its triangles facing outward."""
    return surface if surface.volume >= 0 else replace(surface, faces=surface.faces[:, ::-1].copy())


def smooth_taubin(surface: Surface, rounds: int = 10) -> Surface:
    """Taubin's two-step smoothing: irons out the grid's steps and keeps the volume (Taubin 1995, lambda and mu)."""
    from scipy import sparse

    count = len(surface.vertices)
    pairs = surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ones = np.ones(len(pairs), np.float64)
    joined = sparse.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (count, count))
    joined = ((joined + joined.T) > 0).astype(np.float64)
    average = sparse.diags(1 / np.maximum(joined.sum(1).A1, 1)) @ joined
    vertices = surface.vertices.astype(np.float64)
    for _ in range(rounds):
        for step in (0.5, -0.53):
            vertices = vertices + step * (average @ vertices - vertices)
    return replace(surface, vertices=vertices)


def simplify(surface: Surface, faces: int) -> Surface:
    """At most about `faces` triangles, by quadric error, none of them degenerate; a closed surface stays closed."""
    import fast_simplification

    vertices, triangles = surface.vertices.astype(np.float32), surface.faces.astype(np.int32)
    if len(triangles) > faces:
        vertices, triangles = fast_simplification.simplify(vertices, triangles, target_count=faces)
    return outward(repair(Surface(vertices, triangles)))


def repair(surface: Surface) -> Surface:
    """Without triangles of no area, edges that more than two triangles share, and vertices that none uses; float32.

    Collapsing edges, to simplify, now and then glues two sheets together or leaves a needle. Collapsing what is
    wrong opens no hole: a triangle that goes takes with it an edge on either side, and these become one.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    vertices, faces = surface.vertices.astype(np.float64), _without_flaps(surface.faces)
    for _ in range(MENDINGS):
        a, b = np.concatenate([_nonmanifold_edges(faces), _needles(vertices, faces)]).T
        if len(a) == 0:
            break
        joins = coo_matrix((np.ones(len(a)), (a, b)), (len(vertices), len(vertices)))
        _, group = connected_components(joins, directed=False)
        _, first = np.unique(group, return_index=True)
        faces = _without_flaps(first[group][faces])
    used, index = np.unique(faces, return_inverse=True)
    return Surface(vertices[used].astype(np.float32), index.reshape(-1, 3).astype(np.int32))


def _without_flaps(faces: Int[ndarray, "F 3"]) -> Int[ndarray, "G 3"]:
    """Without triangles that name a vertex twice, and without pairs that lie back to back; one of equal ones stays."""
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    _, group = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    # +1 where the corners come in rising order, from the least one round, -1 where they fall.
    least = faces.argmin(1)
    rows = np.arange(len(faces))
    side = np.where(faces[rows, (least + 1) % 3] < faces[rows, (least + 2) % 3], 1, -1)
    excess = np.sign(np.bincount(group, side))[group]
    odd = np.flatnonzero(excess == side)
    _, first = np.unique(group[odd], return_index=True)
    kept: ndarray = faces[odd[np.sort(first)]]
    return kept


def _nonmanifold_edges(faces: Int[ndarray, "F 3"]) -> Int[ndarray, "E 2"]:
    """Edges that more than two triangles share."""
    edges, count = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True)
    crowded: ndarray = edges[count > 2]
    return crowded


def _needles(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Int[ndarray, "E 2"]:
    """The shortest edge of every triangle of (nearly) no area."""
    corners = vertices[faces]
    lengths = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=-1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    flat = np.flatnonzero(area <= 1e-6 * lengths.max(1) ** 2)
    start = lengths[flat].argmin(1)
    return np.stack([faces[flat, start], faces[flat, (start + 1) % 3]], -1)
