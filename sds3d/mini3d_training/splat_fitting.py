"""Fits a model of the corpus by Gaussian splats: what the embedded prior expects to see of it.

The splats begin as discs on the surface, from the depth, normal and colour of renders; Adam then fits colour and
opacity of other renders before random backgrounds. Light is part of the colour: it is the same from every side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from renderers.cameras import Cameras
from renderers.splats.gaussians import Gaussians, rotations
from renderers.splats.rasterization import rasterize
from sds3d.mini_training.catalogue import models, objects
from sds3d.mini_training.corpus import Corpus, file_of, prior_cameras
from sds3d.mini_training.dataset import lit
from sds3d.mini_training.obj_loader import MaterialMesh, load
from sds3d.mini_training.opengl_renderer import OffscreenRenderer

_SPLIT_AT = (150, 300, 450, 600, 750)
_RATES = {"means": 0.002, "quats": 0.02, "scales": 0.02, "opac": 0.05, "rgb": 0.01}


@dataclass(frozen=True)
class Fit:
    """How to fit."""

    size: int = 192
    """Height and width of the renders, pixels."""
    count: int = 3000
    """Splats of a model."""
    steps: int = 1200
    batch: int = 2
    views: int = 120
    held_out: int = 8
    """Views that are only looked at afterwards."""
    seed: int = 0


@dataclass(frozen=True)
class Marks:
    """How well a fit does from cameras it was not fitted to, before white."""

    psnr: float
    """Of the opaque pixels, dB."""
    detail: float
    """Energy above 24 cycles a picture, over the truth's."""
    iou: float
    """Of the silhouettes."""


@dataclass(frozen=True)
class _Views:
    cameras: Cameras
    rgba: Float[Tensor, "B H W 4"]
    depth: Float[Tensor, "B H W"]
    normal: Float[Tensor, "B H W 3"]

    def cameras_of(self, rows: Tensor) -> Cameras:
        return Cameras(self.cameras.c2w[rows], self.cameras.fov_y[rows], self.cameras.height, self.cameras.width)


def fit_all(furniture: Path, out: Path, knobs: Fit, progress: Callable[[str], None]) -> None:
    """Fits every object of `objects.csv` that `out` holds no file of.

    Raises:
        FileNotFoundError: the models are not there.
    """
    source, drawer = models(furniture), OffscreenRenderer(knobs.size)
    out.mkdir(parents=True, exist_ok=True)
    for number, thing in enumerate(objects()):
        target = splats_of(out, thing.name)
        if target.exists():
            continue
        splats, marks = fit(load(source[thing.name]), drawer, knobs)
        partial = target.with_suffix(".partial")
        row = {key: str(value) for key, value in asdict(marks).items()}
        save_file({key: value.contiguous() for key, value in splats.items()}, partial, metadata=row)
        os.replace(partial, target)
        progress(f"{number + 1}/{len(objects())} {thing.name}: {marks.psnr:.1f} dB, detail {marks.detail:.2f}")


def splats_of(folder: Path, name: str) -> Path:
    """The file that holds an object's splats."""
    return file_of(folder, name).with_suffix(".safetensors")


def true_views(parts: list[MaterialMesh], drawer: OffscreenRenderer, cameras: Cameras) -> _Views:
    """A model as the prior is to expect it: albedo times light."""
    drawn = drawer(parts, cameras)
    normal = drawn.normal.astype(np.float32) / 127.5 - 1
    rgba = drawn.albedo.astype(np.float32) / 255
    rgba[..., :3] = np.clip(rgba[..., :3] * np.clip(lit(normal), 0, None)[..., None], 0, 1)
    depth = torch.from_numpy(drawn.depth.astype(np.float32))
    return _Views(cameras, torch.from_numpy(rgba), depth, torch.from_numpy(normal))


def fit(parts: list[MaterialMesh], drawer: OffscreenRenderer, knobs: Fit) -> tuple[dict[str, Tensor], Marks]:
    """Splats (logarithms of scales, opacities before the sigmoid), and how well they do."""
    rng = torch.Generator().manual_seed(knobs.seed)
    many = knobs.views + knobs.held_out
    views = true_views(parts, drawer, prior_cameras(Corpus(size=knobs.size, views=many), rng))
    held, order = torch.randperm(many, generator=rng).tensor_split([knobs.held_out])
    splats = _begun(views, order, knobs.count, rng)
    optimiser = _adam(splats, 1.0)
    blame = torch.zeros(len(splats["means"]))
    for step in range(knobs.steps):
        fall: float = 0.05 ** (step / knobs.steps)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * fall
        rows = order[torch.randint(len(order), (knobs.batch,), generator=rng)]
        behind = torch.rand(knobs.batch, 3, generator=rng)
        frame = rasterize(_gaussians(splats), views.cameras_of(rows), behind)
        wrong = frame.rgb - (views.rgba[rows][..., :3] + (1 - views.rgba[rows][..., 3:]) * behind[:, None, None])
        loss = wrong.square().mean() * 10 + wrong.abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step in _SPLIT_AT and (grown := _grown(splats, blame, knobs.count, rng)) is not None:
            splats = grown
            optimiser = _adam(splats, fall)
        if step % 150 == 1:
            blame = torch.zeros(len(splats["means"]))
        with torch.no_grad():
            # Right after splats were added their blame is not known yet.
            if len(blame) == len(splats["means"]) and splats["means"].grad is not None:
                blame += frame.info.means2d_grad.norm(dim=-1).sum(0)
            else:
                blame = torch.zeros(len(splats["means"]))
    splats = {key: value.detach() for key, value in splats.items()}
    return splats, _marks(splats, views, held)


