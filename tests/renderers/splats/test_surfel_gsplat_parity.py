"""The twin of the surfels against gsplat's torch reference, in values and gradients, and how gsplat is called."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from renderers.cameras import Cameras, look_at_origin
from renderers.splats import gsplat_backend, surfel_reference
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions, normals
from renderers.splats.reference import weights
from tests.support.renderers.splat_clouds import cloud

theirs = pytest.importorskip("gsplat.cuda._torch_impl_2dgs")
NAMES = ["means", "quats", "scales", "opacities", "colors"]


def looks(size: int = 40) -> Cameras:
    return replace(look_at_origin(torch.tensor([0.3, 2.0, 4.0]), torch.tensor([0.2, -0.9, 1.1]), size), width=size + 7)


def leaves(count: int, spread: float, scale: float) -> Gaussians:
    splats = cloud(count, scale, (0.2, 0.95))
    splats = replace(splats, means=spread * splats.means)
    return Gaussians(*(getattr(splats, name).requires_grad_() for name in NAMES))


def projected(splats: Gaussians, lenses: CameraMatrices) -> tuple[Tensor, ...]:
    """gsplat's radii, places of blurs, depths, ray transforms and normals before the cameras."""
    found: tuple[Tensor, ...] = theirs._fully_fused_projection_2dgs(
        splats.means,
        torch.nn.functional.normalize(splats.quats, dim=-1),
        torch.nn.functional.pad(splats.scales[:, :2], (0, 1), value=1.0),  # its kernels take a third of 1 for granted
        lenses.viewmats,
        lenses.Ks,
        lenses.width,
        lenses.height,
    )
    return found


def ours(splats: Gaussians, lenses: CameraMatrices) -> tuple[Tensor, ...]:
    """The same as `projected` but for the radii, put together from the twin's `ProjectedSurfels`."""
    placed = surfel_reference.project(splats, lenses)
    below = torch.cat([placed.tilts, torch.ones_like(placed.tilts[..., :1])], -1) * placed.depths[..., None]
    inner = torch.nn.functional.pad(placed.steps * placed.depths[..., None, None], (0, 1))
    rows = torch.cat([inner + placed.places[..., None] * below[..., None, :], below[..., None, :]], -2)
    middle = (placed.steps @ placed.tilts[..., None])[..., 0] / (1 - placed.tilts.square().sum(-1, keepdim=True))
    axes = torch.einsum("bij,bnj->bni", lenses.viewmats[:, :3, :3], normals(splats, lenses, surfels=True))
    return placed.visible, placed.places - middle, placed.depths, rows, axes


def agree(mine: list[Tensor], wanted: list[Tensor], parameters: tuple[Gaussians, Gaussians], names: list[str]) -> None:
    """Values are the same, and so are the gradients of a random function of them."""
    gradients = []
    for found, splats in ((mine, parameters[0]), (wanted, parameters[1])):
        rng, total = torch.Generator().manual_seed(5), torch.zeros(())
        for each in found:
            total = total + (each * torch.randn(each.shape, generator=rng)).sum()
        gradients.append(torch.autograd.grad(total, [getattr(splats, name) for name in names]))
    for a, b in zip(mine, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # poses are float32, and so is how square they are
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_surfels_land_where_gsplat_says() -> None:
    """Places, depths, ray transforms and normals of all that the twin draws, some of them beside the pictures."""
    pair = leaves(400, 1.5, 0.15), leaves(400, 1.5, 0.15)
    lenses = CameraMatrices.from_cameras(looks(), pair[0].means)
    drawn, *mine = ours(pair[0], lenses)
    radii, *wanted = projected(pair[1], lenses)
    assert 300 < int(drawn.sum()) < 1200
    assert bool(((radii > 0).all(-1) | ~drawn).float().mean() > 0.99)  # theirs leave out more at the borders
    agree([each[drawn] for each in mine], [each[drawn] for each in wanted], pair, NAMES[:3])


def packed_rays() -> ModuleType:
    """The two functions of nerfacc that gsplat's compositing takes; nerfacc has them for CUDA only."""
    module = ModuleType("nerfacc")

    def render_weight_from_alpha(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
        logs = torch.log1p(-alphas)
        before = logs.cumsum(0) - logs
        first = torch.searchsorted(ray_indices, torch.arange(n_rays)).clamp_max(len(alphas) - 1)
        through = (before - before[first][ray_indices]).exp()
        return alphas * through, through

    def accumulate_along_rays(weight: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
        rows = weight[:, None] if values is None else weight[:, None] * values
        return torch.zeros(n_rays, rows.shape[1], dtype=rows.dtype).index_add(0, ray_indices, rows)

    module.__dict__.update(
        render_weight_from_alpha=render_weight_from_alpha, accumulate_along_rays=accumulate_along_rays
    )
    return module


def test_surfels_are_blended_as_gsplat_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour, depth, normal and alpha by gsplat's own compositing, of the pairs that the twin says count."""
    monkeypatch.setitem(sys.modules, "nerfacc", packed_rays())
    pair = leaves(120, 1.0, 0.12), leaves(120, 1.0, 0.12)
    lenses = CameraMatrices.from_cameras(looks(18)[:1], pair[0].means)
    colour, alpha, _ = surfel_reference.draw(pair[0], lenses, RasterizationOptions(surfels=True, return_normals=True))
    _, places, depths, rows, axes = projected(pair[1], lenses)
    order = depths[0].argsort(stable=True)
    with torch.no_grad():
        placed = surfel_reference.project(pair[1], lenses)
        shapes = [each[0, order] for each in (placed.places, placed.steps, placed.areas, placed.tilts)]
        down, across = torch.meshgrid(torch.arange(18.0), torch.arange(25.0), indexing="ij")
        pixels = torch.stack([across, down], -1).view(-1, 2).double() + 0.5
        counted = (weights(surfel_reference.exponents(pixels, *shapes), pair[1].opacities[order]) > 0).nonzero()
    assert len(counted) > 2000
    layers = torch.cat([pair[1].colors[None], depths[..., None]], -1)
    found, covered, normal = theirs.accumulate_2dgs(
        places, rows, pair[1].opacities[None], layers, axes, order[counted[:, 1]], counted[:, 0],
        torch.zeros_like(counted[:, 0]), lenses.width, lenses.height,
    )  # fmt: skip
    world = torch.einsum("bji,bhwj->bhwi", lenses.viewmats[:, :3, :3], normal)
    agree([colour, alpha], [torch.cat([found, world], -1), covered], pair, NAMES)


def test_gsplat_takes_the_arguments_we_give_it() -> None:
    """Read from the source of the installed gsplat, as drawing needs CUDA."""
    tree = ast.parse((Path(theirs.__file__).parents[1] / "rendering.py").read_text())
    function = next(node for node in ast.walk(tree) if getattr(node, "name", "") == "rasterization_2dgs")
    assert isinstance(function, ast.FunctionDef)
    known = function.args
    names = {argument.arg for argument in [*known.args, *known.kwonlyargs]}
    required = {argument.arg for argument in known.args[: len(known.args) - len(known.defaults)]}
    lenses = CameraMatrices.from_cameras(looks(), torch.zeros(1))
    given = gsplat_backend.surfel_arguments(cloud(2), lenses, RasterizationOptions(surfels=True, distortion=True))
    assert required <= set(given) <= names
    assert given["colors"].shape == (3, 2, 3)
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)][-1]
    assert isinstance(returned, ast.Tuple)
    assert len(returned.elts) == 7
    keys = {
        key.value
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert {"radii", "gradient_2dgs"} <= keys
