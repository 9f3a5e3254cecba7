"""A model file as triangles with colours, ready to be drawn."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from sds3d.mini_training.catalogue import Model

CREASE = np.cos(np.radians(40.0))
"""Faces that meet at a smaller angle than this share a smooth normal."""


@dataclass(frozen=True)
class MaterialMesh:
    """Triangles of one material. Three rows of `vertices` make a triangle."""

    vertices: np.ndarray
    """[3F, 8] float32: position, normal, texture coordinates."""
    color: np.ndarray
    """[4] float32, sRGB and opacity, multiplied with the texture if there is one."""
    texture: np.ndarray | None
    """[H, W, 4] uint8, first row at the top."""
    material: str


def load(model: Model) -> list[MaterialMesh]:
    """The parts of a model, centred, turned, and scaled so that it just fits the unit ball."""
    import tinyobjloader

    with zipfile.ZipFile(model.archive) as archive, tempfile.TemporaryDirectory() as folder:
        inside = PurePosixPath(model.path).parent
        files = [name for name in archive.namelist() if PurePosixPath(name).parent == inside and not name.endswith("/")]
        archive.extractall(folder, files)
        reader = tinyobjloader.ObjReader()
        settings = tinyobjloader.ObjReaderConfig()
        settings.triangulate = True
        if not reader.ParseFromFile(str(Path(folder) / model.path), settings):
            raise ValueError(f"{model.path} can not be read: {reader.Error()}")
        textures = _Textures(Path(folder) / str(inside))
        parts = _parts(reader, textures)
    return _fitted(parts, model.rotation)


class _Textures:
    """Pictures beside a model, read once; a path that leads elsewhere falls back to the file's name."""

    def __init__(self, folder: Path) -> None:
        self._by_name = {path.name.lower(): path for path in folder.iterdir()}
        self._seen: dict[str, np.ndarray | None] = {}

    def __call__(self, path: str) -> np.ndarray | None:
        name = path.replace("\\", "/").split("/")[-1].lower()
        if name not in self._seen:
            self._seen[name] = self._read(name) if name in self._by_name else None
        return self._seen[name]

    def _read(self, name: str) -> np.ndarray | None:
        from PIL import Image

        with Image.open(io.BytesIO(self._by_name[name].read_bytes())) as picture:
            picture.thumbnail((1024, 1024))
            return np.asarray(picture.convert("RGBA"))


def _parts(reader: object, textures: _Textures) -> list[MaterialMesh]:
    """Triangles of all shapes in the file, gathered by material."""
    attributes = reader.GetAttrib()  # type: ignore[attr-defined]
    positions = np.array(attributes.vertices, np.float64).reshape(-1, 3)
    normals = np.array(attributes.normals, np.float64).reshape(-1, 3)
    coordinates = np.array(attributes.texcoords, np.float64).reshape(-1, 2)
    corners, materials = [], []
    for shape in reader.GetShapes():  # type: ignore[attr-defined]
        mesh = shape.mesh
        corners.append(
            np.stack(
                [
                    np.array(column, np.int64)
                    for column in (mesh.vertex_indices(), mesh.normal_indices(), mesh.texcoord_indices())
                ],
                -1,
            )
        )
        materials.append(np.array(mesh.material_ids, np.int64))
    corner, owner = np.concatenate(corners), np.concatenate(materials)
    place = positions[corner[:, 0]]
    smooth = _creased(corner[:, 0], place)
    if len(normals):
        given = (corner[:, 1] >= 0)[:, None]
        smooth = np.where(given, normals[np.maximum(corner[:, 1], 0)], smooth)
    where = coordinates[np.maximum(corner[:, 2], 0)] if len(coordinates) else np.zeros((len(corner), 2))
    rows = np.concatenate([place, smooth, where], -1).astype(np.float32)
    book = reader.GetMaterials()  # type: ignore[attr-defined]
    parts = []
    for number in np.unique(owner):
        mine = np.repeat(owner == number, 3)
        colour, texture, name = np.array([0.7, 0.7, 0.7, 1.0], np.float32), None, ""
        if number >= 0:
            material = book[number]
            texture = textures(material.diffuse_texname) if material.diffuse_texname and len(coordinates) else None
            shade = (1.0, 1.0, 1.0) if texture is not None else tuple(material.diffuse)
            colour = np.array([*shade, max(material.dissolve, 0.15)], np.float32).clip(0, 1)
            name = f"{material.name} {material.diffuse_texname}"
        parts.append(MaterialMesh(rows[mine], colour, texture, name))
    return parts


def _creased(vertex: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Normal of each corner: the mean over faces around its vertex that are turned less than the crease angle."""
    triangles = place.reshape(-1, 3, 3)
    area = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    face = area / np.maximum(np.linalg.norm(area, axis=-1, keepdims=True), 1e-20)
    # Vertices that lie at the same place count as one, else exported seams would show.
    _, group = np.unique(np.round(place, 6), axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], np.arange(group.max() + 1))
    count = np.bincount(group)
    normal = np.zeros((len(vertex), 3))
    owner = np.arange(len(vertex)) // 3
    # The k-th neighbour of every corner at once; vertices with very many faces are averaged over the first 24.
    for k in range(min(24, int(count.max()))):
        rows = np.flatnonzero(count[group] > k)
        other = owner[order[start[group[rows]] + k]]
        near = (face[owner[rows]] * face[other]).sum(-1) > CREASE
        normal[rows[near]] += area[other[near]]
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    smooth: np.ndarray = np.where(length > 1e-20, normal / np.maximum(length, 1e-20), face[owner])
    return smooth


def _fitted(parts: list[MaterialMesh], rotation: np.ndarray) -> list[MaterialMesh]:
    """Turned, centred at the middle of the bounding box, farthest point at distance 1."""
    turned = []
    for part in parts:
        rows = part.vertices.copy()
        rows[:, :3] = rows[:, :3] @ rotation.T
        rows[:, 3:6] = rows[:, 3:6] @ rotation.T
        turned.append(rows)
    everything = np.concatenate([rows[:, :3] for rows in turned])
    centre = (everything.min(0) + everything.max(0)) / 2
    scale = 1 / np.linalg.norm(everything - centre, axis=-1).max()
    for rows in turned:
        rows[:, :3] = (rows[:, :3] - centre) * scale
    return [
        MaterialMesh(rows, part.color, part.texture, part.material) for rows, part in zip(turned, parts, strict=True)
    ]
