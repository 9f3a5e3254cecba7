"""Meshes that users bring: read, mended where that is possible, unfolded where they need it, put into the unit ball.

What was changed is said in remarks; what cannot be used is refused in one line. Files are taken to have +Y up and
their front at +Z, as glTF has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from renderers.meshes.mesh import Mesh
from sds3d.formats.library_errors import refuse_unlike_a_file, refused
from sds3d.formats.meshes.readers import READERS
from sds3d.mesh_import.gltf_parts import gltf_parts
from sds3d.mesh_import.parts import UNFOLDED_FACES, MergedMesh, clean, keep_uvs, rebake_with_new_uvs, uv_problem
from sds3d.mesh_import.strays import without_strays
from sds3d.mesh_import.surface_parts import plain_parts

READABLE_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".3mf")
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
    kind = path.suffix.lower()
    if kind not in READABLE_SUFFIXES:
        raise ValueError(f"{path.name}: expected a mesh, a file that ends in {', '.join(READABLE_SUFFIXES)}")
    refuse_unlike_a_file(path, MAX_FILE_BYTES)
    if kind in READERS:
        return plain_parts(path, MAX_FACES, remarks)
    try:
        return gltf_parts(path, MAX_FACES, remarks)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken file makes its readers fail in every way there is
        raise refused(path, error) from None
