"""The parts of a mesh that was read, as one: mended, and given a texture.

Shapes: V vertices, F triangles, T texels along a side, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.meshes.baking import inpaint_nearest
from renderers.meshes.mesh import MaterialMaps, Mesh, Surface
from renderers.meshes.triangles import Topology
from renderers.meshes.zbuffer import rasterize
from renderers.meshing.isosurface import simplify
from renderers.meshing.texturing import unwrap_uv
from sds3d.mesh_import.materials import SourceMaterial

UNFOLDED_FACES = 30_000
"""Triangles of a mesh that has to be unfolded: that takes a few seconds for so many and minutes for more."""
_POINTS = 400_000
"""Points of a simplified mesh's original whose colours are carried over."""


@dataclass(frozen=True)
class MergedMesh:
    """All parts of a file as one, positions in float64."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"] | None
    paints: tuple[SourceMaterial, ...]
    part: Int[ndarray, " F"]
    """The paint of each triangle."""
    row: Int[ndarray, " F"]
    """Its number in its part."""
    rows: tuple[Int[ndarray, "_ 3"], ...]
    """The triangles of each part, as its paint numbers vertices."""


def merged(
    vertices: Sequence[ndarray], normals: Sequence[ndarray], faces: Sequence[ndarray], paints: Sequence[SourceMaterial]
) -> MergedMesh:
    """Parts that each number their own vertices as one; normals are left out where some are missing."""
    starts = np.cumsum([0, *(len(own) for own in vertices)])
    counts = [len(own) for own in faces]
    every = np.concatenate(normals)
    with np.errstate(all="ignore"):
        length = np.linalg.norm(every, axis=-1, keepdims=True)
        usable = bool(np.isfinite(length).all() and (length > 1e-30).all())
        unit = (every / length).astype(np.float32) if usable else None
    return MergedMesh(
        np.concatenate(vertices),
        np.concatenate([own + start for own, start in zip(faces, starts, strict=False)]),
        unit,
        tuple(paints),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in counts]),
        tuple(faces),
    )


def clean(read: MergedMesh, name: str, remarks: list[str]) -> MergedMesh:
    """Without triangles that cannot be drawn, and vertices that none uses."""
    corners = read.vertices[read.faces]
    finite = np.isfinite(corners).all((1, 2))
    if not finite.all():
        remarks.append(f"{int((~finite).sum())} faces with corners that are not finite numbers were left out")
    corners = np.where(finite[:, None, None], corners, 0)
    sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=-1).max(1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    solid = area > 1e-12 * sides**2
    if int((finite & ~solid).sum()):
        remarks.append(f"{int((finite & ~solid).sum())} faces of no area were left out")
    fine = finite & solid
    if not fine.any():
        raise ValueError(
            f"{name} has no triangles that can be drawn: all lack area or have corners that are no numbers"
        )
    used, index = np.unique(read.faces[fine], return_inverse=True)
    normals = None if read.normals is None else read.normals[used]
    faces = index.reshape(-1, 3).astype(np.int32)
    left = replace(
        read, vertices=read.vertices[used], faces=faces, normals=normals, part=read.part[fine], row=read.row[fine]
    )
    points, point_of = _welded(left)
    crowded = Topology(torch.from_numpy(point_of[faces].astype(np.int32)), len(points)).edges.crowded
    if crowded:
        remarks.append(f"{crowded} edges are shared by more than two faces; the mesh is drawn as it is")
    return left


def _welded(read: MergedMesh) -> tuple[ndarray, ndarray]:
    """Every position once [P 3], and the row of each vertex among them [V]."""
    points, point_of = np.unique(read.vertices, axis=0, return_inverse=True)
    return points, point_of.reshape(-1)


def _vertex_uv(read: MergedMesh) -> ndarray:
    """[V 2] Texture coordinates; only where every part has them."""
    uv = np.zeros((len(read.vertices), 2), np.float32)
    for number in np.unique(read.part):
        paint, mine = read.paints[number], read.part == number
        assert paint.uv is not None
        uv[read.faces[mine]] = paint.uv[read.rows[number][read.row[mine]]]
    return uv


def uv_problem(read: MergedMesh) -> str | None:
    """Why the mesh's own texture coordinates cannot be kept; None where they can."""
    there: list[SourceMaterial] = [read.paints[number] for number in np.unique(read.part)]
    if any(paint.uv is None for paint in there):
        return "it has no texture coordinates"
    for paint in there:
        if paint.bound is not None:
            return paint.bound
    if len({paint.material for paint in there}) > 1:
        return f"it has {len({paint.material for paint in there})} materials"
    uv = _vertex_uv(read)
    if not np.isfinite(uv).all() or uv.min() < -1e-3 or uv.max() > 1 + 1e-3:
        return "its texture coordinates leave the picture"
    flat = _flat_area(uv, read.faces)
    return "its texture coordinates have no area" if flat.sum() < 1e-3 or (flat < 1e-12).mean() > 0.2 else None


def _flat_area(uv: ndarray, faces: ndarray) -> ndarray:
    """[F] Areas of the triangles in the texture."""
    a, b, c = uv[faces].transpose(1, 0, 2).astype(np.float64)
    (x, y), (z, w) = (b - a).T, (c - a).T
    area: ndarray = np.abs(x * w - y * z) / 2
    return area