def _begun(views: _Views, rows: Tensor, count: int, rng: torch.Generator) -> dict[str, Tensor]:
    """At most `count` discs on the surface that the views show, one in each cell of a grid."""
    seen: Bool[Tensor, "B H W"] = views.depth[rows] > 0
    points = views.cameras.unproject(views.depth[..., None])[rows][seen]
    normals, colours = views.normal[rows][seen], views.rgba[rows][seen][:, :3]
    some = torch.randperm(len(points), generator=rng)[:120_000]
    points, normals, colours = points[some], normals[some], colours[some]
    low, high = 0.005, 0.5
    for _ in range(18):
        cell = math.sqrt(low * high)
        if len(torch.unique(_cells(points, cell))) > count:
            low = cell
        else:
            high = cell
    _, member = torch.unique(_cells(points, high), return_inverse=True)
    k = int(member.max()) + 1
    last = torch.arange(len(points) - 1, -1, -1)
    first = torch.empty(k, dtype=torch.long)
    first[member[last]] = last
    share = torch.zeros(k).index_add_(0, member, torch.ones(len(points)))[:, None]
    splats = {
        "means": torch.zeros(k, 3).index_add_(0, member, points) / share,
        "quats": _facing(F.normalize(normals[first], dim=-1)),
        "scales": torch.log(torch.tensor([0.45, 0.45, 0.12]) * high).repeat(k, 1),
        "opac": torch.full((k,), 2.0),
        "rgb": (torch.zeros(k, 3).index_add_(0, member, colours) / share).clamp(0, 1),
    }
    return {key: value.requires_grad_(True) for key, value in splats.items()}


@torch.no_grad()
def _grown(splats: dict[str, Tensor], blame: Tensor, count: int, rng: torch.Generator) -> dict[str, Tensor] | None:
    """Drops what is faint or tiny and splits splats, those to blame first, until there are `count`."""
    dead = (torch.sigmoid(splats["opac"]) < 0.03) | (splats["scales"].exp().max(-1).values < 0.002)
    wanted = min(count - len(dead) + int(dead.sum()), int((~dead).sum()))
    if wanted <= 0:
        return None
    weight = blame.clone()
    weight[dead] = 0
    source = torch.multinomial(weight + 1e-12, wanted, replacement=False, generator=rng)
    grown = {}
    for key, value in splats.items():
        old = value.detach().clone()
        if key == "scales":
            old[source] -= math.log(1.6)
        new = old[source].clone()
        if key == "means":
            turns, sizes = rotations(splats["quats"][source]), splats["scales"][source].exp()
            aside = (turns @ (torch.randn(wanted, 3, generator=rng) * sizes)[..., None])[..., 0] * 0.7
            new += aside
            old[source] -= aside * 0.5
        grown[key] = torch.cat([old[~dead], new]).requires_grad_(True)
    return grown


def _adam(splats: dict[str, Tensor], fall: float) -> torch.optim.Adam:
    groups = [{"params": [splats[key]], "lr": rate * fall, "base": rate} for key, rate in _RATES.items()]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)


def _gaussians(splats: dict[str, Tensor]) -> Gaussians:
    scales, opacities = splats["scales"].exp(), torch.sigmoid(splats["opac"])
    return Gaussians(splats["means"], splats["quats"], scales, opacities, splats["rgb"])


@torch.no_grad()
def _marks(splats: dict[str, Tensor], views: _Views, rows: Tensor) -> Marks:
    shown = _gaussians(splats | {"rgb": splats["rgb"].clamp(0, 1)})
    frame = rasterize(shown, views.cameras_of(rows), torch.ones(len(rows), 3))
    rgba = views.rgba[rows]
    truth, solid = rgba[..., :3] + 1 - rgba[..., 3:], rgba[..., 3:] > 0.5
    error = ((frame.rgb - truth).square() * solid).sum() / (3 * solid.sum())
    both, either = (frame.alpha > 0.5) & solid, (frame.alpha > 0.5) | solid
    detail = fine_energy(frame.rgb, 24) / fine_energy(truth, 24)
    return Marks(-10 * math.log10(float(error)), detail, float(both.sum() / either.sum()))


def fine_energy(rgb: Float[Tensor, "B H W 3"], cycles: float) -> float:
    """Energy of grey pictures above so many cycles a picture."""
    waves = torch.fft.fft2(rgb.mean(-1))
    down, across = (torch.fft.fftfreq(side) * side for side in rgb.shape[1:3])
    return float((waves.abs().square() * (torch.hypot(down[:, None], across[None]) > cycles)).sum())


def _cells(points: Float[Tensor, "N 3"], cell: float) -> Tensor:
    q = (points / cell).floor().long() + 1024
    return (q[:, 0] * 4096 + q[:, 1]) * 4096 + q[:, 2]


def _facing(normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4"]:
    """Quaternions, w first, that turn +Z into unit vectors."""
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand_as(normals)
    w = 1 + (normals * ahead).sum(-1)
    quaternions = torch.cat([w[:, None], torch.cross(ahead, normals, dim=-1)], -1)
    quaternions[w < 1e-4] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return F.normalize(quaternions, dim=-1)
