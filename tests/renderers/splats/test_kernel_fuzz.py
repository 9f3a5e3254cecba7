"""No bytes and no sizes bring the splat kernels down: a picture and gradients, or a ValueError."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from renderers import kernels
from renderers.cameras import Cameras
from renderers.splats.gaussians import Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize

ROOT = Path(__file__).parents[3]
LARGEST = float(np.finfo(np.float32).max)
STRANGE = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e-12, 0.999, 3.9e-3, 4e-3, 1e3, 1e9, 1e19, 1e30, LARGEST]
STRANGE += [float("inf"), float("nan")]


def numbers(kind: str, count: int, rng: np.random.Generator) -> Tensor:
    """`count` values: raw bits, values at the edges of what floats hold, or ordinary ones with a few of those."""
    if kind == "bits":
        return torch.from_numpy(rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32).copy())
    edges = rng.choice(np.array(STRANGE, np.float32), count) * rng.choice(np.array([1, -1], np.float32), count)
    if kind == "edges":
        return torch.from_numpy(edges)
    plain = rng.normal(size=count).astype(np.float32)
    return torch.from_numpy(np.where(rng.random(count) < 0.05, edges, plain))


KINDS = st.sampled_from(["bits", "edges", "plain"])


@settings(max_examples=250, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([0, 1, 3, 8, 9, 64, 300]),
    views=st.integers(0, 3),
    size=st.tuples(*[st.sampled_from([1, 2, 15, 16, 17, 33])] * 2),
    kinds=st.tuples(KINDS, KINDS, KINDS, KINDS, KINDS, KINDS, KINDS),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    surfels=st.booleans(),
)
def draw_anything(
    seed: int,
    count: int,
    views: int,
    size: tuple[int, int],
    kinds: tuple[str, ...],
    flags: tuple[bool, ...],
    surfels: bool,
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(count, 3), (count, 4), (count, 3), (count,), (views, count, 3) if flags[3] else (count, 3)]
    filled = [numbers(kind, math.prod(shape), rng).view(shape) for kind, shape in zip(kinds, shapes, strict=False)]
    splats = Gaussians(*filled)
    pose = torch.eye(4).expand(views, 4, 4).clone()
    pose[:, 2, 3] = 3.0
    if kinds[5] != "plain":
        pose = pose + 1e-3 * numbers(kinds[5], 16 * views, rng).view(views, 4, 4)
    fov = numbers(kinds[6], views, rng) if kinds[6] != "plain" else torch.full((views,), 0.7)
    leaves = [tensor.requires_grad_() for tensor in filled]
    wish = (
        RasterizationOptions(return_normals=flags[1], surfels=True, distortion=flags[2])
        if surfels
        else RasterizationOptions(*flags[:3])
    )
    try:
        frame = rasterize(splats, Cameras(pose, fov, *size), torch.rand(views, 3), wish)
        distortion = frame.info.distortion
        (frame.rgb.sum() + frame.depth.sum() + (0.0 if distortion is None else distortion.sum())).backward()
    except (ValueError, RuntimeError) as error:  # a pose without inverse, or more memory than there is
        assert "inv" in str(error) or "tiles" in str(error) or "memory" in str(error), error
        return
    radii = frame.info.radii
    assert frame.rgb.shape == (views, *size, 3) and radii.shape == (views, count)
    assert (radii >= 0).all()
    unseen = ~(radii > 0).any(0)
    assert all(not leaf.grad[unseen].any() for leaf in leaves[:4])


def test_no_splats_bring_the_kernels_down() -> None:
    """In a process of its own, which must neither crash nor fail."""
    if kernels.library() is None:
        pytest.skip(kernels.why_missing())
    code = "from tests.renderers.splats.test_kernel_fuzz import draw_anything; draw_anything()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
def test_tensors_of_another_length_are_refused(name: str) -> None:
    shapes = {"means": (5, 3), "quats": (5, 4), "scales": (5, 3), "opacities": (5,), "colors": (5, 3)}
    tensors = {each: torch.rand(shape) for each, shape in shapes.items()}
    tensors[name] = tensors[name][:4].clone()
    looks = Cameras(torch.eye(4)[None], torch.ones(1), 8, 8)
    wrong = "quats" if name == "means" else name
    with pytest.raises((ValueError, TypeError), match=wrong if name != "means" else "shape|dimension|4"):
        rasterize(Gaussians(**tensors), looks, torch.zeros(1, 3))


@pytest.mark.parametrize("wish", [RasterizationOptions(), RasterizationOptions(surfels=True)])
def test_splats_over_too_many_tiles_are_refused(wish: RasterizationOptions) -> None:
    """Before memory is asked for: 40,000 splats that each cover every tile of a picture of 4096 x 4096."""
    if kernels.library() is None:
        pytest.skip(kernels.why_missing())
    count = 40_000
    splats = Gaussians(
        torch.tensor([0.0, 0.0, -500.0 * wish.surfels]).repeat(count, 1),  # surfels of this size have to keep away
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count, 3), 100.0),
        torch.full((count,), 0.5),
        torch.rand(count, 3),
    )
    pose = torch.eye(4)[None].clone()
    pose[:, 2, 3] = 3.0
    with pytest.raises(ValueError, match="too many to number"):
        rasterize(splats, Cameras(pose, torch.ones(1), 4096, 4096), torch.zeros(1, 3), wish)
