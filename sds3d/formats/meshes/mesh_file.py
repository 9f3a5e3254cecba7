"""The contents of OBJ, PLY, STL, OFF and 3MF files for checks: numbers of all triangles, and what a file lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.mesh_file import MeshFile
from sds3d.formats.meshes.readers import surfaces_in
from sds3d.formats.meshes.surfaces import distinct

MAX_FACES = 5_000_000
"""Triangles of a file that are looked at closely."""
_SHOWN = {"color": "color", "roughness": "roughness", "metallic": "metallic", "normal": "normal", "glow": "emissive"}


def plain_found(path: Path) -> MeshFile:
    """All of such a file. Raises OSError, ValueError, as the readers do."""
    surfaces = surfaces_in(path, MAX_FACES)
    tables = (surfaces.uv_of, surfaces.normal_of, surfaces.color_of)
    named = np.stack([surfaces.faces, *(np.full_like(surfaces.faces, -1) if t is None else t for t in tables)], -1)
    rows, index = distinct(named.reshape(-1, 4))
    found = MeshFile(surfaces.positions[rows[:, 0]], index.reshape(-1, 3))
    bare = rows[:, 1] < 0
    if surfaces.uv is not None and not bare.all():
        flipped = np.stack([surfaces.uv[:, 0], 1 - surfaces.uv[:, 1]], -1)
        # Farther out it makes no difference, but numbers overflow.
        flipped = np.nan_to_num(flipped).clip(-1e6, 1e6)
        found.uv = np.where(bare[:, None], 0.0, flipped[rows[:, 1]])
        if bare.any():
            without = int((named[..., 1] < 0).all(1).sum())
            surfaces.remarks.append(f"{without} of {len(named)} faces have no texture coordinates")
    if surfaces.normals is not None and (rows[:, 2] >= 0).all():
        found.normals = _unit(surfaces.normals[rows[:, 2]])
    if surfaces.colors is not None and (rows[:, 3] >= 0).all():
        found.colors = (surfaces.colors[rows[:, 3]] * 255).round().astype(np.uint8)
    if len(surfaces.skins) > 1:
        found.parts = surfaces.skin_of
    for skin in surfaces.skins:
        for name, layer in skin.layers.items():
            if name in _SHOWN:
                found.images.setdefault(_SHOWN[name], layer.size)
    found.up, found.unit, found.quads, found.facts = surfaces.up, surfaces.unit, surfaces.quads, surfaces.facts
    found.missing, found.remarks = surfaces.lacking, surfaces.remarks
    return found


def _unit(normals: ndarray) -> ndarray:
    """[V 3] Of length 1; zeros stay what they are."""
    with np.errstate(all="ignore"):
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return np.where(length > 0, normals / length, normals)
