"""Meshes of glTF files with all their materials, as the parts of one mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.gltf_document import Gltf
from sds3d.formats.gltf_mesh import pieces
from sds3d.gltf_paint import Painter
from sds3d.mesh_parts import Parts


def gltf_parts(path: Path, most: int, remarks: list[str]) -> Parts:
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
    vertices, normals, faces, rows, paints = [], [], [], [], []
    start = 0
    for piece in solid:
        piece.faces = piece.faces[painter.cut(piece)]
        if not len(piece.faces):
            continue
        paints.append(painter.paint(piece))
        vertices.append(piece.vertices)
        normals.append(np.zeros_like(piece.vertices) if piece.normals is None else piece.normals)
        rows.append(piece.faces)
        faces.append(piece.faces + start)
        start += len(piece.vertices)
    remarks += painter.images.lacking
    if not rows:
        raise ValueError(f"{path.name} has no triangles that can be seen: its alpha hides all of them")
    counts = [len(own) for own in rows]
    return Parts(
        np.concatenate(vertices),
        np.concatenate(faces),
        _unit(np.concatenate(normals)),
        tuple(paints),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in counts]),
        tuple(rows),
    )


def _unit(normals: ndarray) -> ndarray | None:
    """[V 3] Of length 1; None where some are missing."""
    with np.errstate(all="ignore"):
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        usable = bool(np.isfinite(length).all() and (length > 1e-30).all())
        return (normals / length).astype(np.float32) if usable else None