def keep_uvs(read: MergedMesh, size: int, remarks: list[str]) -> Mesh:
    """The mesh with its own texture coordinates."""
    uv = _vertex_uv(read).clip(0, 1)
    covered = rasterize(_on_texture(uv, 512), read.faces, 512, 512).seen.mean()
    twice = 1 - float(covered) / max(float(_flat_area(uv, read.faces).sum()), 1e-9)
    if twice > 0.1:
        remarks.append(
            f"{100 * twice:.0f} % of its texture is used more than once; what is painted there shows up twice"
        )
    normals = read.normals
    if normals is None:
        points, point_of = _welded(read)
        normals = Surface(points, point_of[read.faces].astype(np.int32)).normals[point_of]
    paint = read.paints[int(read.part[0])]
    picture = paint.whole_picture()
    plain = np.broadcast_to(np.asarray(paint.factor, np.float32), (1, 1, 3))
    texture = _resized(plain if picture is None else picture, size)
    return Mesh(read.vertices, read.faces, normals, uv, texture, _maps(paint, size))


def _maps(paint: SourceMaterial, size: int) -> MaterialMaps:
    """What the file says of the surface beside its colour."""
    grain = np.asarray(paint.metallic_roughness, np.float32)
    rows = (
        np.ones((1, 1, 2), np.float32)
        if paint.metallic_roughness_map is None
        else paint.metallic_roughness_map.permute(1, 2, 0).numpy()
    )
    both = _resized(np.concatenate([rows * grain, rows[..., :1]], -1), size)
    bumps = None if paint.normal_map is None else _resized(paint.normal_map.permute(1, 2, 0).numpy(), size)
    return MaterialMaps(both[..., 0].copy(), both[..., 1].copy(), bumps)


def _resized(picture: Float[ndarray, "h w 3"], size: int) -> ndarray:
    """[T T 3] eight bits."""
    from PIL import Image

    eight = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    way = Image.Resampling.BOX if size < len(eight) else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(eight).resize((size, size), way))


def _on_texture(uv: ndarray, size: int) -> ndarray:
    """[1 V 3] Vertices where they lie in a texture."""
    return np.concatenate([uv * size, np.ones((len(uv), 1))], -1)[None].astype(np.float32)


def rebake_with_new_uvs(read: MergedMesh, size: int, most: int, reason: str | None, remarks: list[str]) -> Mesh:
    """The mesh, simplified if need be, unfolded anew, with its colours carried over."""
    points, point_of = _welded(read)
    surface = Surface(points, point_of[read.faces].astype(np.int32))
    fewer = len(read.faces) > most
    if fewer:
        surface = simplify(surface, most)
        if not len(surface.faces):
            raise ValueError(f"its {len(read.faces):,} faces could not be simplified to {most:,}: nothing was left")
        remarks.append(f"its {len(read.faces):,} faces were simplified to {len(surface.faces):,}")
    if reason is not None:
        remarks.append(f"{reason}: it was unfolded anew, and its colours carried over")
    if any(read.paints[number].normal_map is not None for number in np.unique(read.part)):
        remarks.append("its normal map was left out")
    flat = unwrap_uv(surface)
    fragments = rasterize(_on_texture(flat.uv, size), flat.faces, size, size)
    _, down, across = np.nonzero(fragments.seen)
    face, bary = fragments.face[fragments.seen], fragments.bary[fragments.seen]
    if fewer:
        values = _nearest(read, (surface.vertices[surface.faces[face]] * bary[..., None]).sum(1))
    else:
        values = _painted(read, face, bary)
    texture = _spread(down, across, values, size)
    normals = surface.normals[flat.source]
    maps = MaterialMaps(texture[..., 3].copy(), texture[..., 4].copy())
    colours = np.ascontiguousarray(texture[..., :3])
    return Mesh(surface.vertices[flat.source].astype(np.float32), flat.faces, normals, flat.uv, colours, maps)


def _painted(read: MergedMesh, face: Int[ndarray, " N"], bary: Float[ndarray, "N 3"]) -> Float[ndarray, "N 5"]:
    """Colour, roughness and metal at points of the mesh as it was read."""
    values = np.zeros((len(face), 5), np.float32)
    part = read.part[face]
    for number in np.unique(part):
        mine = part == number
        values[mine] = read.paints[number].at(read.rows[number], read.row[face[mine]], bary[mine])
    return values


def _nearest(read: MergedMesh, places: Float[ndarray, "N 3"]) -> Float[ndarray, "N 5"]:
    """The same at the points of the original nearest to these places, of many spread evenly over it."""
    from scipy.spatial import cKDTree

    corners = read.vertices[read.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    chance = np.random.default_rng(0)
    face = chance.choice(len(corners), _POINTS, p=area / area.sum())
    bary = chance.dirichlet((1.0, 1.0, 1.0), _POINTS).astype(np.float32)
    _, row = cKDTree((corners[face] * bary[..., None]).sum(1)).query(places, eps=0.2)
    return _painted(read, face[row], bary[row])


def _spread(down: ndarray, across: ndarray, values: Float[ndarray, "N 5"], size: int) -> ndarray:
    """[T T 5] eight bits, nothing left unpainted."""
    texture, used = np.zeros((size, size, values.shape[1]), np.float32), np.zeros((size, size), bool)
    texture[down, across], used[down, across] = values, True
    eight: ndarray = (inpaint_nearest(texture, used).clip(0, 1) * 255).round().astype(np.uint8)
    return eight
