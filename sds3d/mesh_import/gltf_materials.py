"""The materials of glTF files as paints: what is on each piece of a mesh, and which of its triangles are cut out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from renderers.meshes.shading import linear_to_srgb
from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.images import Images
from sds3d.formats.gltf.primitives import Piece
from sds3d.formats.gltf.schema import Glossy, Material, Metallic, Sampler, TextureInfo
from sds3d.mesh_import.materials import DEFAULT_METALLIC_ROUGHNESS, GREY, SourceMaterial, Spot

_WRAPS = {33071: "clamp", 33648: "mirror"}
_NEAREST = 9728
_PLAIN = Material()


@dataclass(frozen=True)
class _Laid:
    """A texture on a piece."""

    image: int
    spot: Spot
    key: tuple[Any, ...]
    """The same for textures that lie in the same place."""


class Painter:
    """Makes the paints of a document's pieces."""

    def __init__(self, gltf: Gltf, remarks: list[str]) -> None:
        self._gltf, self._remarks = gltf, remarks
        self.images = Images(gltf)

    def _say(self, line: str) -> None:
        if line not in self._remarks:
            self._remarks.append(line)

    def material(self, piece: Piece) -> Material:
        """The material of a piece."""
        if piece.material is None:
            return _PLAIN
        found: Material = self._gltf.at("materials", piece.material, "a primitive")
        return found

    def paint(self, piece: Piece) -> SourceMaterial:
        """What is on a piece."""
        material, number = self.material(piece), piece.material
        place = "the plain material" if number is None else f"materials[{number}]"
        metallic, glossy = _halves(material)
        info = metallic.baseColorTexture if glossy is None else glossy.diffuseTexture
        given = metallic.baseColorFactor if glossy is None else glossy.diffuseFactor
        factor = np.clip(given or [1.0] * 4, 0, 1)[:3]
        base = self._laid(info, piece, place)
        picture = None if base is None else self.images.tensor(base.image, "rgb", place)
        colour = factor if picture is not None else _shown(factor) if given is not None else np.array(GREY)
        if info is not None and picture is None and factor.min() == 1:
            colour = np.array(GREY)
        paint = SourceMaterial(None, picture, tuple(colour.tolist()), material=-1 if number is None else number)
        if base is not None:
            paint = replace(paint, uv=base.spot.uv, wrap=base.spot.wrap, nearest=base.spot.nearest)
        paint = self._glowing(paint, material, piece, base, place)
        if piece.colors is not None:
            tint = piece.colors[:, :3] if picture is not None else piece.colors[:, :3] * factor
            if info is not None and picture is None:
                self._say(f"{place}: its texture is left out, and the colours at the points are used alone")
            paint = replace(paint, tint=tint[piece.faces].astype(np.float32))
        paint = self._grained(paint, metallic, glossy, piece, base, place)
        bumps = self._laid(material.normalTexture, piece, place)
        if bumps is not None:
            paint = _with(paint, "bumps", self.images.tensor(bumps.image, "rgb", place), bumps, base)
        if paint.uv is None and piece.uv:
            paint = replace(paint, uv=piece.uv[min(piece.uv)].astype(np.float32))
        return paint

    def _laid(self, info: TextureInfo | None, piece: Piece, place: str) -> _Laid | None:
        """Where a texture lies on a piece; None, said, where it cannot be had."""
        if info is None:
            return None
        image = self.images.image_of(info.index, place)
        change = info.extensions.transform if info.extensions is not None else None
        number = info.texCoord if change is None or change.texCoord is None else change.texCoord
        if number not in piece.uv:
            self.images.say(
                f"a texture of {place} lies at TEXCOORD_{number}, which a mesh lacks; what it holds is left grey there"
            )
            return None
        if image is None:
            return None
        uv = piece.uv[number]
        if change is not None:
            with np.errstate(all="ignore"):
                (u, v), (cos, sin) = (uv * change.scale).T, (np.cos(change.rotation), np.sin(change.rotation))
                uv = np.stack([cos * u + sin * v, cos * v - sin * u], -1) + change.offset
        texture = self._gltf.at("textures", info.index, place)
        sampler = Sampler()
        if texture.sampler is not None:
            sampler = self._gltf.at("samplers", texture.sampler, place)
        wrap = _WRAPS.get(sampler.wrapS, "repeat"), _WRAPS.get(sampler.wrapT, "repeat")
        nearest = sampler.magFilter == _NEAREST
        moved = None if change is None else (*change.offset, change.rotation, *change.scale)
        with np.errstate(all="ignore"):
            return _Laid(image, Spot(uv.astype(np.float32), wrap, nearest), (number, moved, wrap, nearest))

    def _glowing(
        self, paint: SourceMaterial, material: Material, piece: Piece, base: _Laid | None, place: str
    ) -> SourceMaterial:
        """The paint with the light that the material gives: the brighter of both is seen."""
        strength = material.extensions.strength if material.extensions is not None else None
        power = np.array(material.emissiveFactor or [0.0] * 3) * (
            1.0 if strength is None else strength.emissiveStrength
        )
        power = power.clip(0, 1)
        if not power.any():
            return paint
        laid = self._laid(material.emissiveTexture, piece, place)
        if material.emissiveTexture is None:
            if paint.image is None and piece.colors is None:
                brighter = np.maximum(_shown(power), paint.factor if material.pbrMetallicRoughness else 0)
                paint = replace(paint, factor=tuple(brighter.tolist()))
                self._say("its emissive colour is part of its colour")
            else:
                self._say("its even emissive colour was left out")
            return paint
        glow = None if laid is None else self.images.tensor(laid.image, "rgb", place)
        if laid is None or glow is None:
            return paint
        self._say("its emissive texture is part of its colour")
        if paint.image is None and piece.colors is None and max(paint.factor) == 0:
            spot = laid.spot
            return replace(
                paint, image=glow, factor=tuple(power.tolist()), uv=spot.uv, wrap=spot.wrap, nearest=spot.nearest
            )
        return replace(paint, glow=glow, glow_factor=tuple(power.tolist()), spots={**paint.spots, "glow": laid.spot})

    def _grained(
        self,
        paint: SourceMaterial,
        metallic: Metallic,
        glossy: Glossy | None,
        piece: Piece,
        base: _Laid | None,
        place: str,
    ) -> SourceMaterial:
        """The paint with roughness and metal."""
        if glossy is not None:
            rough = 1 - float(np.clip(glossy.glossinessFactor, 0, 1))
            if glossy.specularGlossinessTexture is not None or max(glossy.specularFactor or [1.0]) > 0.1:
                self._say("its specular colours and the texture of its gloss were left out")
                rough = (
                    max(rough, DEFAULT_METALLIC_ROUGHNESS[0]) if glossy.specularGlossinessTexture is not None else rough
                )
            return replace(paint, metallic_roughness=(rough, 0.0))
        laid = self._laid(metallic.metallicRoughnessTexture, piece, place)
        grains = None if laid is None else self.images.tensor(laid.image, "gb", place)
        factors = metallic.roughnessFactor, metallic.metallicFactor
        if factors == (None, None) and grains is None:
            # glTF: both are 1 unless it says otherwise; files that say nothing at all mean a plain surface.
            return paint
        paint = replace(
            paint, metallic_roughness=tuple(1.0 if value is None else float(np.clip(value, 0, 1)) for value in factors)
        )
        return paint if grains is None or laid is None else _with(paint, "grains", grains, laid, base)

    def cut(self, piece: Piece) -> Bool[ndarray, " F"]:
        """Which triangles can be seen at all: those where its alpha is not below the mark everywhere."""
        material = self.material(piece)
        kept = np.ones(len(piece.faces), bool)
        if material.alphaMode not in ("MASK", "BLEND") or not len(kept):
            return kept
        mark = material.alphaCutoff if material.alphaMode == "MASK" else 1 / 255
        place = f"materials[{piece.material}]"
        metallic, glossy = _halves(material)
        info = metallic.baseColorTexture if glossy is None else glossy.diffuseTexture
        given = metallic.baseColorFactor if glossy is None else glossy.diffuseFactor
        laid = self._laid(info, piece, place)
        alpha = None if laid is None else self.images.tensor(laid.image, "a", place)
        factor = (given or [1.0] * 4)[3]

        def seen(rows: ndarray, points: int) -> tuple[ndarray, ndarray, float]:
            """(seen somewhere, seen everywhere, least alpha) of triangles, looked at in a grid of points."""
            bary = _grid(points)
            some, every, least = np.zeros(len(rows), bool), np.ones(len(rows), bool), 1.0
            for one in bary:
                many = np.broadcast_to(one, (len(rows), 3))
                values = np.full(len(rows), factor)
                if piece.colors is not None:
                    values *= (piece.colors[piece.faces[rows], 3] * many).sum(1)
                if alpha is not None and laid is not None:
                    values = values * laid.spot.of(alpha, piece.faces, rows, many)[:, 0]
                here = values >= mark
                some, every, least = some | here, every & here, min(least, float(values.min()))
            return some, every, least

        some, every, least = seen(np.arange(len(kept)), 6)
        doubtful = np.flatnonzero(~some)
        if len(doubtful):
            kept[doubtful] = seen(doubtful, 24)[0]
            self._say(f"{int((~kept).sum())} faces that its alpha hides were left out")
        if material.alphaMode == "MASK" and (kept & ~every).any():
            self._say(f"its alpha cuts through {int((kept & ~every).sum())} faces; they are drawn whole")
        elif material.alphaMode == "BLEND" and least < 0.99:
            self._say("what is see-through in it is drawn solid")
        return kept


