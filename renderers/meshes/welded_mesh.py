"""A mesh as the thing that is trained on: points that can move, and what hangs on them.

In a `Mesh` a vertex on a seam of the texture appears once for each side. Here the points are joined again, so that a
seam neither opens when they move nor counts as an outline; texture coordinates keep corners of their own.
Shapes: P points, F triangles, U vertices of the mesh, N normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from renderers.meshes import regularizer_kernels
from renderers.meshes.mesh import Mesh
from renderers.meshes.triangles import Topology, check_corners

_SAME_NORMAL = 1e-3
_MARGIN = 0.06
"""Share of a side's square in the texture of a ball that is left free around it."""


@dataclass(frozen=True)
class WeldedMesh:
    """The fixed parts of a mesh under training."""

    points: Float[Tensor, "P 3"]
    """Where they are at the start."""
    triangles: Topology
    uv: Float[Tensor, "U 2"]
    """Texture coordinates of the mesh's vertices, (0, 0) the upper-left corner."""
    vertices: Int32[Tensor, "F 3"]
    """The mesh's vertices at each triangle's corners."""
    weld_index: Int64[Tensor, " U"]
    """The point that each vertex is a copy of."""
    normal_of: Int64[Tensor, " U"]
    """Its row among the normals; copies on a sharp edge have normals of their own."""

    @staticmethod
    def from_mesh(mesh: Mesh, device: torch.device | str = "cpu") -> WeldedMesh:
        """Joins the copies of each point. Raises ValueError for a mesh that cannot be drawn."""
        if not len(mesh.faces):
            raise ValueError("the mesh has no triangles")
        if not (np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()):
            raise ValueError("the mesh has positions or texture coordinates that are not finite numbers")
        points, point_of = np.unique(mesh.vertices.astype(np.float32), axis=0, return_inverse=True)
        point_of = point_of.reshape(-1)
        # Rounded to a lattice that has no nodes at 0, 0.5 and 1, where normals like to be.
        rounded = np.floor(mesh.normals / _SAME_NORMAL + 0.37).astype(np.int64)
        _, normal_of = np.unique(np.concatenate([point_of[:, None], rounded], 1), axis=0, return_inverse=True)
        faces = torch.from_numpy(np.ascontiguousarray(mesh.faces, np.int32))
        check_corners(faces, len(mesh.vertices))
        tensors = {
            "points": torch.from_numpy(points),
            "corners": torch.from_numpy(point_of.astype(np.int32))[faces.long()],
            "uv": torch.from_numpy(np.ascontiguousarray(mesh.uv, np.float32)),
            "vertices": faces,
            "weld_index": torch.from_numpy(point_of.astype(np.int64)),
            "normal_of": torch.from_numpy(normal_of.reshape(-1).astype(np.int64)),
        }
        return WeldedMesh.from_state({name: tensor.to(device) for name, tensor in tensors.items()})

    def state(self) -> dict[str, Tensor]:
        """All of it, as `from_state` takes it."""
        names = ("points", "uv", "vertices", "weld_index", "normal_of")
        return {name: getattr(self, name) for name in names} | {"corners": self.triangles.corners}

    @staticmethod
    def from_state(state: dict[str, Tensor]) -> WeldedMesh:
        """The body that gave this state. Raises ValueError if something is missing or does not fit."""
        wanted = ("points", "corners", "uv", "vertices", "weld_index", "normal_of")
        missing = [name for name in wanted if name not in state]
        if missing:
            raise ValueError(f"the saved mesh lacks {', '.join(missing)}; all of {', '.join(wanted)} are needed")
        points, corners, *rest = (state[name] for name in wanted)
        check_corners(rest[1], len(rest[0]))
        return WeldedMesh(points, Topology(corners, len(points)), *rest)

    @cached_property
    def _normal_rows(self) -> tuple[Int32[Tensor, "F 3"], int]:
        """The row among the normals of each triangle's corners, and how many there are."""
        return self.normal_of[self.vertices.long()].int(), int(self.normal_of.max()) + 1

    @property
    def length(self) -> float:
        """Mean length of an edge at the start."""
        a, b = self.points[self.triangles.edges.vertices.long()].unbind(1)
        return float((a - b).norm(dim=-1).mean())

    def face_area_vectors(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "F 3"]:
        """A vector across each triangle, to its front, twice as long as its area."""
        a, b, c = points[self.triangles.corners.long()].unbind(1)
        cross: Tensor = torch.linalg.cross(b - a, c - a)
        return cross

    def normals(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "U 3"]:
        """Unit normals of the mesh's vertices: of the triangles around them, weighted by their areas."""
        rows, count = self._normal_rows
        if regularizer_kernels.usable(points):
            summed = regularizer_kernels.summed(points, self.triangles, rows, count)
        else:
            around = self.face_area_vectors(points).repeat_interleave(3, 0)
            summed = points.new_zeros(count, 3).index_add(0, rows.flatten().long(), around)
        unit: Tensor = functional.normalize(summed, dim=-1, eps=1e-20)
        return unit[self.normal_of]

    def tangents(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "U 4"]:
        """Where the texture's x runs at the mesh's vertices, and the sign that `shading.bent` wants."""
        a, b, c = points[self.triangles.corners.long()].unbind(1)
        u, v, w = self.uv[self.vertices.long()].unbind(1)
        (du, dv), (eu, ev) = (v - u).unbind(-1), (w - u).unbind(-1)
        turn = (du * ev - eu * dv).sign()[:, None]
        along = ((b - a) * ev[:, None] - (c - a) * dv[:, None]) * turn
        rows = self.vertices.long().flatten()
        summed = points.new_zeros(len(self.uv), 4)
        # v runs down in the texture, so the upward direction has the opposite turn.
        summed = summed.index_add(0, rows, torch.cat([along, -turn], -1).repeat_interleave(3, 0))
        sign = torch.where(summed[:, 3:] < 0, -1.0, 1.0).to(points)
        return torch.cat([functional.normalize(summed[:, :3], dim=-1, eps=1e-20), sign], -1)

    def uv_areas(self) -> Float[Tensor, " F"]:
        """Doubled areas of the triangles in texture coordinates."""
        u, v, w = self.uv[self.vertices.long()].unbind(1)
        (du, dv), (eu, ev) = (v - u).unbind(-1), (w - u).unbind(-1)
        return (du * ev - eu * dv).abs()

    def laplacian(self, values: Float[Tensor, "P C"]) -> Float[Tensor, "P C"]:
        """Each point's value less the mean of its neighbours' (the uniform Laplacian); 0 where it has none."""
        a, b = self.triangles.edges.vertices.long().unbind(1)
        apart = values[a] - values[b]
        count = torch.bincount(torch.cat([a, b]), minlength=len(values)).clamp_min(1)
        return torch.zeros_like(values).index_add(0, a, apart).index_add(0, b, -apart) / count[:, None]

    def dihedral_angles(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " E"]:
        """1 - cosine between the fronts of the two triangles at every edge that has two: 0 flat, 2 folded over."""
        front = functional.normalize(self.face_area_vectors(points), dim=-1, eps=1e-20)
        first, second = self.triangles.edges.neighbours.long().unbind(1)
        return 1 - (front[first] * front[second]).sum(-1)

    def laplacian_loss(self, moved: Float[Tensor, "P 3"], length: float) -> Float[Tensor, ""]:
        """The mean square of `laplacian`, in lengths `length`."""
        if regularizer_kernels.usable(moved):
            return regularizer_kernels.laplacian_loss(moved, self.triangles, length)
        return (self.laplacian(moved) / length).square().sum(-1).mean()

    def normal_consistency_loss(self, points: Float[Tensor, "P 3"], rest: Float[Tensor, " E"]) -> Float[Tensor, ""]:
        """The mean of what `creases` exceed `rest` by; 0 where no triangles are neighbours."""
        if not len(rest):
            return points.new_zeros(())
        if regularizer_kernels.usable(points):
            return regularizer_kernels.normal_consistency_loss(points, self.triangles, rest)
        return (self.dihedral_angles(points) - rest).clamp_min(0).mean()


