"""The C++ splat kernels (renderers/native/splats.h) as a differentiable function of CPU float32 tensors.

Memory is allocated here and owned by torch; the kernels keep nothing. Results do not depend on the number of
threads: tiles share nothing, and gradients are summed per splat in a fixed order.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import native
from renderers.gaussians import Gaussians, Lenses, Sighting

_TILE = 16
_RECORD_FLOATS = 16
_PAIR_SUMS = 12
_PAIRS_WORTH_THREADS = 16_000
"""Below about this many (splat, tile) pairs one thread is done before others have woken up."""


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Scene(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("views", "count", "height", "width", "threads", "colours_per_view")),
        *_pointers("means", "quats", "scales", "opacities", "colours", "viewmats", "intrinsics"),
    ]


class _Plan(ctypes.Structure):
    _fields_ = _pointers("records", "radii", "pairs", "starts")


class _Picture(ctypes.Structure):
    _fields_ = _pointers(
        "colour", "alpha", "d_colour", "d_alpha", "pair_sums",
        "d_means", "d_quats", "d_scales", "d_opacities", "d_colours", "d_means2d",
    )  # fmt: skip


def draw(gaussians: Gaussians, lenses: Lenses) -> tuple[Float[Tensor, "B H W 4"], Float[Tensor, "B H W 1"], Sighting]:
    """Colour and depth times alpha, and alpha, over nothing.

    Takes float32 tensors on the CPU. Raises OSError where the kernels are missing, ValueError where the splats
    cover too many tiles to be numbered.
    """
    inputs = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colours]
    gradient = torch.zeros(len(lenses.viewmats), len(gaussians), 2)
    colour, alpha, radii = _Draw.apply(*(tensor.contiguous() for tensor in inputs), lenses, gradient)  # type: ignore[no-untyped-call]
    return colour, alpha, Sighting(radii, gradient)


def _library() -> ctypes.CDLL:
    library = native.library()
    if library is None:
        raise OSError(native.why_missing())
    library.sds3d_splats_project.restype = ctypes.c_int64
    return library


def _scene(inputs: list[Tensor], lenses: Lenses, threads: int) -> _Scene:
    tensors = [*inputs, lenses.viewmats, lenses.intrinsics]
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            found = f"{tensor.dtype} on {tensor.device}"
            raise ValueError(f"the kernels take contiguous float32 tensors on the CPU, not {found}")
    sizes = len(lenses.viewmats), len(inputs[0]), lenses.height, lenses.width
    return _Scene(*sizes, threads, int(inputs[4].ndim == 3), *(tensor.data_ptr() for tensor in tensors))


def _threads(pairs: int) -> int:
    return torch.get_num_threads() if pairs >= _PAIRS_WORTH_THREADS else 1


class _Draw(torch.autograd.Function):
    """means, quats, scales, opacities, colours -> colour and depth times alpha, alpha, radii."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *inputs, lenses, gradient = arguments
        library = _library()
        views, count, height, width = len(lenses.viewmats), len(inputs[0]), lenses.height, lenses.width
        records = torch.empty(views, count, _RECORD_FLOATS)
        radii = torch.empty(views, count, dtype=torch.int32)
        scene = _scene(inputs, lenses, _threads(views * count))
        plan = _Plan(records.data_ptr(), radii.data_ptr())
        total = library.sds3d_splats_project(ctypes.byref(scene), ctypes.byref(plan))
        if total >= 2**31:
            raise ValueError(f"{count} splats cover {total} tiles, too many to number; are their scales sane?")
        tiles = views * -(-height // _TILE) * -(-width // _TILE)
        pairs = torch.empty(total, dtype=torch.int32)
        starts = torch.empty(tiles + 1, dtype=torch.int32)
        colour = torch.empty(views, height, width, 4)
        alpha = torch.empty(views, height, width, 1)
        scene.threads = _threads(total)
        plan.pairs, plan.starts = pairs.data_ptr(), starts.data_ptr()
        picture = _Picture(colour.data_ptr(), alpha.data_ptr())
        library.sds3d_splats_draw(ctypes.byref(scene), ctypes.byref(plan), ctypes.byref(picture))
        ctx.save_for_backward(*inputs, colour, alpha, records, pairs, starts)
        ctx.lenses, ctx.gradient = lenses, gradient
        ctx.mark_non_differentiable(radii)
        return colour, alpha, radii

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, colour, alpha, records, pairs, starts = ctx.saved_tensors
        d_colour, d_alpha = (gradient.contiguous() for gradient in gradients[:2])
        d_inputs = [torch.empty_like(tensor) for tensor in inputs]
        d_means2d = torch.empty_like(ctx.gradient)
        pair_sums = torch.empty(len(pairs), _PAIR_SUMS)
        scene = _scene(inputs, ctx.lenses, _threads(len(pairs)))
        plan = _Plan(records.data_ptr(), None, pairs.data_ptr(), starts.data_ptr())
        tensors = [colour, alpha, d_colour, d_alpha, pair_sums, *d_inputs, d_means2d]
        picture = _Picture(*(tensor.data_ptr() for tensor in tensors))
        _library().sds3d_splats_backward(ctypes.byref(scene), ctypes.byref(plan), ctypes.byref(picture))
        ctx.gradient.add_(d_means2d)
        return *d_inputs, None, None
