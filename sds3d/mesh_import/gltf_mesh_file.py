"""The contents of a glTF file for checks: numbers of all its triangles, and what it names and lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.primitives import Piece, pieces
from sds3d.formats.gltf.schema import Metallic
from sds3d.formats.mesh_file import MeshFile
from sds3d.mesh_import.gltf_materials import Painter
from sds3d.mesh_import.materials import displayed_colors

MAX_FACES = 5_000_000
"""Triangles of a file that are looked at closely."""


def gltf_found(path: Path) -> MeshFile:
    """All of a GLB or glTF file. Raises OSError, ValueError, as the reader does."""
    gltf, remarks = Gltf(path), list[str]()
    every = [piece for piece in pieces(gltf, MAX_FACES, remarks) if len(piece.faces)]
    if not every:
        return MeshFile(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    painter = Painter(gltf, remarks)
    for piece in every:
        painter.cut(piece)
    paints = [painter.paint(piece) for piece in every]
    for number in range(len(gltf.json.images)):
        painter.images.pixels(number, f"images[{number}]")
    starts = np.cumsum([0, *(len(piece.vertices) for piece in every[:-1])])
    found = MeshFile(
        np.concatenate([piece.vertices for piece in every]),
        np.concatenate([piece.faces + start for piece, start in zip(every, starts, strict=True)]),
        normals=_all([piece.normals for piece in every]),
        uv=_all(_filled([paint.uv for paint in paints], every, remarks)),
        colors=_all([_colours(piece) for piece in every]),
        up="y",
        unit="m",
    )
    if len(every) > 1:
        found.parts = np.repeat([paint.material for paint in paints], [len(piece.faces) for piece in every])
    _materials(painter, every, found)
    extras = gltf.json.asset.extras
    found.facts = extras if isinstance(extras, dict) else None
    found.missing, found.remarks = painter.images.lacking, remarks
    return found


def _all(columns: list[ndarray | None]) -> ndarray | None:
    """Columns of all pieces as one; None where one lacks it."""
    there = [column for column in columns if column is not None]
    return np.concatenate(there) if len(there) == len(columns) else None


def _filled(columns: list[ndarray | None], every: list[Piece], remarks: list[str]) -> list[ndarray | None]:
    """Texture coordinates of the pieces; where only some have them, those of the others are one point."""
    bare = [column is None for column in columns]
    if not any(bare) or all(bare):
        return columns
    remarks.append(f"{sum(bare)} of {len(bare)} parts have no texture coordinates")
    return [
        np.zeros((len(piece.vertices), 2)) if column is None else column
        for column, piece in zip(columns, every, strict=True)
    ]


def _colours(piece: Piece) -> ndarray | None:
    if piece.colors is None:
        return None
    eight: ndarray = (displayed_colors(piece.colors[:, :3]) * 255).round().astype(np.uint8)
    return eight


def _materials(painter: Painter, every: list[Piece], found: MeshFile) -> None:
    """Sizes of the textures, and the factors of the first material."""
    for number, piece in enumerate(every):
        if piece.material is None:
            continue
        material = painter.material(piece)
        metallic = material.pbrMetallicRoughness or Metallic()
        glossy = material.extensions.glossy if material.extensions is not None else None
        infos = {
            "color": glossy.diffuseTexture if glossy is not None else metallic.baseColorTexture,
            "metallic_roughness": metallic.metallicRoughnessTexture,
            "normal": material.normalTexture,
            "emissive": material.emissiveTexture,
        }
        for role, info in infos.items():
            if info is not None:
                name = role if number == 0 or role not in found.images else f"{role}_{number + 1}"
                image = painter.images.image_of(info.index, f"materials[{piece.material}]")
                found.images[name] = (0, 0) if image is None else painter.images.size(image)
        if glossy is None and not found.material:
            rough, metal = metallic.roughnessFactor, metallic.metallicFactor
            found.material["metallicFactor"] = 1.0 if metal is None else float(metal)
            found.material["roughnessFactor"] = 1.0 if rough is None else float(rough)
            found.material["doubleSided"] = material.doubleSided
