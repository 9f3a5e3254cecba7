"""Pictures of models made of Gaussian splats, forward only: what the embedded prior expects to see from a camera.

The compiled kernel of guidance/csrc/ draws on a CPU where it was built; its plain torch twin draws everywhere else.
`SDS3D_KERNELS=torch` asks for the twin. Shapes: B pictures, N splats, S pixels along a side.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

FOV_Y = math.radians(40.0)
"""Field of view of the prior's cameras, radians."""
DISTANCE = 3.0
"""Of the prior's cameras from the origin."""
EPS2D, MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE, MAX_EXTENT, NEAR_PLANE = 0.3, 1.0 / 255.0, 0.999, 1e-4, 3.33, 0.01
"""See `renderers.splats.reference`, whose conventions these pictures follow."""


@dataclass(frozen=True)
class SplatModel:
    """One model: discs with a colour that is the same from every side."""

    means: Float[Tensor, "N 3"]
    covariances: Float[Tensor, "N 3 3"]
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N 3"]

    def __len__(self) -> int:
        return len(self.means)

    def to(self, device: torch.device) -> SplatModel:
        return SplatModel(*(t.to(device) for t in (self.means, self.covariances, self.opacities, self.colors)))


def covariances_from_scales_quats(
    scales: Float[Tensor, "N 3"], quaternions: Float[Tensor, "N 4"]
) -> Float[Tensor, "N 3 3"]:
    """Of splats with these standard deviations, turned by quaternions (w first)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    factor = torch.stack(rows, -1).unflatten(-1, (3, 3)) * scales[:, None]
    result: Tensor = factor @ factor.mT
    return result


def viewmats_from_angles(camera: Float[Tensor, "B 2"]) -> Float[Tensor, "B 3 4"]:
    """World to camera (x right, y down, z ahead) of cameras on the sphere, from azimuth and elevation in radians."""
    azimuth, elevation = camera.float().unbind(-1)
    horizontal, zero = elevation.cos(), torch.zeros_like(azimuth)
    backward = torch.stack([horizontal * azimuth.sin(), elevation.sin(), horizontal * azimuth.cos()], -1)
    right = torch.stack([azimuth.cos(), zero, -azimuth.sin()], -1)
    rotation = torch.stack([right, -torch.linalg.cross(backward, right), -backward], 1)
    translation = torch.stack([zero, zero, zero + DISTANCE], -1)
    return torch.cat([rotation, translation[..., None]], -1)


@torch.no_grad()
def render_splats(models: list[SplatModel], camera: Float[Tensor, "B 2"], size: int) -> Float[Tensor, "B 4 S S"]:
    """Model b from camera b: colour times opacity, and opacity."""
    if len(models) != len(camera):
        raise ValueError(f"{len(models)} models for {len(camera)} cameras; expected one each")
    viewmats, focal = viewmats_from_angles(camera), 0.5 * size / math.tan(0.5 * FOV_Y)
    kernel = _kernel(os.environ.get("SDS3D_KERNELS", "")) if camera.device.type == "cpu" else None
    if kernel is None:
        return torch.stack(
            [_render_reference(model, viewmat, focal, size) for model, viewmat in zip(models, viewmats, strict=True)]
        )
    unique = list({id(model): model for model in models}.values())
    ends = torch.tensor([len(model) for model in unique]).cumsum(0)
    index_of = {id(model): number for number, model in enumerate(unique)}
    indices = torch.tensor([index_of[id(model)] for model in models])
    last = ends[indices].contiguous()
    first = last - torch.tensor([len(model) for model in models])
    out = torch.zeros(len(models), 4, size, size)
    fields = ("means", "covariances", "opacities", "colors")
    packed = [torch.cat([getattr(model, name) for model in unique]).float().contiguous() for name in fields]
    tensors = [first, last, *packed, viewmats.contiguous(), out]
    kernel(len(models), size, ctypes.c_float(focal), *(ctypes.c_void_p(t.data_ptr()) for t in tensors))
    return out


def _render_reference(
    model: SplatModel, viewmat: Float[Tensor, "3 4"], focal: float, size: int
) -> Float[Tensor, "4 S S"]:
    """The plain torch twin: every splat meets every pixel."""
    x, y, z = (model.means @ viewmat[:, :3].T + viewmat[:, 3]).unbind(-1)
    visible = (z >= NEAR_PLANE) & (model.opacities >= MIN_ALPHA)
    z = torch.where(visible, z, 1.0)
    rotation = viewmat[:, :3]
    u = (focal / z)[:, None] * (rotation[0] - (x / z)[:, None] * rotation[2])
    v = (focal / z)[:, None] * (rotation[1] - (y / z)[:, None] * rotation[2])
    jacobian = torch.stack([u, v], 1)
    cov2d = jacobian @ model.covariances @ jacobian.mT
    a, b, c = cov2d[:, 0, 0] + EPS2D, cov2d[:, 0, 1], cov2d[:, 1, 1] + EPS2D
    determinant = a * c - b * b
    rows = (visible & (determinant > 0)).nonzero()[:, 0]
    rows = rows[z[rows].argsort(stable=True)]
    centers = torch.stack([focal * x / z, focal * y / z], -1)[rows] + 0.5 * size
    xx, xy, yy = (entry[rows] / determinant[rows] for entry in (c, -b, a))
    colors = torch.cat([model.colors, torch.ones_like(model.colors[:, :1])], -1)[rows]
    extent = (2 * (model.opacities[rows] / MIN_ALPHA).clamp_min(1).log()).sqrt().clamp_max(MAX_EXTENT)
    boxes = (extent[:, None] * torch.stack([a, c], -1)[rows].sqrt()).ceil()
    low, high = (centers - boxes).floor(), (centers + boxes).ceil()
    line = torch.arange(size, device=z.device) + 0.5
    chunks = []
    for rows_of_pixels in line.split(8):
        pixels = torch.cartesian_prod(rows_of_pixels, line).flip(-1)
        dx, dy = (centers - pixels[:, None]).unbind(-1)
        power = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = (model.opacities[rows] * torch.exp(-power)).clamp_max(MAX_ALPHA)
        within = ((pixels[:, None] > low) & (pixels[:, None] < high)).all(-1)
        alpha = torch.where((power >= 0) & (alpha >= MIN_ALPHA) & within, alpha, 0.0)
        after = (1 - alpha).cumprod(-1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
        chunks.append(torch.where(after > MIN_TRANSMITTANCE, alpha * before, 0.0) @ colors)
    image: Tensor = torch.cat(chunks).T.unflatten(1, (size, size))
    return image


@cache
def _kernel(requested: str) -> ctypes._NamedFuncPointer | None:
    """`prior_splats` of the fastest library that runs here, or None."""
    if requested == "torch":
        return None
    fast = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.cpu.get_cpu_capability().startswith(
        "AVX"
    )
    candidates = ["avx2", "baseline"] if fast and requested != "baseline" else ["baseline"]
    for kind in candidates:
        for folder in (Path(__file__).parents[2], *(Path(entry) / "guidance" for entry in sys.path if entry)):
            file = folder / f"libprior_{kind}.so"
            if file.is_file():
                try:
                    kernel = ctypes.CDLL(str(file)).prior_splats
                except OSError:
                    continue
                kernel.restype = None
                kernel.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_float, *[ctypes.c_void_p] * 8]
                return kernel
    return None
