"""Meshes of OBJ, PLY, STL, OFF and 3MF files with all their materials, as the parts of one mesh.

Shapes: V vertices, F triangles.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.meshes.shading import srgb_to_linear
from sds3d.formats.meshes.images import MAX_KEPT
from sds3d.formats.meshes.readers import surfaces_in
from sds3d.formats.meshes.surfaces import Layer, Skin, Surfaces, distinct
from sds3d.mesh_import.materials import DEFAULT_METALLIC_ROUGHNESS, GREY, SourceMaterial, Spot
from sds3d.mesh_import.parts import MergedMesh, merged

TINT = 0.05
"""How far the parts of a colour may lie apart and still be a grey, which does not tint a picture."""
_PLAIN = Skin("")
_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Rows times it turn +Z to +Y."""


def plain_parts(path: Path, most: int, remarks: list[str]) -> MergedMesh:
    """A file of up to `most` triangles. Raises OSError where it cannot be read, ValueError where it holds no mesh."""
    surfaces = surfaces_in(path, most)
    remarks += surfaces.lacking + surfaces.remarks
    positions, normals = surfaces.positions, surfaces.normals
    if surfaces.up == "z":
        positions = positions @ _Z_UP
        normals = None if normals is None else normals @ _Z_UP
        remarks.append("it says that its Z points up: it was turned, so that Y does")
    pieces = _pieces(surfaces)
    made = _Made(remarks)
    vertices, turned, rows, paints = [], [], [], []
    for skin, mine in pieces:
        local, named = _own(surfaces, mine)
        with np.errstate(all="ignore"):
            vertices.append(positions[named[:, 0]])
            own = np.zeros((len(named), 3)) if normals is None else normals[named[:, 2]]
            turned.append(np.where((named[:, 2] < 0)[:, None], 0, own))
        paints.append(made.paint(surfaces, skin, mine, named))
        if "alpha" in skin.layers and paints[-1].uv is not None:
            local = local[made.seen(skin.layers["alpha"], local, surfaces, named)]
            paints[-1] = _unalphaed(paints[-1], made.kept)
        rows.append(local)
    if not sum(map(len, rows)):
        raise ValueError(f"{path.name} has no triangles that can be seen: its alpha hides all of them")
    return merged(vertices, turned, rows, paints)


def _unalphaed(paint: SourceMaterial, kept: ndarray) -> SourceMaterial:
    """The paint without the triangles that were left out."""
    return paint if paint.corners is None else replace(paint, corners=paint.corners[kept])


def _pieces(surfaces: Surfaces) -> list[tuple[Skin, Int[ndarray, " _"]]]:
    """Triangles that have a material, texture coordinates and colours alike."""
    count = len(surfaces.faces)
    kind = np.zeros((count, 3), np.int64)
    kind[:, 0] = -1 if surfaces.skin_of is None else surfaces.skin_of
    kind[:, 1] = 0 if surfaces.uv_of is None else (surfaces.uv_of >= 0).all(1)
    kind[:, 2] = 0 if surfaces.color_of is None else (surfaces.color_of >= 0).all(1)
    kinds, of = distinct(kind)
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(len(kinds) + 1))
    return [(surfaces.skins[kinds[i, 0]] if kinds[i, 0] >= 0 else _PLAIN, order[bounds[i] : bounds[i + 1]])
            for i in range(len(kinds))]  # fmt: skip


def _own(surfaces: Surfaces, mine: Int[ndarray, " F"]) -> tuple[Int[ndarray, "F 3"], Int[ndarray, "V 3"]]:
    """(triangles, the position, texture coordinate and normal of each of their vertices)."""
    named = np.full((len(mine), 3, 3), -1)
    named[..., 0] = surfaces.faces[mine]
    if surfaces.uv_of is not None:
        named[..., 1] = surfaces.uv_of[mine]
    if surfaces.normal_of is not None:
        named[..., 2] = surfaces.normal_of[mine]
    rows, local = distinct(named.reshape(-1, 3))
    return local.reshape(-1, 3), rows


