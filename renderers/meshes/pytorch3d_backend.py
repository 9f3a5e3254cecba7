"""The one place that knows PyTorch3D, which finds the triangle each pixel sees for meshes on a CUDA device.

Weights, depths and gradients come from the torch twin, as for every other rasteriser, so outlines pull the same way.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.meshes import reference
from renderers.meshes.triangles import Fragments, Topology

_MIN_DEPTH = 1e-6


@cache
def installed() -> bool:
    """Whether PyTorch3D is there; where it is not, the torch twin finds the triangles."""
    return find_spec("pytorch3d") is not None


@torch.no_grad()
def rasterize(places: Float[Tensor, "B P 3"], triangles: Topology, height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre.

    Raises ImportError where PyTorch3D was built for another torch or another CUDA.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise ImportError(f"PyTorch3D is installed but cannot be loaded: {error}; build it for this torch") from error
    meshes = Meshes(**batch(places, triangles, height, width))
    found, *_ = rasterize_meshes(meshes, **settings(height, width))
    return fragments(found[..., 0], places, triangles)


def batch(places: Float[Tensor, "B P 3"], triangles: Topology, height: int, width: int) -> dict[str, Any]:
    """How `Meshes` is made: x to the left and y up, the shorter side of the picture from -1 to 1, and the depth."""
    w = places[..., 2:]
    w = torch.where(w.abs() < _MIN_DEPTH, _MIN_DEPTH, w)
    middle = places.new_tensor([width / 2, height / 2])
    flat = (middle - places[..., :2] / w) / (min(width, height) / 2)
    # One that is not a number would spoil the binning; behind the camera it is cut off.
    verts = torch.cat([flat, w], -1)
    verts = torch.where(verts.isfinite().all(-1, keepdim=True), verts, verts.new_tensor([0.0, 0.0, -1.0]))
    return {"verts": verts, "faces": triangles.corners.long()[None].expand(len(places), -1, -1)}


def settings(height: int, width: int) -> dict[str, Any]:
    """How `rasterize_meshes` is called: one hard triangle a pixel, both sides, cut at the least depth."""
    return {
        "image_size": (height, width),
        "blur_radius": 0.0,
        "faces_per_pixel": 1,
        "perspective_correct": True,
        "clip_barycentric_coords": False,
        "cull_backfaces": False,
        "z_clip_value": reference.DRAWN_FROM,
        "cull_to_frustum": False,
    }


def fragments(found: Tensor, places: Float[Tensor, "B P 3"], triangles: Topology) -> Fragments:
    """Weights and depths [B H W] for triangles that were numbered through all pictures; -1 where there is none."""
    first = torch.arange(len(found), device=found.device)[:, None, None] * len(triangles)
    face = torch.where(found >= 0, found - first, -1).int()
    view, row, column = (face >= 0).nonzero(as_tuple=True)
    corners = places[view[:, None], triangles.corners[face[view, row, column].long()].long()]
    weights, depth, area = reference.weigh(corners, torch.stack([column, row], -1).to(places) + 0.5)
    rows = (view, row, column)
    return Fragments(
        face,
        places.new_zeros(*face.shape, 3).index_put(rows, weights),
        places.new_zeros(face.shape).index_put(rows, depth),
        places.new_zeros(face.shape).index_put(rows, area),
    )
