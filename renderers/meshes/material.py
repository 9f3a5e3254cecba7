"""What hangs on the surface of a mesh under training: how it starts, and how it looks under light.

A coat has up to three layers, each a texture [T T C] or values at points [P C]: "colours" (sRGB), "grain" (roughness
and metal, 0..1), "slopes" (x and y of a normal map, -1..1). Shapes: P points, T and t texels along a side, N pixels
that see the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from renderers.meshes import rasterization, shading
from renderers.meshes.mesh import Mesh
from renderers.meshes.welded_mesh import Body

LAYERS = {"colours": 3, "grain": 2, "slopes": 2}
"""Names and channels."""
GRAIN = (0.6, 0.0)
"""Roughness and metal where they are not trained."""


def started(mesh: Mesh, body: Body, names: Iterable[str], size: int | None, repaint: bool) -> dict[str, Tensor]:
    """The layers of these names as the mesh has them: textures of `size` texels, or values at its points for None.

    `repaint` leaves its colours away, for grey.
    """
    shape = (len(body.points),) if size is None else (size, size)
    given: dict[str, Tensor] = {}
    if not repaint:
        given["colours"] = torch.tensor(mesh.texture) / 255
    if mesh.maps is not None:
        given["grain"] = torch.stack([torch.tensor(mesh.maps.roughness), torch.tensor(mesh.maps.metallic)], -1) / 255
        if mesh.maps.normals is not None:
            given["slopes"] = torch.tensor(mesh.maps.normals)[..., :2] / 127.5 - 1
    plain = {"colours": torch.full((3,), 0.5), "grain": torch.tensor(GRAIN), "slopes": torch.zeros(2)}
    return {
        name: laid(given[name], body, size) if name in given else plain[name].expand(*shape, -1).clone()
        for name in names
        if name in LAYERS
    }


def laid(picture: Float[Tensor, "t t C"], body: Body, size: int | None) -> Tensor:
    """A texture of the mesh as one of `size` texels a side, or for None as values at its points."""
    if size is not None:
        planes = picture.permute(2, 0, 1)[None]
        other = functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
        return other[0].permute(1, 2, 0).contiguous()
    everywhere = torch.ones(1, 1, len(body.uv), dtype=torch.bool)
    finest = torch.zeros(everywhere.shape)
    values = rasterization.look_up(picture.contiguous(), body.uv.cpu()[None, None], finest, everywhere)
    # Copies of a point, on either side of a seam, have about the same colour: the last one wins.
    points = torch.zeros(len(body.points), picture.shape[-1])
    points[body.point_of.cpu()] = values[0, 0]
    return points


def shown(
    coat: Mapping[str, Float[Tensor, "N C"]],
    spread: Float[Tensor, "N S"],
    behind: Bool[Tensor, " N"],
    eye: Float[Tensor, "N 3"],
    light: shading.Light,
    turn: float,
) -> Float[Tensor, "N 3"]:
    """sRGB colours of pixels under a light that is turned around +Y by `turn` radians.

    `spread` are their places, normals and, where the coat has slopes, tangents, blended over the triangles; `behind`
    tells which see a triangle's back, `eye` where they are seen from.
    """
    places, normals = spread[:, :3], functional.normalize(spread[:, 3:6], dim=-1)
    normals = torch.where(behind[:, None], -normals, normals)
    if "slopes" in coat:
        tangents = torch.cat([spread[:, 6:9], spread[:, 9:].sign()], -1)
        normals = shading.bent(normals, tangents, coat["slopes"])
    toward = functional.normalize(eye - places, dim=-1)
    grain = coat["grain"] if "grain" in coat else places.new_tensor(GRAIN).expand(len(places), 2)
    material = shading.Material(shading.linear(coat["colours"]), grain[:, :1], grain[:, 1:])
    sent = shading.shade(material, shading.turned(normals, -turn), shading.turned(toward, -turn), light)
    return shading.displayed(sent)