class _Made:
    """Makes paints, the same number for materials that look the same."""

    def __init__(self, remarks: list[str]) -> None:
        self._remarks = remarks
        self._keys: dict[Any, int] = {}
        self._tensors: dict[tuple[int, Any], torch.Tensor] = {}
        self._left = MAX_KEPT
        self.kept: ndarray = np.zeros(0, bool)

    def _say(self, line: str) -> None:
        if line not in self._remarks:
            self._remarks.append(line)

    def paint(self, surfaces: Surfaces, skin: Skin, mine: ndarray, named: ndarray) -> SourceMaterial:
        """What is on a piece."""
        bare = surfaces.uv is None or not (named[:, 1] >= 0).all()
        base = None if bare else skin.layers.get("color")
        # White beside a picture that is not there says nothing of the surface.
        meant = skin.color is not None and not ((skin.layers.get("color") or skin.lost) and min(skin.color) == 1)
        plain: tuple[float, ...] = skin.color if meant and skin.color is not None else GREY
        grain = tuple(
            DEFAULT_METALLIC_ROUGHNESS[i] if v is None else v for i, v in enumerate((skin.roughness, skin.metallic))
        )
        paint = SourceMaterial(factor=plain, metallic_roughness=grain)
        if skin.alpha < 0.99:
            self._say("what is see-through in it is drawn solid")
        if base is not None:
            tinted = skin.color is not None and max(skin.color) - min(skin.color) > TINT
            factor = srgb_to_linear(torch.tensor(skin.color)).tolist() if tinted else (1.0, 1.0, 1.0)
            paint = replace(paint, image=self._tensor(base, "rgb"), factor=tuple(factor))
        elif "color" in skin.layers:
            self._say(f"{len(mine)} faces have no texture coordinates; their texture is left out there")
        colored = surfaces.color_of is not None and (surfaces.color_of[mine] >= 0).all()
        if colored and base is not None:
            self._say("colours at its points were left out where a texture lies")
        elif colored:
            assert surfaces.colors is not None and surfaces.color_of is not None
            paint = replace(paint, corners=surfaces.colors[surfaces.color_of[mine]].astype(np.float32))
        if not bare:
            paint = self._laid(paint, surfaces, skin, named)
        elif skin.glow is not None and not colored and max(skin.glow) > 0 and "glow" not in skin.layers:
            paint = self._glowing(paint, skin)
        return replace(paint, material=self._keys.setdefault(self._key(skin, paint), len(self._keys)))

    def _laid(self, paint: SourceMaterial, surfaces: Surfaces, skin: Skin, named: ndarray) -> SourceMaterial:
        """The paint with its pictures where they lie."""
        base = skin.layers.get("color") or next((one for name, one in skin.layers.items() if name != "alpha"), None)
        spot = _spot(base, surfaces, named)
        paint = replace(paint, uv=spot.uv, wrap=spot.wrap)
        spots = {}
        glow = skin.layers.get("glow")
        if glow is not None and paint.corners is None:
            self._say("its emissive texture is part of its colour")
            power = skin.glow if skin.glow is not None and max(skin.glow) > 0 else (1.0, 1.0, 1.0)
            factor = tuple(srgb_to_linear(torch.tensor(power)).tolist())
            if paint.image is None and (skin.color is None or max(skin.color) == 0):
                at = _spot(glow, surfaces, named)
                return replace(paint, image=self._tensor(glow, "rgb"), factor=factor, uv=at.uv, wrap=at.wrap)
            paint = replace(paint, glow=self._tensor(glow, "rgb"), glow_factor=factor)
            if base is None or base.laid != glow.laid:
                spots["glow"] = _spot(glow, surfaces, named)
        elif skin.glow is not None and max(skin.glow) > 0 and paint.image is None and paint.corners is None:
            paint = self._glowing(paint, skin)
        rough, metal = skin.layers.get("roughness"), skin.layers.get("metallic")
        if rough is not None or metal is not None:
            if (maps := self._grains(rough, metal)) is not None:
                paint = replace(paint, metallic_roughness_map=maps, metallic_roughness=_factors(skin))
            grains = rough or metal
            if grains is not None and base is not None and grains.laid != base.laid:
                spots["grains"] = _spot(grains, surfaces, named)
        if (bumps := skin.layers.get("normal")) is not None:
            paint = replace(paint, normal_map=self._tensor(bumps, "rgb"))
            if base is not None and bumps.laid != base.laid:
                spots["bumps"] = _spot(bumps, surfaces, named)
        return replace(paint, spots=spots) if spots else paint

    def _glowing(self, paint: SourceMaterial, skin: Skin) -> SourceMaterial:
        """The brighter of colour and light is seen."""
        assert skin.glow is not None
        self._say("its emissive colour is part of its colour")
        below = paint.factor if skin.color is not None else (0.0, 0.0, 0.0)
        return replace(paint, factor=tuple(max(pair) for pair in zip(below, skin.glow, strict=True)))

    def seen(self, layer: Layer, faces: ndarray, surfaces: Surfaces, named: ndarray) -> ndarray:
        """[F] Which triangles alpha does not hide wholly."""
        alpha, spot = self._tensor(layer, "r"), _spot(layer, surfaces, named)
        some, every = np.zeros(len(faces), bool), np.ones(len(faces), bool)
        for bary in _grid(6):
            values = spot.of(alpha, faces, np.arange(len(faces)), np.broadcast_to(bary, (len(faces), 3)))[:, 0]
            some, every = some | (values >= 0.5), every & (values >= 0.5)
        self.kept = some
        if not some.all():
            self._say(f"{int((~some).sum())} faces that its alpha hides were left out")
        if (some & ~every).any():
            self._say(f"its alpha cuts through {int((some & ~every).sum())} faces; they are drawn whole")
        return some

    def _grains(self, rough: Layer | None, metal: Layer | None) -> torch.Tensor | None:
        """[2 H W] Roughness and metal, of the larger of both pictures' sizes; None, said, where there are too many."""
        from PIL import Image

        key = -1 if rough is None else id(rough.pixels), -1 if metal is None else id(metal.pixels)
        if key in self._tensors:
            return self._tensors[key]
        shapes = [one.pixels.shape for one in (rough, metal) if one is not None]
        high, wide = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
        if high * wide > self._left:
            self._say("maps of roughness and metal were left out: there are too many")
            return None
        self._left -= high * wide
        both = np.ones((2, high, wide), np.float32)
        for row, layer in enumerate((rough, metal)):
            if layer is not None:
                grey = Image.fromarray(np.ascontiguousarray(layer.pixels[..., 0]))
                both[row] = np.asarray(grey.resize((wide, high), Image.Resampling.BILINEAR), np.float32) / 255
        return self._tensors.setdefault(key, torch.from_numpy(both))

    def _tensor(self, layer: Layer, channels: str) -> torch.Tensor:
        """[C H W] 0..1."""
        key = id(layer.pixels), channels
        if key not in self._tensors:
            picked = layer.pixels[..., ["rgba".index(channel) for channel in channels]].transpose(2, 0, 1)
            self._tensors[key] = torch.from_numpy(np.ascontiguousarray(picked, np.float32) / 255)
        return self._tensors[key]

    @staticmethod
    def _key(skin: Skin, paint: SourceMaterial) -> tuple[Any, ...]:
        layers = tuple(sorted((name, id(one.pixels), one.laid) for name, one in skin.layers.items() if name != "alpha"))
        return layers, paint.factor, paint.metallic_roughness, paint.glow_factor


