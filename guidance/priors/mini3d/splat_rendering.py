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

FOV = math.radians(40.0)
"""Field of view of the prior's cameras, radians."""
DISTANCE = 3.0
"""Of the prior's cameras from the origin."""
BLUR, FAINTEST, OPAQUE, FINISHED, WIDEST, NEAR = 0.3, 1.0 / 255.0, 0.999, 1e-4, 3.33, 0.01
"""See `renderers.splats.reference`, whose conventions these pictures follow."""


@dataclass(frozen=True)
class Splats:
    """One model: discs with a colour that is the same from every side."""

    means: Float[Tensor, "N 3"]
    covariances: Float[Tensor, "N 3 3"]
    opacities: Float[Tensor, " N"]
    colours: Float[Tensor, "N 3"]

    def __len__(self) -> int:
        return len(self.means)

    def to(self, device: torch.device) -> Splats:
        return Splats(*(t.to(device) for t in (self.means, self.covariances, self.opacities, self.colours)))


def covariances(scales: Float[Tensor, "N 3"], quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Of splats with these standard deviations, turned by quaternions (w first)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    shape = torch.stack(rows, -1).unflatten(-1, (3, 3)) * scales[:, None]
    square: Tensor = shape @ shape.mT
    return square


def views(camera: Float[Tensor, "B 2"]) -> Float[Tensor, "B 3 4"]:
    """World to camera (x right, y down, z ahead) of cameras on the sphere, from azimuth and elevation in radians."""
    azimuth, elevation = camera.float().unbind(-1)
    flat, nil = elevation.cos(), torch.zeros_like(azimuth)
    backward = torch.stack([flat * azimuth.sin(), elevation.sin(), flat * azimuth.cos()], -1)
    right = torch.stack([azimuth.cos(), nil, -azimuth.sin()], -1)
    turn = torch.stack([right, -torch.linalg.cross(backward, right), -backward], 1)
    away = torch.stack([nil, nil, nil + DISTANCE], -1)
    return torch.cat([turn, away[..., None]], -1)


@torch.no_grad()
def pictures(models: list[Splats], camera: Float[Tensor, "B 2"], size: int) -> Float[Tensor, "B 4 S S"]:
    """Model b from camera b: colour times opacity, and opacity."""
    if len(models) != len(camera):
        raise ValueError(f"{len(models)} models for {len(camera)} cameras; expected one each")
    looks, focal = views(camera), 0.5 * size / math.tan(0.5 * FOV)
    kernel = _kernel(os.environ.get("SDS3D_KERNELS", "")) if camera.device.type == "cpu" else None
    if kernel is None:
        return torch.stack([_drawn(model, look, focal, size) for model, look in zip(models, looks, strict=True)])
    each = list({id(model): model for model in models}.values())
    ends = torch.tensor([len(model) for model in each]).cumsum(0)
    place = {id(model): number for number, model in enumerate(each)}
    which = torch.tensor([place[id(model)] for model in models])
    last = ends[which].contiguous()
    first = last - torch.tensor([len(model) for model in models])
    out = torch.zeros(len(models), 4, size, size)
    fields = ("means", "covariances", "opacities", "colours")
    packed = [torch.cat([getattr(model, name) for model in each]).float().contiguous() for name in fields]
    tensors = [first, last, *packed, looks.contiguous(), out]
    kernel(len(models), size, ctypes.c_float(focal), *(ctypes.c_void_p(t.data_ptr()) for t in tensors))
    return out


def _drawn(model: Splats, look: Float[Tensor, "3 4"], focal: float, size: int) -> Float[Tensor, "4 S S"]:
    """The plain torch twin: every splat meets every pixel."""
    x, y, z = (model.means @ look[:, :3].T + look[:, 3]).unbind(-1)
    there = (z >= NEAR) & (model.opacities >= FAINTEST)
    z = torch.where(there, z, 1.0)
    turn = look[:, :3]
    u = (focal / z)[:, None] * (turn[0] - (x / z)[:, None] * turn[2])
    v = (focal / z)[:, None] * (turn[1] - (y / z)[:, None] * turn[2])
    flat = torch.stack([u, v], 1)
    shape = flat @ model.covariances @ flat.mT
    a, b, c = shape[:, 0, 0] + BLUR, shape[:, 0, 1], shape[:, 1, 1] + BLUR
    determinant = a * c - b * b
    rows = (there & (determinant > 0)).nonzero()[:, 0]
    rows = rows[z[rows].argsort(stable=True)]
    centre = torch.stack([focal * x / z, focal * y / z], -1)[rows] + 0.5 * size
    xx, xy, yy = (entry[rows] / determinant[rows] for entry in (c, -b, a))
    seen = torch.cat([model.colours, torch.ones_like(model.colours[:, :1])], -1)[rows]
    extent = (2 * (model.opacities[rows] / FAINTEST).clamp_min(1).log()).sqrt().clamp_max(WIDEST)
    boxes = (extent[:, None] * torch.stack([a, c], -1)[rows].sqrt()).ceil()
    low, high = (centre - boxes).floor(), (centre + boxes).ceil()
    line = torch.arange(size, device=z.device) + 0.5
    drawn = []
    for down in line.split(8):
        pixels = torch.cartesian_prod(down, line).flip(-1)
        dx, dy = (centre - pixels[:, None]).unbind(-1)
        power = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = (model.opacities[rows] * torch.exp(-power)).clamp_max(OPAQUE)
        within = ((pixels[:, None] > low) & (pixels[:, None] < high)).all(-1)
        alpha = torch.where((power >= 0) & (alpha >= FAINTEST) & within, alpha, 0.0)
        after = (1 - alpha).cumprod(-1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
        drawn.append(torch.where(after > FINISHED, alpha * before, 0.0) @ seen)
    picture: Tensor = torch.cat(drawn).T.unflatten(1, (size, size))
    return picture


@cache
def _kernel(wish: str) -> ctypes._NamedFuncPointer | None:
    """`prior_splats` of the fastest library that runs here, or None."""
    if wish == "torch":
        return None
    fast = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.cpu.get_cpu_capability().startswith(
        "AVX"
    )
    kinds = ["avx2", "baseline"] if fast and wish != "baseline" else ["baseline"]
    for kind in kinds:
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
