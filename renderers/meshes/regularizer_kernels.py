"""The C++ kernels for meshes as shapes (renderers/csrc/mesh_shape.cpp), differentiable; CPU, float32.

Shapes: P points, F triangles, N normals. `renderers.meshes.welded_mesh` holds the same in plain torch.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from renderers import kernels
from renderers.meshes.triangles import Topology


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "faces", "edges", "pairs")),
        ("length", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("points", "moved", "corners", "ends", "neighbours", "rest", "rows")),
        *((name, ctypes.c_void_p) for name in ("sums", "d_sums", "d_points", "d_moved")),
    ]


def usable(tensor: Tensor) -> bool:
    """Whether the kernels can take it."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and kernels.library() is not None


def laplacian_loss(moved: Float[Tensor, "P 3"], triangles: Topology, length: float) -> Float[Tensor, ""]:
    """The mean over points of the squared difference to the mean of their neighbours, in lengths `length`."""
    value: Tensor = _LaplacianLoss.apply(moved.contiguous(), triangles, length)  # type: ignore[no-untyped-call]
    return value


def normal_consistency_loss(
    points: Float[Tensor, "P 3"], triangles: Topology, rest: Float[Tensor, " E"]
) -> Float[Tensor, ""]:
    """The mean over neighbouring triangles of what 1 - cosine between them exceeds `rest` by."""
    value: Tensor = _NormalConsistencyLoss.apply(points.contiguous(), triangles, rest)  # type: ignore[no-untyped-call]
    return value


def summed(
    points: Float[Tensor, "P 3"], triangles: Topology, rows: Int32[Tensor, "F 3"], count: int
) -> Float[Tensor, "N 3"]:
    """The vectors across the triangles, twice as long as their areas, summed into `count` rows at their corners."""
    sums: Tensor = _Summed.apply(points.contiguous(), triangles, rows, count)  # type: ignore[no-untyped-call]
    return sums


class _LaplacianLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        moved, triangles, length = arguments
        shape = _shape(triangles)
        edges, gradient = triangles.edges, torch.zeros_like(moved)
        shape.edges, shape.length = len(edges.vertices), length
        shape.moved, shape.ends, shape.d_moved = (t.data_ptr() for t in (moved, edges.vertices, gradient))
        ctx.save_for_backward(gradient)
        return torch.tensor(_call("unevenness", shape), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None


class _NormalConsistencyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        points, triangles, rest = arguments
        shape = _shape(triangles)
        pairs, gradient = triangles.edges.neighbours, torch.zeros_like(points)
        shape.pairs = len(pairs)
        shape.points, shape.neighbours, shape.rest = (t.data_ptr() for t in (points, pairs, rest))
        shape.d_points = gradient.data_ptr()
        ctx.save_for_backward(gradient)
        return torch.tensor(_call("creasing", shape), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        points, triangles, rows, count = arguments
        shape, sums = _shape(triangles), torch.zeros(count, 3)
        shape.points, shape.rows, shape.sums = (t.data_ptr() for t in (points, rows, sums))
        _call("face_rows", shape)
        ctx.save_for_backward(points)
        ctx.rest = triangles, rows
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        points, (triangles, rows) = ctx.saved_tensors[0], ctx.rest
        shape, d_sums, d_points = _shape(triangles), gradients[0].contiguous(), torch.zeros_like(points)
        shape.points, shape.rows, shape.d_sums, shape.d_points = (
            t.data_ptr() for t in (points, rows, d_sums, d_points)
        )
        _call("face_rows_backward", shape)
        return d_points, None, None, None


def _shape(triangles: Topology) -> _Shape:
    shape = _Shape(triangles.points, len(triangles))
    shape.corners = triangles.corners.data_ptr()
    return shape


def _call(name: str, shape: _Shape) -> float:
    library = kernels.library()
    if library is None:
        raise OSError(kernels.why_missing())
    function = getattr(library, f"sds3d_mesh_{name}")
    function.restype = ctypes.c_double
    return float(function(ctypes.byref(shape)))
