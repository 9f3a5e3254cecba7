"""From a fine mesh to a coarser one of the same shape: what it is painted with, and how light falls on it.

Every texel of the coarse mesh takes over the place nearest to it on the fine surface, of those that face the same way.
Shapes: V vertices and F triangles of a mesh, T texels along a side, N places, K candidates for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch.nn import functional

from renderers.meshes.mesh import MaterialMaps, Mesh, Surface, sample
from renderers.meshing.tangents import tangents
from renderers.meshing.texturing import Texels, rasterize_to_texture, rasterize_uv, texels, unwrap_uv

CANDIDATES = 4
"""Triangles that are looked at closely for each place."""
CHUNK = 100_000
"""Places looked at together."""
_PLAIN = (230, 0)
"""Roughness and metal, 0..255, where a mesh says nothing of them: as exports write it."""
_STEEPEST = 0.1
"""Least z of a normal map."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a surface."""

    face: Int[ndarray, " N"]
    bary: Float[ndarray, "N 3"]

    def of(self, faces: Int[ndarray, "F 3"], values: Float[ndarray, "V C"]) -> Float[ndarray, "N C"]:
        """What is given at vertices, there."""
        there: ndarray = np.einsum("nkc,nk->nc", values[faces[self.face]], self.bary)
        return there


@dataclass(frozen=True)
class TangentFrames:
    """Three unit vectors at each place, across each other: to the right in the texture, up in it, away from the
    surface.
    """

    right: Float[ndarray, "N 3"]
    up: Float[ndarray, "N 3"]
    normal: Float[ndarray, "N 3"]


def transfer_textures(fine: Mesh, surface: Surface, size: int) -> Mesh:
    """`surface` with all textures of `fine`, of `size` texels a side, and a normal map where that has one."""
    normals, flat = surface.normals, unwrap_uv(surface)
    points = texels(surface, normals, flat, size)
    places = closest_points(fine.surface, points)
    colours = sample(_planes(fine.texture, size), places.of(fine.faces, fine.uv))
    made = Mesh(
        surface.vertices[flat.source],
        flat.faces,
        normals[flat.source],
        flat.uv,
        rasterize_to_texture(points, colours, size),
    )
    if fine.maps is None:
        return made
    grain = np.stack([fine.maps.roughness, fine.maps.metallic], -1)
    rough = rasterize_to_texture(points, sample(_planes(grain, size), places.of(fine.faces, fine.uv)), size)
    slopes = None
    if fine.maps.normals is not None:
        slopes = _slopes(made, points, shown_normals(fine, places), size)
    return replace(made, maps=MaterialMaps(rough[..., 0], rough[..., 1], slopes))


def bake_normal_map(mesh: Mesh, fine: Surface) -> Mesh:
    """The mesh with a normal map, so that light falls on it as on `fine`; what it had of one is left out."""
    size = mesh.texture.shape[0]
    points = rasterize_uv(mesh.surface, mesh.normals, mesh.uv, size)
    wanted = _unit(closest_points(fine, points).of(fine.faces, fine.normals.astype(np.float64)))
    slopes = _slopes(mesh, points, wanted, size)
    if mesh.maps is not None:
        return replace(mesh, maps=replace(mesh.maps, normals=slopes))
    roughness, metallic = (np.full((size, size), value, np.uint8) for value in _PLAIN)
    return replace(mesh, maps=MaterialMaps(roughness, metallic, slopes))


def normal_deviation_deg(mesh: Mesh, fine: Surface, size: int = 256) -> float:
    """Mean angle between the normals of the mesh, without its map, and those of `fine`, degrees."""
    points = rasterize_uv(mesh.surface, mesh.normals, mesh.uv, size)
    wanted = _unit(closest_points(fine, points).of(fine.faces, fine.normals.astype(np.float64)))
    return float(np.degrees(np.arccos((wanted * points.normals).sum(-1).clip(-1, 1))).mean())


def shown_normals(mesh: Mesh, places: SurfacePoints) -> Float[ndarray, "N 3"]:
    """The unit normals that light meets at places on a mesh: smooth, and bent by its normal map."""
    frames = frames_at(mesh, places)
    if mesh.maps is None or mesh.maps.normals is None:
        return frames.normal
    size = mesh.maps.normals.shape[0]
    x, y, z = (sample(_planes(mesh.maps.normals, size), places.of(mesh.faces, mesh.uv)) * 2 - 1).T[..., None]
    return _unit(x * frames.right + y * frames.up + z * frames.normal)


def frames_at(mesh: Mesh, places: SurfacePoints) -> TangentFrames:
    """What a normal map of the mesh is written in, at places on it."""
    given = tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces)
    away = _unit(places.of(mesh.faces, mesh.normals.astype(np.float64)))
    along = places.of(mesh.faces, given)
    right = _unit(along[:, :3] - away * (along[:, :3] * away).sum(-1, keepdims=True))
    up = np.cross(away, right) * np.where(along[:, 3:] < 0, -1.0, 1.0)
    return TangentFrames(right, up, away)


