"""The compiled part of gsplat, stood in for by the torch references of this project.

gsplat's own Python runs as installed around it. What the kernels of gsplat want of their arguments is checked: on a
CUDA device, contiguous, float32. Every splat meets every pixel, so keep scenes and pictures small.
"""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import torch
from torch import Tensor

from tests.support.pretend_cuda.counters import COUNTERS, source_line
from tests.support.pretend_cuda.guard import library
from tests.support.pretend_cuda.tensor import PretendTensor, on_the_cpu


def install() -> None:
    """Puts the stand-ins where gsplat looks for its kernels."""
    import gsplat.cuda._wrapper as wrapper

    def kernel(name: str) -> Any:
        return getattr(Kernels, name)

    def constant(name: str) -> Any:
        return name

    wrapper._make_lazy_cuda_func = kernel
    wrapper._make_lazy_cuda_obj = constant
    sys.modules["gsplat.cuda._backend"] = types.ModuleType("gsplat.cuda._backend")
    sys.modules["gsplat.cuda._backend"]._C = Kernels  # type: ignore[attr-defined]


def checked(name: str, *tensors: Tensor | None) -> list[Tensor]:
    """The tensors inside. Raises RuntimeError for what the kernels do not take."""
    for tensor in tensors:
        if tensor is None:
            continue
        if not isinstance(tensor, PretendTensor):
            raise RuntimeError(f"{name}: a tensor of shape {tuple(tensor.shape)} must be a CUDA tensor")
        if not tensor.inner.is_contiguous():
            raise RuntimeError(f"{name}: a tensor of shape {tuple(tensor.shape)} must be contiguous")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise RuntimeError(f"{name}: expected scalar type Float but found {tensor.dtype}")
    return [tensor.inner.detach() for tensor in tensors if isinstance(tensor, PretendTensor)]


def _lenses(viewmats: Tensor, intrinsics: Tensor, width: int, height: int) -> Any:
    from renderers.splats.gaussians import CameraMatrices

    return CameraMatrices(viewmats, intrinsics, height, width)


def _projected(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, lenses: Any, compensated: bool
) -> tuple[Any, Tensor]:
    """The ellipses, and what gsplat calls compensations: the factor by which `antialiased` shrinks opacities."""
    from renderers.splats import reference
    from renderers.splats.gaussians import Gaussians

    given = Gaussians(means, quats, scales, opacities, torch.zeros_like(means))
    found = reference.project(given, lenses, antialiased=compensated)
    return found, found.opacities / opacities.clamp_min(1e-10)


def _drawn(means2d: Tensor, conics: Tensor, colours: Tensor, opacities: Tensor, order: Tensor, size: Any) -> Tensor:
    """As `_composited`, compiled, where no gradient is wanted: pictures for people are large."""
    width, height = size
    given = [tensor[order].contiguous() for tensor in (means2d, conics, colours, opacities)]
    out = torch.zeros(height, width, colours.shape[-1] + 1)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (*given, out))
    library().pretend_composite(len(order), colours.shape[-1], width, height, *pointers)
    return out


def _composited(means2d: Tensor, conics: Tensor, colours: Tensor, opacities: Tensor, order: Tensor, size: Any) -> Any:
    """One picture [H, W, C + 1], alpha last; and the places of the splats for every pixel, for their gradients."""
    from renderers.splats.reference import _exponents, weights

    width, height = size
    across, down = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    pixels = torch.cartesian_prod(down, across).flip(-1)
    offsets = means2d[order] - pixels[:, None]
    weight = weights(_exponents(offsets, conics[order]), opacities[order])
    features = torch.cat([colours[order], torch.ones_like(colours[order, :1])], -1)
    return (weight @ features).view(height, width, -1), offsets


