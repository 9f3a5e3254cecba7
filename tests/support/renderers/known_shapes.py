"""Shapes with known answers, and splats that cover them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from renderers.cameras import Cameras
from renderers.meshes.mesh import Mesh, Surface, interpolate_at_pixels, rasterize_surface
from renderers.scene import RenderOutput, Scene
from renderers.splats.config import SplatConfig
from renderers.splats.scene import SplatScene

Colouring = Callable[[ndarray], ndarray]
"""Positions [N 3] to colours [N 3], 0..1."""


def ball(radius: float = 0.7, rows: int = 48) -> Surface:
    """A closed sphere of `rows` rings, its triangles facing outward."""
    theta = np.linspace(0, math.pi, rows + 1)[1:-1]
    phi = np.arange(2 * rows) * (math.pi / rows)
    ring = np.stack([np.sin(phi), np.zeros_like(phi), np.cos(phi)], -1)
    rings = np.sin(theta)[:, None, None] * ring + np.cos(theta)[:, None, None] * np.array([0.0, 1.0, 0.0])
    vertices = np.concatenate([[[0, 1, 0]], rings.reshape(-1, 3), [[0, -1, 0]]])
    columns = np.arange(2 * rows)
    right = (columns + 1) % (2 * rows)
    last = len(vertices) - 1
    faces = [np.stack([np.zeros_like(columns), 1 + columns, 1 + right], -1)]
    for row in range(rows - 2):
        top, bottom = 1 + row * 2 * rows, 1 + (row + 1) * 2 * rows
        faces.append(np.stack([top + columns, bottom + columns, bottom + right], -1))
        faces.append(np.stack([top + columns, bottom + right, top + right], -1))
    bottom = 1 + (rows - 2) * 2 * rows
    faces.append(np.stack([bottom + columns, np.full_like(columns, last), bottom + right], -1))
    return Surface((radius * vertices).astype(np.float32), np.concatenate(faces).astype(np.int32))


def rainbow(positions: ndarray) -> ndarray:
    """A smooth colouring that is nowhere the same in two places a third of a unit apart."""
    return 0.5 + 0.4 * np.sin(2 * positions + np.array([0.0, 1.0, 2.0]))


class Painted(Scene):
    """A surface with the colours that a function gives its points."""

    def __init__(self, surface: Surface, colouring: Colouring = rainbow) -> None:
        super().__init__()
        self.surface, self.colouring = surface, colouring

    def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
        fragments = rasterize_surface(self.surface, cameras)
        seen = torch.from_numpy(fragments.seen)[..., None].float()
        rgb = torch.zeros(*seen.shape[:3], 3)
        points = interpolate_at_pixels(fragments, self.surface.faces, self.surface.vertices)
        rgb[seen[..., 0] > 0] = torch.from_numpy(self.colouring(points)).float()
        rgb = rgb + (1 - seen) * background[:, None, None]
        return RenderOutput(rgb, seen, torch.from_numpy(fragments.depth)[..., None])


def unwrapped(surface: Surface, texture: ndarray) -> Mesh:
    """A mesh whose texture coordinates are just x and y, for tests that need no more."""
    uv = (0.5 + 0.5 * surface.vertices[:, :2] * [1, -1]).astype(np.float32)
    return Mesh(surface.vertices, surface.faces, surface.normals, uv, texture)


def covered(parts: list[tuple[ndarray, tuple[float, float, float], float]], seed: int = 0) -> SplatScene:
    """A scene of round splats: positions, colour and standard deviation of each part; opacities 0.4 to 0.95."""
    chance = np.random.default_rng(seed)
    means = np.concatenate([positions for positions, _, _ in parts])
    scales = np.concatenate([np.full(len(positions), scale) for positions, _, scale in parts])
    colours = np.concatenate([np.tile(colour, (len(positions), 1)) for positions, colour, _ in parts])
    opacities = chance.uniform(0.4, 0.95, len(means))
    scene = SplatConfig(init_count=len(means), cap_max=len(means)).build("cpu", torch.Generator().manual_seed(seed))
    values = {
        "means": means,
        "log_scales": np.log(scales)[:, None].repeat(3, 1),
        "quats": np.tile([1.0, 0, 0, 0], (len(means), 1)),
        "logit_opacities": np.log(opacities / (1 - opacities)),
        "sh": ((colours - 0.5) / 0.28209479)[:, None],
    }
    for name, value in values.items():
        setattr(scene, name, nn.Parameter(torch.tensor(value, dtype=torch.float32)))
    return scene


def shell(radius: float, centre: tuple[float, float, float], count: int, seed: int = 0) -> ndarray:
    """[N 3] points on a sphere."""
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=-1, keepdims=True) + centre


def block(sizes: tuple[float, float, float], centre: tuple[float, float, float], count: int, seed: int = 0) -> ndarray:
    """[N 3] points in a box."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3)) * sizes + centre


def snowman() -> SplatScene:
    """Three hollow balls, a nose and two eyes."""
    white, black = (0.9, 0.92, 0.95), (0.05, 0.05, 0.05)
    return covered(
        [
            (shell(0.4, (0, -0.4, 0), 700), white, 0.05),
            (shell(0.28, (0, 0.12, 0), 450, 1), white, 0.045),
            (shell(0.19, (0, 0.5, 0), 300, 2), white, 0.035),
            (block((0.05, 0.05, 0.3), (0, 0.48, 0.3), 60, 3), (0.95, 0.5, 0.1), 0.022),
            (shell(0.02, (-0.08, 0.57, 0.18), 25, 4), black, 0.015),
            (shell(0.02, (0.08, 0.57, 0.18), 25, 5), black, 0.015),
        ]
    )


def chair() -> SplatScene:
    """A seat, a back and four thin legs."""
    wood = (0.5, 0.3, 0.12)
    legs = [(block((0.04, 0.6, 0.04), (x, -0.5, z), 150), wood, 0.022) for x in (-0.33, 0.33) for z in (-0.33, 0.33)]
    seat = (block((0.74, 0.05, 0.74), (0, -0.17, 0), 900, 1), (0.75, 0.2, 0.2), 0.03)
    back = (block((0.74, 0.7, 0.03), (0, 0.25, -0.35), 800, 2), (0.2, 0.35, 0.7), 0.03)
    return covered([seat, back, *legs])