def closest_points(surface: Surface, points: Texels) -> SurfacePoints:
    """The nearest places on a surface, of triangles that face as the points do; of any where no such is near."""
    from scipy.spatial import cKDTree

    corners = surface.vertices[surface.faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    owner, seeds = _seeds(corners, np.linalg.norm(across, axis=-1))
    tree, count = cKDTree(seeds), min(CANDIDATES, len(seeds))
    faces, bary = np.empty(len(points.rows), np.int64), np.empty((len(points.rows), 3))
    for start in range(0, len(faces), CHUNK):
        rows = slice(start, start + CHUNK)
        _, near = tree.query(points.positions[rows], count)
        found = owner[near.reshape(-1, count)]
        weights, apart = _closest(corners[found], points.positions[rows, None].astype(np.float64))
        turned = (across[found] * points.normals[rows, None]).sum(-1) < 0
        best = np.where(turned, apart + 1e6, apart).argmin(1)
        one = np.arange(len(best))
        faces[rows], bary[rows] = found[one, best], weights[one, best]
    return SurfacePoints(faces, bary)


def _seeds(corners: Float[ndarray, "F 3 3"], area: Float[ndarray, " F"]) -> tuple[ndarray, ndarray]:
    """(triangle, position) of points all over a surface: one in the middle of a triangle, more in a large one."""
    count = np.ceil(area / max(2 * float(area.mean()), 1e-300)).clip(1, 1000).astype(int)
    owner = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    # An even row of points in the square (Roberts' R2), folded into the triangle; the first is its middle.
    first, second = (1 / 3 + index * 0.7548776662) % 1, (1 / 3 + index * 0.5698402910) % 1
    over = first + second > 1
    first, second = np.where(over, 1 - first, first), np.where(over, 1 - second, second)
    weights = np.stack([1 - first - second, first, second], -1)
    return owner, np.einsum("nkc,nk->nc", corners[owner], weights)


def _closest(
    corners: Float[ndarray, "N K 3 3"], points: Float[ndarray, "N 1 3"]
) -> tuple[Float[ndarray, "N K 3"], Float[ndarray, "N K"]]:
    """(weights of the corners at the point of each triangle that is closest, squared distance to it)."""
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac, ap = b - a, c - a, points - a
    bb, bc, cc = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    pb, pc = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(bb * cc - bc * bc, 1e-300)
    v, w = (cc * pb - bc * pc) / area, (bb * pc - bc * pb) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    on_ab, on_ac = (pb / np.maximum(bb, 1e-300)).clip(0, 1), (pc / np.maximum(cc, 1e-300)).clip(0, 1)
    side = bb - 2 * bc + cc
    on_bc = ((pc - bc - pb + bb) / np.maximum(side, 1e-300)).clip(0, 1)
    zero = np.zeros_like(v)
    # The inside, and the three edges.
    choices = np.stack(
        [
            np.stack([v, w], -1),
            np.stack([on_ab, zero], -1),
            np.stack([zero, on_ac], -1),
            np.stack([1 - on_bc, on_bc], -1),
        ],
        -2,
    )
    first, second = choices[..., 0], choices[..., 1]
    apart = (
        (ap * ap).sum(-1)[..., None]
        - 2 * (first * pb[..., None] + second * pc[..., None])
        + first**2 * bb[..., None]
        + 2 * first * second * bc[..., None]
        + second**2 * cc[..., None]
    )
    apart[..., 0] = np.where(inside, apart[..., 0], np.inf)
    best = apart.argmin(-1)[..., None]
    chosen = np.take_along_axis(choices, best[..., None], -2)[..., 0, :]
    weights = np.concatenate([1 - chosen.sum(-1, keepdims=True), chosen], -1)
    return weights, np.take_along_axis(apart, best, -1)[..., 0].clip(0)


def _slopes(mesh: Mesh, points: Texels, wanted: Float[ndarray, "N 3"], size: int) -> UInt8[ndarray, "T T 3"]:
    """The normal map that bends the mesh's normals to the wanted ones."""
    frames = frames_at(mesh, SurfacePoints(points.face, points.bary))
    local = np.stack([(wanted * axis).sum(-1) for axis in (frames.right, frames.up, frames.normal)], -1)
    local[:, 2] = local[:, 2].clip(_STEEPEST)
    return rasterize_to_texture(points, _unit(local) / 2 + 0.5, size)


def _unit(vectors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
    unit: ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    return unit


def _planes(texture: UInt8[ndarray, "t t C"], size: int) -> torch.Tensor:
    """[C T T] 0..1; a larger texture is made as small as `size` first, so that nothing between its texels is lost."""
    planes = torch.from_numpy(np.ascontiguousarray(texture.transpose(2, 0, 1))).float() / 255
    if texture.shape[0] > size:
        planes = functional.interpolate(planes[None], (size, size), mode="bilinear", antialias=True)[0]
    return planes
