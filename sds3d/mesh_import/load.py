"""Meshes that users bring: read, mended where that is possible, unfolded where they need it, put into the unit ball.

What was changed is said in remarks; what cannot be used is refused in one line. Files are taken to have +Y up and
their front at +Z, as glTF has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from renderers.meshes.mesh import Mesh
from sds3d.formats.library_errors import refused
from sds3d.mesh_import.gltf_parts import gltf_parts
from sds3d.mesh_import.materials import paint_of
from sds3d.mesh_import.obj_parts import obj_parts
from sds3d.mesh_import.parts import UNFOLDED_FACES, MergedMesh, clean, keep_uvs, rebake_with_new_uvs, uv_problem
from sds3d.mesh_import.strays import without_strays

READABLE_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
"""Endings of files that are read."""
MAX_FILE_BYTES = 400 * 2**20
MAX_FACES = 3_000_000
"""Triangles of a file that are read at all."""
FIT = 0.9
"""Distance of the farthest point from the middle after a mesh was put into the unit ball."""


@dataclass(frozen=True)
class UnitBallTransform:
    """How a mesh was put into the unit ball: (position - middle) * scale."""

    center: tuple[float, float, float]
    scale: float

    def inverse(self, mesh: Mesh) -> Mesh:
        """The mesh at its old place and in its old size."""
        vertices = mesh.vertices.astype(np.float64) / self.scale + np.asarray(self.center)
        return replace(mesh, vertices=vertices.astype(np.float32))


@dataclass(frozen=True)
class LoadedMesh:
    """A mesh in the unit ball, where it came from, and what was done to it."""

    mesh: Mesh
    placement: UnitBallTransform
    warnings: tuple[str, ...]


def load_mesh(path: Path, texture: int = 1024, faces: int = 200_000, strays: bool = False) -> LoadedMesh:
    """A mesh from a file, ready to be refined or painted.

    `texture` is the side of its texture in texels; more than `faces` triangles are simplified. `strays` keeps specks
    so far out that the rest would be tiny beside them; else they are left out, and that is said.
    Raises OSError where the file cannot be read, ValueError where it is no mesh that can be used.
    """
    read, remarks = inspect_mesh(path)
    if not strays:
        read = without_strays(read, remarks)
    middle = (read.vertices.min(0) + read.vertices.max(0)) / 2
    farthest = float(np.linalg.norm(read.vertices - middle, axis=-1).max())
    if not 1e-20 < farthest < 1e20:
        raise ValueError(f"{path.name}: its triangles reach {farthest:.3g} from their middle; is its unit sane?")
    placement = UnitBallTransform((float(middle[0]), float(middle[1]), float(middle[2])), FIT / farthest)
    read = replace(read, vertices=((read.vertices - middle) * placement.scale).astype(np.float32))
    reason = uv_problem(read)
    if reason is None and len(read.faces) <= faces:
        mesh = keep_uvs(read, texture, remarks)
    else:
        mesh = rebake_with_new_uvs(read, texture, min(faces, UNFOLDED_FACES), reason, remarks)
    return LoadedMesh(mesh, placement, tuple(remarks))


def texture_size(path: Path) -> int | None:
    """Texels along the longest side of a file's largest texture; None where it has none or cannot be read."""
    try:
        paints = inspect_mesh(path)[0].paints
    except (OSError, ValueError):
        return None
    sides = [side for paint in paints if paint.image is not None for side in paint.image.shape[1:]]
    return max(sides, default=None)


def inspect_mesh(path: Path) -> tuple[MergedMesh, list[str]]:
    """What a file holds, where it lies and in its own size, and what was mended. Raises as `load_mesh`."""
    remarks: list[str] = []
    return clean(_joined(path, remarks), path.name, remarks), remarks


def _joined(path: Path, remarks: list[str]) -> MergedMesh:
    """Reads the file and joins its parts."""
    import trimesh

    kind = path.suffix.lower()
    if kind not in READABLE_SUFFIXES:
        raise ValueError(f"{path.name}: expected a mesh, a file that ends in {', '.join(READABLE_SUFFIXES)}")
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise ValueError(
            f"{path.name} has {size / 2**20:.0f} MB; expected up to {MAX_FILE_BYTES / 2**20:.0f}, and not 0"
        )
    readers = {".glb": gltf_parts, ".gltf": gltf_parts, ".obj": obj_parts}
    if kind in readers:
        try:
            return readers[kind](path, MAX_FACES, remarks)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a broken file makes its readers fail in every way there is
            raise refused(path, error) from None
    try:
        scene = trimesh.load(path, force="scene", process=False)
        parts = [_placed(scene, node) for node in scene.graph.nodes_geometry]
    except Exception as error:  # a broken file makes its readers fail in every way there is
        raise ValueError(f"{path.name} cannot be read as {kind[1:].upper()}: {_line(error)}") from None
    solid = [part for part in parts if hasattr(part[0], "faces") and len(part[0].faces)]
    if not solid:
        raise ValueError(f"{path.name} has no triangles" + (", only points or lines" if parts else ""))
    count = sum(len(part.faces) for part, _ in solid)
    if count > MAX_FACES:
        raise ValueError(f"{path.name} has {count:,} faces; at most {MAX_FACES:,} are read: simplify it first")
    return _stacked(solid, False)


def _line(error: Exception) -> str:
    """The error in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:160]


def _placed(scene: Any, node: str) -> tuple[Any, ndarray]:
    """A part of the file, and the matrix that puts it in its place."""
    matrix, name = scene.graph[node]
    return scene.geometry[name], np.asarray(matrix, np.float64)


def _stacked(parts: list[tuple[Any, ndarray]], linear_colours: bool) -> MergedMesh:
    """The parts as one."""
    vertices, normals, faces, rows, paints = [], [], [], [], []
    total = 0
    for part, matrix in parts:
        own = np.asarray(part.faces, np.int64)
        corners = np.asarray(part.vertices, np.float64)
        if own.min() < 0 or own.max() >= len(corners):
            raise ValueError(f"a triangle names vertex {own.max()}, but there are {len(corners)}")
        with np.errstate(all="ignore"):
            vertices.append(corners @ matrix[:3, :3].T + matrix[:3, 3])
            given = "vertex_normals" in part._cache and part.vertex_normals.shape == corners.shape
            turned = part.vertex_normals @ np.linalg.pinv(matrix[:3, :3]) if given else np.zeros(corners.shape)
        normals.append(turned)
        mirrored = np.linalg.det(matrix[:3, :3]) < 0
        faces.append((own[:, ::-1] if mirrored else own) + total)
        rows.append(own[:, ::-1] if mirrored else own)
        paints.append(paint_of(part.visual, rows[-1], len(corners), linear_colours))
        total += len(corners)
    counts = [len(own) for own in rows]
    together = np.concatenate(normals)
    length = np.linalg.norm(together, axis=-1, keepdims=True)
    usable = bool(np.isfinite(length).all() and (length > 1e-12).all())
    return MergedMesh(
        np.concatenate(vertices),
        np.concatenate(faces),
        (together / length).astype(np.float32) if usable else None,
        tuple(paints),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in counts]),
        tuple(rows),
    )
