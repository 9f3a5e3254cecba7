"""From a mesh under training back to one that can be exported: eight bits, one texture, nothing left unpainted.

Shapes: P points, U vertices of the mesh, T texels along a side, N texels in use.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from renderers.meshes import rasterization
from renderers.meshes.mesh import MaterialMaps, Mesh
from renderers.meshes.triangles import Fragments, Topology
from renderers.meshes.welded_mesh import WeldedMesh

_ROUGHNESS = 0.6


def bake_mesh(
    body: WeldedMesh,
    points: Float[Tensor, "P 3"],
    normals: Float[Tensor, "U 3"],
    values: Float[Tensor, "T T C"] | Float[Tensor, "P C"],
    size: int | None,
) -> Mesh:
    """The mesh with these points.

    `values`, 0..1, are colours, or colours, roughness and metal, or these and the x and y of a normal map, -1..1; of
    texels where `size` is None, else of points, and then they are painted on a texture of that size.
    """
    body = WeldedMesh.from_state({name: value.cpu() for name, value in body.state().items()})
    values = values.detach().cpu()
    side = size or len(values)
    triangles, fragments = _unfolded(body, side)
    if size is not None:
        at = _flat(body, side)
        values = rasterization.interpolate(values, body.triangles.corners, at, triangles, fragments)[0]
    texture = inpaint_nearest(values.numpy(), fragments.seen[0].numpy())
    maps = None
    if texture.shape[-1] > 3:
        maps = MaterialMaps(_to_uint8(texture[..., 3]), _to_uint8(texture[..., 4]), _normal_map(texture[..., 5:]))
    return Mesh(
        points.cpu().numpy()[body.weld_index.numpy()],
        body.vertices.numpy(),
        normals.cpu().numpy(),
        body.uv.numpy(),
        _to_uint8(texture[..., :3]),
        maps,
    )


def inpaint_nearest(values: Float[ndarray, "T T C"], used: Bool[ndarray, "T T"]) -> Float[ndarray, "T T C"]:
    """The texture with every texel that is not in use taking over the nearest one that is."""
    from scipy.ndimage import distance_transform_edt

    if not used.any():
        return values
    _, (rows, columns) = distance_transform_edt(~used, return_indices=True)
    nearest: ndarray = values[rows, columns]
    return nearest


def _flat(body: WeldedMesh, size: int) -> Float[Tensor, "1 U 3"]:
    """The mesh's vertices where they lie in the texture."""
    return torch.cat([body.uv * size, torch.ones(len(body.uv), 1)], -1)[None]


def _unfolded(body: WeldedMesh, size: int) -> tuple[Topology, Fragments]:
    """Which triangle every texel lies in."""
    triangles = Topology(body.vertices, len(body.uv))
    return triangles, rasterization.rasterize(_flat(body, size), triangles, size, size)


def _to_uint8(values: ndarray) -> UInt8[ndarray, ...]:
    eight: ndarray = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return eight


def _normal_map(slopes: Float[ndarray, "T T S"]) -> UInt8[ndarray, "T T 3"] | None:
    """None where there are no slopes."""
    if slopes.shape[-1] == 0:
        return None
    rest = np.sqrt((1 - (slopes**2).sum(-1, keepdims=True)).clip(0.01))
    return _to_uint8(np.concatenate([slopes, rest], -1) / 2 + 0.5)
