"""The colours and materials of meshes that were read from files, looked up anywhere on their surfaces.

Shapes: V vertices, F triangles, N points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.meshes.shading import linear_to_srgb, srgb_to_linear

GREY: tuple[float, ...] = (0.5, 0.5, 0.5)
"""Colour of what has none, sRGB."""
DEFAULT_METALLIC_ROUGHNESS: tuple[float, ...] = (0.9, 0.0)
"""Roughness and metal of what has none."""


@dataclass(frozen=True)
class Spot:
    """Where a picture lies on a part of a mesh."""

    uv: Float[ndarray, "V 2"]
    """(0, 0) the upper-left corner of the picture; may lie outside 0..1."""
    wrap: tuple[str, str] = ("repeat", "repeat")
    """What is outside, across and down: repeat, clamp or mirror."""
    nearest: bool = False
    """Texels are squares of one colour, and not blended."""

    def of(
        self, picture: torch.Tensor, faces: Int[ndarray, "F 3"], face: Int[ndarray, " N"], bary: Float[ndarray, "N 3"]
    ) -> Float[ndarray, "N C"]:
        """The picture at points of the surface."""
        place = (self.uv[faces[face]].astype(np.float64) * bary[..., None]).sum(1)
        return texels(picture, np.nan_to_num(place, nan=0.0, posinf=0.0, neginf=0.0), self.wrap, self.nearest)


def texels(
    picture: Float[torch.Tensor, "C H W"], place: Float[ndarray, "N 2"], wrap: tuple[str, str], nearest: bool
) -> Float[ndarray, "N C"]:
    """Values of a picture at places that may lie outside 0..1, as a graphics card looks them up."""
    rows = picture.numpy()
    sizes = (rows.shape[2], rows.shape[1])
    exact = [place[:, k] * sizes[k] - (0.0 if nearest else 0.5) for k in range(2)]
    first = [np.floor(values) for values in exact]
    if nearest:
        across, down = (_wrapped(first[k], sizes[k], wrap[k]) for k in range(2))
        return np.ascontiguousarray(rows[:, down, across].T)
    share = [(exact[k] - first[k]).astype(np.float32) for k in range(2)]
    near = [_wrapped(first[k], sizes[k], wrap[k]) for k in range(2)]
    far = [_wrapped(first[k] + 1, sizes[k], wrap[k]) for k in range(2)]
    upper = rows[:, near[1], near[0]] * (1 - share[0]) + rows[:, near[1], far[0]] * share[0]
    lower = rows[:, far[1], near[0]] * (1 - share[0]) + rows[:, far[1], far[0]] * share[0]
    return np.ascontiguousarray((upper * (1 - share[1]) + lower * share[1]).T)


def _wrapped(texel: Float[ndarray, " N"], size: int, way: str) -> Int[ndarray, " N"]:
    """Texels of the picture that stand for those outside it."""
    if way == "clamp":
        texel = texel.clip(0, size - 1)
    elif way == "mirror":
        texel = np.mod(texel, 2 * size)
        texel = np.minimum(texel, 2 * size - 1 - texel)
    whole: ndarray = np.mod(texel, size).astype(np.int64)
    return whole


@dataclass(frozen=True)
class SourceMaterial:
    """What is on one part of a mesh. Pictures are [C H W], 0..1."""

    uv: Float[ndarray, "V 2"] | None = None
    """(0, 0) the upper-left corner of the pictures; may lie outside 0..1, where they repeat."""
    image: Any = None
    """sRGB; None: white."""
    factor: tuple[float, ...] = GREY
    """Linear, times the picture; or the sRGB colour where there is none and `corners` is None."""
    corners: Float[ndarray, "F 3 3"] | None = None
    """sRGB colours of every triangle's corners, instead of a picture."""
    metallic_roughness: tuple[float, ...] = DEFAULT_METALLIC_ROUGHNESS
    """Roughness and metal, times the picture's."""
    metallic_roughness_map: Any = None
    """Roughness and metal as a picture."""
    normal_map: Any = None
    """Normal map."""
    material: int = 0
    """The same number for the same material."""
    wrap: tuple[str, str] = ("repeat", "repeat")
    """What is outside the pictures, as `Spot.wrap`."""
    nearest: bool = False
    tint: Float[ndarray, "F 3 3"] | None = None
    """Linear colours of every triangle's corners, times the picture; without one, they are the colour."""
    glow: Any = None
    """A picture, sRGB; the brighter of it and the colour is seen."""
    glow_factor: tuple[float, ...] = (1.0, 1.0, 1.0)
    spots: dict[str, Spot] = field(default_factory=dict)
    """Where grains, bumps and glow lie if not where the picture does."""

    def spot(self, name: str) -> Spot | None:
        """Where one of the pictures lies."""
        return self.spots.get(name) or (None if self.uv is None else Spot(self.uv, self.wrap, self.nearest))

    @property
    def bound(self) -> str | None:
        """Why the part is more than pictures that all lie at the same place; None where it is not."""
        if self.corners is not None or self.tint is not None:
            return "it has colours at its points"
        return "its textures lie in different places, or glow" if self.spots or self.glow is not None else None

    def at(
        self, faces: Int[ndarray, "F 3"], face: Int[ndarray, " N"], bary: Float[ndarray, "N 3"]
    ) -> Float[ndarray, "N 5"]:
        """Colour (sRGB), roughness and metal at points of the surface, 0..1."""
        values = np.empty((len(face), 5), np.float32)
        values[:, :3], values[:, 3:] = self.factor if self.image is None else 1.0, self.metallic_roughness
        if self.corners is not None:
            values[:, :3] = (self.corners[face] * bary[..., None]).sum(1)
        if self.image is not None and (spot := self.spot("picture")):
            values[:, :3] = _tinted(spot.of(self.image, faces, face, bary), self.factor)
        if self.tint is not None:
            tint = (self.tint[face] * bary[..., None]).sum(1)
            below = 1.0 if self.image is None else srgb_to_linear(torch.from_numpy(values[:, :3])).numpy()
            values[:, :3] = displayed_colors(np.clip(below * tint, 0, 1))
        if self.glow is not None and (spot := self.spot("glow")):
            glow = _tinted(spot.of(self.glow, faces, face, bary), self.glow_factor)
            values[:, :3] = np.maximum(values[:, :3], glow.clip(0, 1))
        if self.metallic_roughness_map is not None and (spot := self.spot("grains")):
            values[:, 3:] *= spot.of(self.metallic_roughness_map, faces, face, bary)
        return values

    def whole_picture(self) -> Float[ndarray, "H W 3"] | None:
        """The picture with its factor, None where there is none."""
        if self.image is None:
            return None
        rows = self.image.permute(1, 2, 0).numpy()
        tinted: ndarray = _tinted(rows.reshape(-1, 3), self.factor).reshape(rows.shape)
        return tinted


def displayed_colors(colours: ndarray) -> ndarray:
    """sRGB of linear colours."""
    values: ndarray = linear_to_srgb(torch.from_numpy(np.asarray(colours, np.float32))).numpy()
    return values


def _tinted(srgb: Float[ndarray, "N 3"], factor: tuple[float, ...]) -> Float[ndarray, "N 3"]:
    """sRGB colours times a linear factor."""
    if all(part == 1 for part in factor):
        return srgb
    return displayed_colors(srgb_to_linear(torch.from_numpy(srgb)).numpy() * np.asarray(factor, np.float32))
