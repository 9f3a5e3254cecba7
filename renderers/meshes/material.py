"""What hangs on the surface of a mesh under training: how it starts, and how it looks under light.

A material has up to three layers, each a texture [T T C] or values at points [P C]: "base_color" (sRGB),
"metallic_roughness" (roughness and metal, 0..1), "normal_xy" (x and y of a normal map, -1..1). Shapes: P points,
T and t texels along a side, N pixels of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from renderers.meshes import rasterization, shading
from renderers.meshes.mesh import Mesh
from renderers.meshes.welded_mesh import WeldedMesh

MATERIAL_CHANNELS = {"base_color": 3, "metallic_roughness": 2, "normal_xy": 2}
"""Names and channels."""
DEFAULT_METALLIC_ROUGHNESS = (0.6, 0.0)
"""Roughness and metal where they are not trained."""


def init_material(
    mesh: Mesh, body: WeldedMesh, names: Iterable[str], size: int | None, repaint: bool
) -> dict[str, Tensor]:
    """The layers of these names as the mesh has them: textures of `size` texels, or values at its points for None.

    `repaint` leaves its colours away, for grey.
    """
    shape = (len(body.points),) if size is None else (size, size)
    given: dict[str, Tensor] = {}
    if not repaint:
        given["base_color"] = torch.tensor(mesh.texture) / 255
    if mesh.maps is not None:
        given["metallic_roughness"] = (
            torch.stack([torch.tensor(mesh.maps.roughness), torch.tensor(mesh.maps.metallic)], -1) / 255
        )
        if mesh.maps.normals is not None:
            given["normal_xy"] = torch.tensor(mesh.maps.normals)[..., :2] / 127.5 - 1
    plain = {
        "base_color": torch.full((3,), 0.5),
        "metallic_roughness": torch.tensor(DEFAULT_METALLIC_ROUGHNESS),
        "normal_xy": torch.zeros(2),
    }
    return {
        name: resample_texture(given[name], body, size) if name in given else plain[name].expand(*shape, -1).clone()
        for name in names
        if name in MATERIAL_CHANNELS
    }


def resample_texture(image: Float[Tensor, "t t C"], body: WeldedMesh, size: int | None) -> Tensor:
    """A texture of the mesh as one of `size` texels a side, or for None as values at its points."""
    if size is not None:
        planes = image.permute(2, 0, 1)[None]
        other = functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
        return other[0].permute(1, 2, 0).contiguous()
    everywhere = torch.ones(1, 1, len(body.uv), dtype=torch.bool)
    finest = torch.zeros(everywhere.shape)
    values = rasterization.texture_lookup(image.contiguous(), body.uv.cpu()[None, None], finest, everywhere)
    # Copies of a point, on either side of a seam, have about the same colour: the last one wins.
    points = torch.zeros(len(body.points), image.shape[-1])
    points[body.weld_index.cpu()] = values[0, 0]
    return points


def shade_pixels(
    layers: Mapping[str, Float[Tensor, "N C"]],
    spread: Float[Tensor, "N S"],
    behind: Bool[Tensor, " N"],
    eye: Float[Tensor, "N 3"],
    light: shading.EnvironmentLight,
    turn: float,
) -> Float[Tensor, "N 3"]:
    """sRGB colours of pixels under a light that is turned around +Y by `turn` radians.

    `spread` are their places, normals and, where the coat has slopes, tangents, blended over the triangles; `behind`
    tells which see a triangle's back, `eye` where they are seen from.
    """
    places, normals = spread[:, :3], functional.normalize(spread[:, 3:6], dim=-1)
    normals = torch.where(behind[:, None], -normals, normals)
    if "normal_xy" in layers:
        tangents = torch.cat([spread[:, 6:9], spread[:, 9:].sign()], -1)
        normals = shading.apply_normal_map(normals, tangents, layers["normal_xy"])
    toward = functional.normalize(eye - places, dim=-1)
    grain = (
        layers["metallic_roughness"]
        if "metallic_roughness" in layers
        else places.new_tensor(DEFAULT_METALLIC_ROUGHNESS).expand(len(places), 2)
    )
    material = shading.Material(shading.srgb_to_linear(layers["base_color"]), grain[:, :1], grain[:, 1:])
    sent = shading.shade(material, shading.rotate_y(normals, -turn), shading.rotate_y(toward, -turn), light)
    return shading.linear_to_srgb(sent)
