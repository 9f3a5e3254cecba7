"""Splats for tests, and what is drawn of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras, look_at_origin
from renderers.scene import RenderOutput
from renderers.splats.gaussians import Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize

NAMES = [field.name for field in fields(Gaussians)]


def cloud(count: int, scale: float = 0.06, opacity: tuple[float, float] = (0.05, 0.95), seed: int = 0) -> Gaussians:
    """Random float64 splats in the unit ball."""
    chance = torch.Generator().manual_seed(seed)
    direction = functional.normalize(torch.randn(count, 3, generator=chance), dim=-1)
    low, high = opacity
    splats = Gaussians(
        direction * torch.rand(count, 1, generator=chance) ** (1 / 3),
        torch.randn(count, 4, generator=chance),
        scale * torch.exp(0.5 * torch.randn(count, 3, generator=chance)),
        low + (high - low) * torch.rand(count, generator=chance),
        torch.rand(count, 3, generator=chance),
    )
    return cast(splats, torch.float64)


def cast(splats: Gaussians, kind: torch.dtype) -> Gaussians:
    return Gaussians(*(getattr(splats, name).detach().to(kind, copy=True) for name in NAMES))


def cameras(views: int = 2, size: int = 48) -> Cameras:
    return look_at_origin(torch.arange(views) * 1.7, torch.linspace(-0.6, 0.8, views), size)


@dataclass
class Drawn:
    frame: RenderOutput
    gradients: dict[str, Tensor]


def drawn(splats: Gaussians, kind: torch.dtype, looks: Cameras, wish: RasterizationOptions | None = None) -> Drawn:
    """A picture and all gradients of a fixed random function of its colour, alpha, depth and normal."""
    leaves = cast(splats, kind)
    for name in NAMES:
        getattr(leaves, name).requires_grad_()
    background = torch.full((len(looks), 3), 0.3, dtype=kind, requires_grad=True)
    frame = rasterize(leaves, looks, background, wish or RasterizationOptions())
    chance = torch.Generator().manual_seed(5)
    parts = [(frame.rgb, 1.0), (frame.alpha, 1.0), (frame.depth, 0.1)]
    parts += [] if frame.normal is None else [(frame.normal, 1.0)]
    distortion = frame.info.distortion
    parts += [] if distortion is None else [(distortion, 1.0)]
    weights = [weight * torch.randn(part.shape, generator=chance).to(kind) for part, weight in parts]
    torch.stack([(part * weight).sum() for (part, _), weight in zip(parts, weights, strict=True)]).sum().backward()
    gradients = {name: getattr(leaves, name).grad for name in NAMES}
    gradients |= {"means2d": frame.info.means2d_grad, "background": background.grad}
    if frame.info.means2d_absgrad is not None:
        gradients["means2d, absolute"] = frame.info.means2d_absgrad
    normal = None if frame.normal is None else frame.normal.detach()
    layers = (frame.rgb.detach(), frame.alpha.detach(), frame.depth.detach())
    return Drawn(RenderOutput(*layers, frame.info, normal), gradients)


def one_splat() -> Gaussians:
    return cloud(1, 0.1)


def many_on_one_pixel() -> Gaussians:
    splats = cloud(300, 0.01, (0.02, 0.6))
    return replace(splats, means=0.02 * splats.means)


def needles() -> Gaussians:
    splats = cloud(100)
    return replace(splats, scales=splats.scales * torch.tensor([8.0, 1.0, 0.05], dtype=torch.float64))


def around_the_camera() -> Gaussians:
    """Some behind the camera, some beside it, some near enough for the clamps of the projection to matter."""
    splats = cloud(200, 0.1)
    return replace(splats, means=4 * splats.means)


def per_camera_colours() -> Gaussians:
    splats = cloud(120)
    return replace(splats, colors=torch.stack([splats.colors, 1 - splats.colors]))


SCENES = {
    "random": lambda: cloud(300, seed=1),
    "opaque": lambda: cloud(300, 0.08, (0.9, 1.0)),
    "huge": lambda: cloud(60, 2.0),
    "tiny": lambda: cloud(600, 1e-4),
    "one": one_splat,
    "many on one pixel": many_on_one_pixel,
    "needles": needles,
    "around the camera": around_the_camera,
    "colours per camera": per_camera_colours,
}