def _factors(skin: Skin) -> tuple[float, ...]:
    """Roughness and metal of a material with a picture of either."""
    rough = (
        1.0
        if "roughness" in skin.layers
        else DEFAULT_METALLIC_ROUGHNESS[0]
        if skin.roughness is None
        else skin.roughness
    )
    metal = (
        1.0 if "metallic" in skin.layers else DEFAULT_METALLIC_ROUGHNESS[1] if skin.metallic is None else skin.metallic
    )
    return rough, metal


def _spot(layer: Layer | None, surfaces: Surfaces, named: ndarray) -> Spot:
    """Where a picture lies on a piece."""
    assert surfaces.uv is not None
    uv = surfaces.uv[named[:, 1]]
    clamp = False
    if layer is not None:
        with np.errstate(all="ignore"):
            uv = uv * layer.scale + layer.offset
        clamp = layer.clamp
    with np.errstate(all="ignore"):
        upper = np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(np.float32)
    return Spot(upper, ("clamp", "clamp") if clamp else ("repeat", "repeat"))


def _grid(points: int) -> Float[ndarray, "N 3"]:
    """Evenly spread points of a triangle, none on its border."""
    rows = [(i + 1 / 3, j + 1 / 3) for i in range(points) for j in range(points - i)]
    first = np.array(rows, np.float32) / points
    return np.concatenate([first, 1 - first.sum(-1, keepdims=True)], -1)