def cube_sphere(radius: float, faces: int, size: int) -> Mesh:
    """A grey sphere of about `faces` triangles, all of a size: a cube blown up, its six sides in the texture."""
    steps = max(1, round(math.sqrt(faces / 12)))
    # Equal angles; the same numbers for the same place on either side of an edge of the cube.
    half = np.tan(np.pi / 4 * (2 * np.arange(steps + 1) - steps) / steps)
    half[0], half[-1] = -1.0, 1.0
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    down, right = half[i].ravel(), half[j].ravel()
    one = np.ones_like(down)
    # Front, right, back, left, top, bottom as seen from outside; rows run down.
    sides = [
        (right, -down, one), (one, -down, -right), (-right, -down, -one),
        (-one, -down, right), (right, one, down), (right, -one, -down),
    ]  # fmt: skip
    place = (i * (steps + 1) + j)[:-1, :-1].ravel()
    quad = np.stack([place, place + steps + 1, place + steps + 2, place, place + steps + 2, place + 1], -1)
    vertices, uv, triangles = [], [], []
    inner = _MARGIN + (1 - 2 * _MARGIN) * np.stack([j.ravel(), i.ravel()], -1) / steps
    for number, side in enumerate(sides):
        triangles.append(quad.reshape(-1, 3) + number * (steps + 1) ** 2)
        vertices.append(np.stack(side, -1))
        uv.append((inner + np.array([number % 3, number // 3])) / [3, 2])
    cube = np.concatenate(vertices)
    normals = cube / np.sqrt(np.sort(cube**2, axis=1).sum(1, keepdims=True))
    grey = np.full((size, size, 3), 128, np.uint8)
    return Mesh(
        (radius * normals).astype(np.float32),
        np.concatenate(triangles).astype(np.int32),
        normals.astype(np.float32),
        np.concatenate(uv).astype(np.float32),
        grey,
    )
