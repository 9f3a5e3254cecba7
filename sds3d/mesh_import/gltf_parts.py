"""Meshes of glTF files with all their materials, as the parts of one mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.primitives import pieces
from sds3d.mesh_import.gltf_materials import Painter
from sds3d.mesh_import.parts import MergedMesh, merged


def gltf_parts(path: Path, most: int, remarks: list[str]) -> MergedMesh:
    """A GLB or glTF file of up to `most` triangles.

    Raises OSError where it cannot be read, ValueError where it is no mesh that can be used, or compressed and a package
    is missing.
    """
    gltf = Gltf(path)
    found = pieces(gltf, most, remarks)
    solid = [piece for piece in found if len(piece.faces)]
    if not solid:
        only = ", only points or lines" if remarks else ""
        raise ValueError(f"{path.name} has no triangles{only}")
    painter = Painter(gltf, remarks)
    vertices, normals, rows, paints = [], [], [], []
    for piece in solid:
        piece.faces = piece.faces[painter.cut(piece)]
        if not len(piece.faces):
            continue
        paints.append(painter.paint(piece))
        vertices.append(piece.vertices)
        normals.append(np.zeros_like(piece.vertices) if piece.normals is None else piece.normals)
        rows.append(piece.faces)
    remarks += painter.images.lacking
    if not rows:
        raise ValueError(f"{path.name} has no triangles that can be seen: its alpha hides all of them")
    return merged(vertices, normals, rows, paints)
