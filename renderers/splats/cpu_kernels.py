"""The C++ splat kernels (renderers/csrc/splats.h, surfels.h) as a differentiable function of CPU float32 tensors.

Memory is allocated here and owned by torch; the kernels keep nothing, this module some scratch. Results do not depend
on the number of threads: tiles share nothing, and gradients are summed per splat in a fixed order.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import kernels
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationInfo, RasterizationOptions, normals

_TILE = 16
_RECORD_FLOATS = _SURFEL_FLOATS = 16
_PAIR_SUMS = {(False, False): 12, (False, True): 16, (True, False): 16, (True, True): 20}
"""Floats per pair on the way back: of surfels or not, with normals or not."""
_PLAIN = RasterizationOptions()
_MAX_SCRATCH = 8_000_000
"""Floats of scratch that are kept from one call to the next, at most."""
_PAIRS_WORTH_THREADS = 16_000
"""Below about this many (splat, tile) pairs one thread is done before others have woken up."""


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Scene(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                "views",
                "count",
                "height",
                "width",
                "threads",
                "colours_per_view",
                "antialiased",
                "surfels",
            )
        ),
        *_pointers("means", "quats", "scales", "opacities", "colours", "viewmats", "intrinsics", "normals"),
    ]


class _Plan(ctypes.Structure):
    _fields_ = _pointers("records", "radii", "pairs", "starts", "facets")


class _Image(ctypes.Structure):
    _fields_ = _pointers(
        "colour", "alpha", "normal", "d_colour", "d_alpha", "d_normal", "pair_sums",
        "d_means", "d_quats", "d_scales", "d_opacities", "d_colours", "d_normals", "d_means2d", "d_means2d_absgrad",
        "distortion", "d_distortion",
    )  # fmt: skip


def draw(
    gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions = _PLAIN
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"], RasterizationInfo]:
    """Colour, depth and, if wished, normal, all times alpha, and alpha, over nothing. C is 4 or 7.

    Takes float32 tensors on the CPU. Raises OSError where the kernels are missing, ValueError where the splats
    cover too many tiles to be numbered.
    """
    inputs = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors]
    inputs = [tensor.contiguous() for tensor in inputs]
    axes = normals(gaussians, lenses, options.surfels).contiguous() if options.return_normals else None
    gradient = torch.zeros(len(lenses.viewmats), len(gaussians), 2)
    sighting = _Sums(gradient, torch.zeros_like(gradient) if options.absgrad else None)
    colour, alpha, radii, normal, distortion = _Draw.apply(*inputs, axes, lenses, options, sighting)  # type: ignore[no-untyped-call]
    if normal is not None:
        colour = torch.cat([colour, normal], -1)
    return colour, alpha, RasterizationInfo(radii, sighting.gradient, sighting.absolute, distortion)


@dataclass(frozen=True)
class _Sums:
    """Where the way back adds what it learns of the places in the pictures, [B,N,2]."""

    gradient: Tensor
    absolute: Tensor | None


def _library() -> ctypes.CDLL:
    library = kernels.library()
    if library is None:
        raise OSError(kernels.why_missing())
    library.sds3d_splats_project.restype = ctypes.c_int64
    return library


def _scene(inputs: list[Tensor | None], lenses: CameraMatrices, options: RasterizationOptions, threads: int) -> _Scene:
    """`inputs` are those of `_Draw`, normals last."""
    *splats, axes = inputs
    tensors = [*splats, lenses.viewmats, lenses.Ks, axes]
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            found = f"{tensor.dtype} on {tensor.device}"
            raise ValueError(f"the kernels take contiguous float32 tensors on the CPU, not {found}")
    means, colours = splats[0], splats[4]
    assert means is not None and colours is not None
    sizes = len(lenses.viewmats), len(means), lenses.height, lenses.width
    flags = int(colours.ndim == 3), int(options.antialiased), int(options.surfels)
    return _Scene(*sizes, threads, *flags, *map(_address, tensors))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _image(**tensors: Tensor | None) -> _Image:
    return _Image(**{name: _address(tensor) for name, tensor in tensors.items()})


def _threads(pairs: int) -> int:
    return torch.get_num_threads() if pairs >= _PAIRS_WORTH_THREADS else 1


class _Kept(threading.local):
    """Memory for every way back of a thread: fresh pages each time would be a tenth of what it takes."""

    scratch: Tensor | None = None


_KEPT = _Kept()


def _scratch(floats: int) -> Tensor:
    if floats > _MAX_SCRATCH:
        return torch.empty(floats)
    if _KEPT.scratch is None or len(_KEPT.scratch) < floats:
        _KEPT.scratch = torch.empty(floats)
    return _KEPT.scratch


class _Draw(torch.autograd.Function):
    """means, quats, scales, opacities, colours, normals -> colour and depth times alpha, alpha, radii, normal,
    distortion.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        *inputs, lenses, wish, sums = arguments
        library = _library()
        views, count, height, width = len(lenses.viewmats), len(inputs[0]), lenses.height, lenses.width
        records = torch.empty(views, count, _RECORD_FLOATS)
        facets = torch.empty(views, count, _SURFEL_FLOATS) if wish.surfels else None
        radii = torch.empty(views, count, dtype=torch.int32)
        scene = _scene(inputs, lenses, wish, _threads(views * count))
        plan = _Plan(records=_address(records), radii=_address(radii), facets=_address(facets))
        total = library.sds3d_splats_project(ctypes.byref(scene), ctypes.byref(plan))
        if total >= 2**31:
            raise ValueError(f"{count} splats cover {total} tiles, too many to number; are their scales sane?")
        tiles = views * -(-height // _TILE) * -(-width // _TILE)
        pairs = torch.empty(total, dtype=torch.int32)
        starts = torch.empty(tiles + 1, dtype=torch.int32)
        colour, alpha = torch.empty(views, height, width, 4), torch.empty(views, height, width, 1)
        normal = None if inputs[5] is None else torch.empty(views, height, width, 3)
        distortion = torch.empty(views, height, width, 1) if wish.distortion else None
        scene.threads = _threads(total)
        plan.pairs, plan.starts = pairs.data_ptr(), starts.data_ptr()
        picture = _image(colour=colour, alpha=alpha, normal=normal, distortion=distortion)
        library.sds3d_splats_draw(ctypes.byref(scene), ctypes.byref(plan), ctypes.byref(picture))
        ctx.save_for_backward(*inputs, colour, alpha, normal, distortion, records, facets, pairs, starts)
        ctx.lenses, ctx.wish, ctx.sums = lenses, wish, sums
        ctx.mark_non_differentiable(radii)
        return colour, alpha, radii, normal, distortion

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, colour, alpha, normal, distortion, records, facets, pairs, starts = ctx.saved_tensors
        d_colour, d_alpha, d_normal, d_distortion = (
            None if each is None else each.contiguous() for each in _but_radii(gradients)
        )
        d_means, d_quats, d_scales, d_opacities, d_colours, d_normals = (
            None if tensor is None else torch.empty_like(tensor) for tensor in inputs
        )
        sums = ctx.sums
        d_means2d = torch.empty_like(sums.gradient)
        absolute = None if sums.absolute is None else torch.empty_like(sums.absolute)
        pair_sums = _scratch(len(pairs) * _PAIR_SUMS[ctx.wish.surfels, normal is not None])
        scene = _scene(inputs, ctx.lenses, ctx.wish, _threads(len(pairs)))
        plan = _Plan(records.data_ptr(), None, pairs.data_ptr(), starts.data_ptr(), _address(facets))
        picture = _image(
            colour=colour, alpha=alpha, normal=normal, d_colour=d_colour, d_alpha=d_alpha, d_normal=d_normal,
            pair_sums=pair_sums, d_means=d_means, d_quats=d_quats, d_scales=d_scales, d_opacities=d_opacities,
            d_colours=d_colours, d_normals=d_normals, d_means2d=d_means2d, d_means2d_absgrad=absolute,
            distortion=distortion, d_distortion=d_distortion,
        )  # fmt: skip
        _library().sds3d_splats_backward(ctypes.byref(scene), ctypes.byref(plan), ctypes.byref(picture))
        sums.gradient.add_(d_means2d)
        if sums.absolute is not None:
            sums.absolute.add_(absolute)
        return d_means, d_quats, d_scales, d_opacities, d_colours, d_normals, None, None, None


def _but_radii(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    colour, alpha, _, normal, distortion = gradients
    return colour, alpha, normal, distortion
