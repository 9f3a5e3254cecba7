"""Meshes of OBJ files with all their materials, as the parts of one mesh."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray

from sds3d.formats.file_access import content_of
from sds3d.formats.gltf.images import decoded
from sds3d.formats.obj.materials import Material, TextureMap, lacking, libraries, locate, read_mtl, text_of
from sds3d.formats.obj.reader import ObjFile, read_obj
from sds3d.mesh_import.materials import DEFAULT_METALLIC_ROUGHNESS, GREY, SourceMaterial
from sds3d.mesh_import.parts import MergedMesh, merged

_LIBRARY = re.compile(r"mtllib\s+\S").match


def obj_parts(path: Path, most: int, remarks: list[str]) -> MergedMesh:
    """An OBJ file of up to `most` triangles, with the materials that lie in its folder.

    Raises OSError where it cannot be read, ValueError where it is no mesh that can be used.
    """
    read = read_obj(path, most)
    if not len(read.corners):
        raise ValueError(f"{path.name} has no triangles" + (", only points or lines" if len(read.positions) else ""))
    materials = _materials(read, path.parent, remarks)
    painter = _Painter(path.parent, remarks)
    vertices, normals, faces, paints = [], [], [], []
    mapped = (read.corners[..., 1] >= 0).all(1)
    for number in np.unique(read.material).tolist():
        # Faces with and without texture coordinates are parts of their own.
        for has_uv in (True, False):
            mine = (read.material == number) & (mapped == has_uv)
            if not mine.any():
                continue
            rows, inverse = np.unique(read.corners[mine].reshape(-1, 3), axis=0, return_inverse=True)
            own = inverse.reshape(-1, 3).astype(np.int64)
            material = materials.get(read.materials[number]) if number >= 0 else None
            paints.append(replace(painter.paint(read, rows, own, material, has_uv), material=number))
            vertices.append(read.positions[rows[:, 0]])
            normals.append(_normals(read, rows))
            faces.append(own)
    return merged(vertices, normals, faces, paints)


def missing_files(path: Path) -> list[str]:
    """Remarks on files that an OBJ file, or a material library of it, names and that are not there."""
    if path.suffix.lower() != ".obj":
        return []
    named = [line.split(None, 1)[1] for line in text_of(path.read_bytes(), path.name).splitlines() if _LIBRARY(line)]
    gone: list[str] = []
    for name in dict.fromkeys(one for rest in named for one in libraries(rest.strip(), path.parent)):
        place = locate(name, path.parent)
        if place is None:
            gone.append(name)
            continue
        materials = read_mtl(text_of(place.read_bytes(), place.name)).values()
        textures = (texture.name for material in materials for texture in material.maps.values())
        gone += [texture for texture in textures if locate(texture, path.parent) is None]
    return [lacking(name) for name in dict.fromkeys(gone)]


def _materials(read: ObjFile, folder: Path, remarks: list[str]) -> dict[str, Material]:
    """All materials of the libraries that are there."""
    found: dict[str, Material] = {}
    for name in dict.fromkeys(one for rest in read.libraries for one in libraries(rest, folder)):
        place = locate(name, folder)
        if place is None:
            remarks.append(lacking(name))
            continue
        try:
            found |= read_mtl(text_of(content_of(str(place.relative_to(folder.resolve())), folder), place.name))
        except ValueError as error:
            remarks.append(str(error))
    return found


def _normals(read: ObjFile, rows: Int64[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """The normal of each vertex, zero where it has none."""
    given = np.concatenate([read.normals, np.zeros((1, 3))])
    normals: ndarray = given[rows[:, 2]]
    return normals


class _Painter:
    """Makes paints of materials; every texture is read once."""

    def __init__(self, folder: Path, remarks: list[str]) -> None:
        self._folder, self._remarks = folder, remarks
        self._read: dict[str, torch.Tensor | None] = {}

    def paint(
        self,
        read: ObjFile,
        rows: Int64[ndarray, "V 3"],
        faces: Int64[ndarray, "F 3"],
        material: Material | None,
        has_uv: bool,
    ) -> SourceMaterial:
        """The paint of one part: its texture, else the colors of its vertices, else its plain color."""
        material = material or Material()
        grain = (
            DEFAULT_METALLIC_ROUGHNESS[0] if material.roughness is None else material.roughness,
            material.metallic or DEFAULT_METALLIC_ROUGHNESS[1],
        )
        texture = material.maps.get("color") or material.maps.get("emission") or TextureMap("")
        uv = read.uv[rows[:, 1]] * texture.scale + texture.offset if has_uv else None
        flipped = None if uv is None else np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(np.float32)
        picture = self._picture(texture) if texture.name and has_uv else None
        if picture is not None:
            way = "clamp" if texture.clamp else "repeat"
            grains, bumps = self._grains(material), self._map(material, "normal", 3)
            return SourceMaterial(flipped, picture, (1.0, 1.0, 1.0), None, grain, grains, bumps, wrap=(way, way))
        if read.colors is not None:
            return SourceMaterial(
                corners=read.colors[rows[:, 0]][faces].astype(np.float32).clip(0, 1), metallic_roughness=grain
            )
        color = GREY if material.color is None else tuple(min(max(value, 0.0), 1.0) for value in material.color)
        return SourceMaterial(flipped, factor=color, metallic_roughness=grain)

    def _grains(self, material: Material) -> torch.Tensor | None:
        """[2 H W] Roughness and metal of a material's maps."""
        rough, metal = self._map(material, "roughness", 1), self._map(material, "metallic", 1)
        given = rough if rough is not None else metal
        if given is None:
            return None
        rough = torch.ones_like(given) if rough is None else rough
        metal = torch.ones_like(given) if metal is None else metal
        if rough.shape != metal.shape:
            self._remarks.append("maps of roughness and metal of unequal size were left out")
            return None
        return torch.cat([rough, metal])

    def _map(self, material: Material, kind: str, channels: int) -> torch.Tensor | None:
        texture = material.maps.get(kind)
        picture = None if texture is None else self._picture(texture)
        return None if picture is None else picture[:channels]

    def _picture(self, texture: TextureMap) -> torch.Tensor | None:
        """[3 H W] A texture, 0..1; None, with a remark, where it cannot be had."""
        if texture.name not in self._read:
            self._read[texture.name] = self._decoded(texture.name)
        return self._read[texture.name]

    def _decoded(self, name: str) -> torch.Tensor | None:
        place = locate(name, self._folder)
        if place is None:
            self._remarks.append(lacking(name))
            return None
        try:
            pixels, _ = decoded(content_of(str(place.relative_to(self._folder.resolve())), self._folder), place.name)
        except ValueError as error:
            self._remarks.append(str(error))
            return None
        return torch.from_numpy(pixels[..., :3].astype(np.float32) / 255).permute(2, 0, 1).contiguous()