class Kernels:
    """gsplat's functions of the same names, of those that `renderers.splats.gsplat_backend` reaches."""

    @staticmethod
    def projection_ewa_3dgs_fused_fwd(
        means: Tensor,
        covars: None,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        intrinsics: Tensor,
        width: int,
        height: int,
        *rest: Any,
    ) -> tuple[Tensor, ...]:
        device, compensations = means.device, rest[4]
        given = checked("projection_ewa_3dgs_fused_fwd", means, quats, scales, opacities, viewmats, intrinsics)
        with on_the_cpu(), torch.no_grad():
            found, ratio = _projected(*given[:4], _lenses(*given[4:], width, height), compensations)
            radii = found.radii[..., None].expand(-1, -1, 2).contiguous()
            out = [radii, found.means2d, found.depths, found.conics.contiguous(), ratio]
        if not compensations:
            out[4] = torch.empty(0)
        return tuple(PretendTensor(x, device) for x in out)

    @staticmethod
    def projection_ewa_3dgs_fused_bwd(
        means: Tensor,
        covars: None,
        quats: Tensor,
        scales: Tensor,
        viewmats: Tensor,
        intrinsics: Tensor,
        width: int,
        height: int,
        *rest: Any,
    ) -> tuple[Tensor | None, ...]:
        eps, camera, radii, conics, ratio, *pulls, needs_views = rest
        del eps, camera, conics
        device = means.device
        given = checked("projection_ewa_3dgs_fused_bwd", means, quats, scales, viewmats, intrinsics)
        (shown,) = checked("projection_ewa_3dgs_fused_bwd", radii)
        inner = [None if pull is None else checked("projection_ewa_3dgs_fused_bwd", pull)[0] for pull in pulls]
        assert not needs_views
        with on_the_cpu(), torch.enable_grad():
            leaves = [tensor.clone().requires_grad_() for tensor in given[:3]]
            solid = torch.ones(len(leaves[0]))
            found, ratio = _projected(*leaves, solid, _lenses(*given[3:], width, height), ratio is not None)
            outs = [found.means2d, found.depths, found.conics, ratio]
            seen = (shown > 0).all(-1)
            total = sum(
                torch.where(seen.view(*seen.shape, *[1] * (out.ndim - 2)), out * pull, 0.0).sum()
                for out, pull in zip(outs, inner, strict=True)
                if pull is not None
            )
            d_means, d_quats, d_scales = torch.autograd.grad(total, leaves)
        wrapped = [PretendTensor(x, device) for x in (d_means, d_quats, d_scales)]
        return wrapped[0], None, wrapped[1], wrapped[2], None

    @staticmethod
    def intersect_tile(means2d: Tensor, radii: Tensor, depths: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """Not by tiles: the numbers of all splats that are seen, image after image, the nearest first."""
        COUNTERS.syncs[f"{source_line()} gsplat intersect_tile"] += 1
        device = means2d.device
        _, seen, far = checked("intersect_tile", means2d, radii, depths)
        with on_the_cpu():
            rows = []
            for image, (radius, depth) in enumerate(zip(seen, far, strict=True)):
                shown = (radius > 0).all(-1).nonzero()[:, 0]
                rows.append(shown[depth[shown].argsort(stable=True)] + image * len(depth))
            ids = torch.cat(rows).to(torch.int32)
            out = [(seen > 0).all(-1).to(torch.int32), ids.long(), ids]
        return tuple(PretendTensor(x, device) for x in out)

    @staticmethod
    def intersect_offset(ids: Tensor, images: int, width: int, height: int) -> Tensor:
        checked("intersect_offset", ids)
        return PretendTensor(torch.zeros(images, height, width, dtype=torch.int32), ids.device)

    @staticmethod
    def rasterize_to_pixels_3dgs_fwd(
        means2d: Tensor,
        conics: Tensor,
        colours: Tensor,
        opacities: Tensor,
        background: None,
        masks: None,
        width: int,
        height: int,
        tile: int,
        offsets: Tensor,
        ids: Tensor,
    ) -> tuple[Tensor, ...]:
        assert background is None and masks is None
        given = checked("rasterize_to_pixels_3dgs_fwd", means2d, conics, colours, opacities, offsets, ids)
        with on_the_cpu(), torch.no_grad():
            layers = [_drawn(*each, (width, height)) for each in _per_image(given[:4], given[5])]
            drawn = torch.stack(layers)
            out = [drawn[..., :-1].contiguous(), drawn[..., -1:].contiguous()]
        out.append(torch.zeros(len(drawn), height, width, dtype=torch.int32))
        return tuple(PretendTensor(x, means2d.device) for x in out)

    @staticmethod
    def rasterize_to_pixels_3dgs_bwd(
        means2d: Tensor,
        conics: Tensor,
        colours: Tensor,
        opacities: Tensor,
        background: None,
        masks: None,
        width: int,
        height: int,
        tile: int,
        offsets: Tensor,
        ids: Tensor,
        alphas: Tensor,
        last: Tensor,
        d_colours: Tensor,
        d_alphas: Tensor,
        absolute: bool,
    ) -> tuple[Tensor | None, ...]:
        name = "rasterize_to_pixels_3dgs_bwd"
        given = checked(name, means2d, conics, colours, opacities, ids, d_colours, d_alphas)
        pulls = torch.cat(given[5:], -1)
        with on_the_cpu(), torch.enable_grad():
            leaves = [tensor.clone().requires_grad_() for tensor in given[:4]]
            sizes, total = torch.zeros_like(leaves[0]), torch.zeros(())
            watched = []
            for image, each in enumerate(_per_image(leaves, given[4])):
                drawn, places = _composited(*each, (width, height))
                total = total + (drawn * pulls[image]).sum()
                watched.append((image, each[4], places))
            grads = torch.autograd.grad(
                total, [*leaves, *(places for *_, places in watched)], allow_unused=True, materialize_grads=True
            )
            for (image, order, _), pull in zip(watched, grads[4:], strict=True):
                sizes[image].index_add_(0, order, pull.abs().sum(0))
        wrapped = [PretendTensor(x, means2d.device) for x in (sizes, *grads[:4])]
        return (wrapped[0] if absolute else None, *wrapped[1:])


def _per_image(tensors: list[Tensor], ids: Tensor) -> list[list[Tensor]]:
    """The rows of each image, and after them the order in which its splats are drawn."""
    images, count = tensors[0].shape[:2]
    orders = [ids[ids // count == image].long() - image * count for image in range(images)]
    return [[*(tensor[image] for tensor in tensors), order] for image, order in enumerate(orders)]