def _halves(material: Material) -> tuple[Metallic, Glossy | None]:
    """The two ways to write a material: metallic and roughness; specular and glossiness where there is that."""
    glossy = material.extensions.glossy if material.extensions is not None else None
    return material.pbrMetallicRoughness or Metallic(), glossy


def _with(
    paint: SourceMaterial, name: str, picture: torch.Tensor | None, laid: _Laid, base: _Laid | None
) -> SourceMaterial:
    """The paint with one more picture, which may lie elsewhere than the first."""
    if picture is None:
        return paint
    paint = replace(paint, metallic_roughness_map=picture) if name == "grains" else replace(paint, normal_map=picture)
    if base is None and paint.uv is None:
        return replace(paint, uv=laid.spot.uv, wrap=laid.spot.wrap, nearest=laid.spot.nearest)
    same = base is not None and base.key == laid.key
    return paint if same else replace(paint, spots={**paint.spots, name: laid.spot})


def _grid(points: int) -> ndarray:
    """[N 3] Evenly spread points of a triangle, none on its border."""
    rows = [(i + 1 / 3, j + 1 / 3) for i in range(points) for j in range(points - i)]
    first = np.array(rows, np.float32) / points
    return np.concatenate([first, 1 - first.sum(-1, keepdims=True)], -1)


def _shown(linear: ndarray) -> ndarray:
    """sRGB of linear colours."""
    values: ndarray = linear_to_srgb(torch.from_numpy(np.asarray(linear, np.float32))).numpy()
    return values
