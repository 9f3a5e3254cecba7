"""Differentiable pictures of triangle meshes: what pixels see, values on the surface, textures, smooth outlines.

Float32 on a CPU goes to the compiled kernels; triangles on a CUDA device are found by PyTorch3D where it is
installed; all else (float64, no kernels) goes to the plain torch twin. Shapes as in `triangles.py`, V values
with C channels, T texels along a side.

    at = places(points, cameras)
    fragments = rasterise(at, triangles, cameras.height, cameras.width)
    picture = blend(colours, triangles.corners, at, triangles, fragments)
    picture = antialias(picture, at, triangles, outline(at, triangles, fragments))
"""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from renderers import kernels
from renderers.meshes import cpu_kernels, pytorch3d_backend, reference
from renderers.meshes.triangles import Fragments, SilhouetteCrossings, Topology, project_points

__all__ = [
    "antialias",
    "find_silhouettes",
    "interpolate",
    "mip_level",
    "num_mip_levels",
    "project_points",
    "rasterize",
    "texture_lookup",
]

MAX_MIP_LEVELS = 4
"""Halvings of a texture that are looked up, the texture itself included; coarser ones would mix its pieces."""
_MAX_SIDE = 16_384


def rasterize(places: Float[Tensor, "B P 3"], triangles: Topology, height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre; holds no gradients.

    A centre on a common edge belongs to exactly one of the two triangles. What is behind the camera, or has a corner
    that is not a finite number, is not drawn; a triangle that reaches behind the camera is drawn as far as it is ahead.
    Raises ValueError where the sizes do not fit together.
    """
    if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
        raise ValueError(f"pictures of {height} x {width} pixels; expected 1 to {_MAX_SIDE} along each side")
    if places.shape[1] != triangles.points:
        raise ValueError(f"{places.shape[1]} points are given, but the triangles join {triangles.points}")
    if places.device.type == "cuda" and pytorch3d_backend.installed():
        return pytorch3d_backend.rasterize(places, triangles, height, width)
    return _way(places).rasterize(places, triangles, height, width)  # type: ignore[no-any-return]


def interpolate(
    values: Float[Tensor, "V C"] | Float[Tensor, "B V C"],
    corners: Int32[Tensor, "F 3"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    fragments: Fragments,
) -> Float[Tensor, "B H W C"]:
    """Values given at corners, at every pixel, 0 where there is no triangle; differentiable in values and places.

    `corners` are the rows of `values` that belong to each triangle: `triangles.corners` where points have values,
    others where a point has several, as along the seam of a texture. Check them once, with `check_corners`.
    """
    if len(corners) != len(triangles):
        raise ValueError(f"{len(corners)} triangles have values, but there are {len(triangles)}")
    return _way(places).interpolate(values, corners, places, triangles, fragments)  # type: ignore[no-any-return]


def find_silhouettes(places: Float[Tensor, "B P 3"], triangles: Topology, fragments: Fragments) -> SilhouetteCrossings:
    """Where outlines pass between the centres of neighbouring pixels; holds no gradients."""
    return _way(places).find_silhouettes(places, triangles, fragments)  # type: ignore[no-any-return]


def antialias(
    picture: Float[Tensor, "B H W C"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    crossings: SilhouetteCrossings,
) -> Float[Tensor, "B H W C"]:
    """The picture with smooth outlines; differentiable in the picture and, through the outlines, in the places.

    Every pixel beside an outline mixes in its neighbour on the other side, by as much as the outline leaves of it.
    """
    return _way(places).antialias(picture, places, triangles, crossings)  # type: ignore[no-any-return]


def texture_lookup(
    texture: Float[Tensor, "T T C"],
    uv: Float[Tensor, "B H W 2"],
    detail: Float[Tensor, "B H W"],
    mask: Bool[Tensor, "B H W"],
) -> Float[Tensor, "B H W C"]:
    """A texture at places in 0..1, (0, 0) its upper-left corner; 0 where nothing is wanted. The border is repeated.

    `detail` is the level between the texture's halvings (0 the texture itself, 1 half its size); see `mip_level`.
    Differentiable in the texture and in the places, not in the level.
    """
    return _way(uv).texture_lookup(texture, uv, detail, mask, num_mip_levels(texture.shape[0]))  # type: ignore[no-any-return]


def num_mip_levels(size: int) -> int:
    """Halvings of a texture of `size` texels a side that are looked up, itself included."""
    levels = 1
    while levels < MAX_MIP_LEVELS and size % 2**levels == 0 and size >= 2 ** (levels + 1):
        levels += 1
    return levels


@torch.no_grad()
def mip_level(fragments: Fragments, flat: Float[Tensor, " F"], size: int) -> Float[Tensor, "B H W"]:
    """The level of a texture of `size` texels a side at which a texel is about as large as a pixel.

    `flat` are the doubled areas of the triangles in texture coordinates.
    """
    texels = flat[fragments.face.long().clamp_min(0)].abs() * size**2 if len(flat) else torch.zeros_like(fragments.area)
    return 0.5 * torch.log2((texels / fragments.area.abs().clamp_min(1e-12)).clamp(1.0, 2.0**40))


def _way(tensor: Tensor) -> ModuleType:
    """The compiled kernels where they can be used, else the twin."""
    fast = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and kernels.library() is not None
    return cpu_kernels if fast else reference
