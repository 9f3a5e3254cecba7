"""The splat twin against what gsplat has in plain torch: projection and spherical harmonics, values and gradients."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from renderers.cameras import Cameras, look_at_origin
from renderers.splats import reference, spherical_harmonics
from renderers.splats.gaussians import CameraMatrices, Gaussians

theirs = pytest.importorskip("gsplat.cuda._torch_impl")


def splats(count: int = 500, seed: int = 0) -> list[Tensor]:
    """Means, quaternions of any length, scales of three orders, opacities, colours; some lie behind the cameras."""
    rng = torch.Generator().manual_seed(seed)
    return [
        (2.0 * torch.randn(count, 3, generator=rng)).double(),
        torch.randn(count, 4, generator=rng).double(),
        torch.exp(1.5 * torch.randn(count, 3, generator=rng) - 3).double(),
        torch.rand(count, generator=rng).double(),
        torch.rand(count, 3, generator=rng).double(),
    ]


def looks() -> Cameras:
    return replace(look_at_origin(torch.tensor([0.3, 2.0, 4.0]), torch.tensor([0.2, -0.9, 1.1]), 40), width=56)


def test_splats_land_where_gsplat_says() -> None:
    """Places, inverse covariances and depths of all that both draw, with the gradients of a random function of them."""
    results = []
    for ours in (True, False):
        means, quats, scales, opacities, colours = (tensor.requires_grad_() for tensor in splats())
        lenses = CameraMatrices.from_cameras(looks(), means)
        if ours:
            found = reference.project(Gaussians(means, quats, scales, opacities, colours), lenses)
            seen, places, conics, depths = found.visible, found.means2d, found.conics, found.depths
        else:
            unit = torch.nn.functional.normalize(quats, dim=-1)
            shape, _ = theirs._quat_scale_to_covar_preci(unit, scales, True, False, triu=False)
            radii, places, depths, conics, _ = theirs._fully_fused_projection(
                means, shape, lenses.viewmats, lenses.Ks, lenses.width, lenses.height
            )
            seen = (radii > 0).all(-1)
        results.append((seen, places, conics, depths, (means, quats, scales)))
    # Ours knows the opacities, and so draws a little less.
    drawn = results[0][0]
    assert bool(results[1][0][drawn].all())
    assert 200 < int(drawn.sum()) < 1400
    gradients = []
    for _, places, conics, depths, parameters in results:
        rng, total = torch.Generator().manual_seed(5), torch.zeros(())
        for found in (places, conics, depths[..., None]):
            total = total + (found[drawn] * torch.randn(found[drawn].shape, generator=rng)).sum()
        gradients.append(torch.autograd.grad(total, parameters))
    for place in (1, 2, 3):
        torch.testing.assert_close(results[0][place][drawn], results[1][place][drawn], rtol=1e-6, atol=1e-9)
    for mine, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_are_those_of_gsplat(degree: int) -> None:
    rng = torch.Generator().manual_seed(1)
    count = spherical_harmonics.num_sh_bases(degree)
    places = torch.randn(50, 3, generator=rng).double()
    cameras = torch.tensor([[2.0, 0.5, -1.0]]).double()
    sh = (0.2 * torch.randn(50, count, 3, generator=rng)).double()
    seen = theirs._spherical_harmonics(degree, places - cameras, sh) + 0.5
    colours = (
        spherical_harmonics.sh_to_rgb(sh, places, cameras)[0]
        if degree
        else spherical_harmonics.sh_to_rgb(sh, places, cameras)
    )
    inside = (seen > 0) & (seen < 1)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(colours.reshape(50, 3)[inside], seen[inside], rtol=1e-6, atol=1e-8)


def test_what_strategies_need_is_among_the_answers() -> None:
    """Read from gsplat's source, as drawing needs CUDA: both keys that our backend takes are in the dictionary."""
    tree = ast.parse((Path(theirs.__file__).parents[1] / "rendering.py").read_text())
    keys = {
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert {"means2d", "radii"} <= keys
