"""Triangle meshes: what they are, how they look, and how well one stands for another scene.

Shapes: V vertices, F triangles, T texels along a side of the square texture. Positions are in the frame of
`renderers.cameras`. Texture coordinates are glTF's: (0, 0) is the upper-left corner of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.zbuffer import Fragments, project, rasterize
from renderers.scene import RenderOutput, Scene

BATCH = 8
"""Pictures rendered at once when many are asked for."""


@dataclass(frozen=True)
class Surface:
    """The shape alone."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    """Corners, counter-clockwise seen from outside."""

    @property
    def closed(self) -> bool:
        """Whether every edge lies between exactly two triangles, which run through it in opposite directions."""
        edges = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        there, back = (np.sort(edges[:, a] * len(self.vertices) + edges[:, 1 - a]) for a in (0, 1))
        return bool((there == back).all() and (np.diff(there) != 0).all())

    @property
    def volume(self) -> float:
        """Enclosed volume, positive when the triangles face outward (divergence theorem)."""
        a, b, c = self.vertices[self.faces].astype(np.float64).transpose(1, 0, 2)
        return float((a * np.cross(b, c)).sum() / 6)

    @property
    def normals(self) -> Float[ndarray, "V 3"]:
        """Smooth unit normals: the triangles around a vertex, weighted by their angle there."""
        corners = self.vertices[self.faces].astype(np.float64)
        face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        face /= np.linalg.norm(face, axis=-1, keepdims=True).clip(1e-30)
        summed = np.zeros(self.vertices.shape)
        for k in range(3):
            here = corners[:, (k + 1) % 3] - corners[:, k]
            there = corners[:, (k + 2) % 3] - corners[:, k]
            angle = np.arctan2(np.linalg.norm(np.cross(here, there), axis=-1), (here * there).sum(-1))
            for axis in range(3):
                summed[:, axis] += np.bincount(self.faces[:, k], angle * face[:, axis], len(summed))
        length = np.linalg.norm(summed, axis=-1, keepdims=True)
        return np.where(length > 1e-12, summed / length.clip(1e-12), [0.0, 1.0, 0.0]).astype(np.float32)


@dataclass(frozen=True)
class MaterialMaps:
    """What a surface is made of beside its base colour, glTF's way; textures over the same coordinates."""

    roughness: UInt8[ndarray, "T T"]
    """0 (a mirror) to 255."""
    metallic: UInt8[ndarray, "T T"]
    """0 to 255 (all metal)."""
    normals: UInt8[ndarray, "T T 3"] | None = None
    """Normal map: x to the right in the texture, y up, z away from the surface, 0..255 for -1..1."""


@dataclass(frozen=True)
class Mesh:
    """A textured shape; vertices on a seam of the texture appear once for each side."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"]
    """Smooth unit normals; copies of one vertex share theirs."""
    uv: Float[ndarray, "V 2"]
    """0..1, (0, 0) at the upper-left corner of the texture."""
    texture: UInt8[ndarray, "T T 3"]
    """Base colour, sRGB."""
    maps: MaterialMaps | None = None
    """None: rough and no metal all over."""
    quads: int = 0
    """Quads: each is two of the first triangles, (a, b, c) and (a, c, d)."""

    @property
    def surface(self) -> Surface:
        return Surface(self.vertices, self.faces)

    def vertex_colors(self) -> UInt8[ndarray, "V 3"]:
        """The texture's colour at every vertex, sRGB."""
        return (sample(_planes(self.texture), self.uv) * 255).round().astype(np.uint8)


def _planes(texture: ndarray) -> Tensor:
    """[3 T T] 0..1."""
    return torch.from_numpy(np.ascontiguousarray(texture.transpose(2, 0, 1))).float() / 255


def sample(picture: Float[Tensor, "C H W"], uv: Float[ndarray, "N 2"]) -> Float[ndarray, "N C"]:
    """Bilinear values of a picture at places in 0..1, (0, 0) the upper-left corner; its border is repeated outside."""
    grid = torch.from_numpy(np.ascontiguousarray(uv, np.float32))[None, None] * 2 - 1
    values = functional.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)
    columns: ndarray = values[0, :, 0].T.contiguous().numpy()
    return columns


def rasterize_surface(surface: Surface, cameras: Cameras) -> Fragments:
    """What of a surface the cameras see."""
    return rasterize(project(surface.vertices, cameras), surface.faces, cameras.height, cameras.width)


def interpolate_at_pixels(
    fragments: Fragments, faces: Int[ndarray, "F 3"], values: Float[ndarray, "V C"]
) -> Float[ndarray, "N C"]:
    """Values given at vertices, at every pixel that sees a triangle (in the order of `fragments.seen`)."""
    corners = values[faces[fragments.face[fragments.seen]]]
    values_there: ndarray = (corners * fragments.bary[fragments.seen][..., None]).sum(1)
    return values_there


def supersampled(cameras: Cameras, times: int) -> Cameras:
    """The same cameras with `times` as many pixels along each side."""
    return Cameras(cameras.c2w, cameras.fov_y, cameras.height * times, cameras.width * times)


class StaticMeshScene(Scene):
    """A textured mesh as a thing to look at; unlit, nothing to train."""

    def __init__(self, mesh: Mesh, supersample: int = 2) -> None:
        """`supersample`: samples along each side of a pixel, against jagged outlines."""
        super().__init__()
        if supersample < 1:
            raise ValueError(f"supersample is {supersample}; it counts samples along a pixel's side, 1 or more")
        self.mesh = mesh
        self.supersample = supersample
        self.texture = _planes(mesh.texture)

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """Pictures over a solid background per camera; not differentiable."""
        sharp = supersampled(cameras, self.supersample)
        fragments = rasterize_surface(self.mesh.surface, sharp)
        seen = torch.from_numpy(fragments.seen)
        rgb = torch.zeros(*seen.shape, 3)
        rgb[seen] = torch.from_numpy(
            sample(self.texture, interpolate_at_pixels(fragments, self.mesh.faces, self.mesh.uv))
        )
        alpha = self._pooled(seen[..., None].float())
        depth = self._pooled(torch.from_numpy(fragments.depth)[..., None]) / alpha.clamp_min(1e-9)
        over = self._pooled(rgb) + (1 - alpha) * background.cpu()[:, None, None]
        device = cameras.c2w.device
        return RenderOutput(over.to(device), alpha.to(device), depth.to(device))

    def _pooled(self, samples: Float[Tensor, "B h w C"]) -> Float[Tensor, "B H W C"]:
        """The mean of every pixel's samples."""
        return functional.avg_pool2d(samples.permute(0, 3, 1, 2), self.supersample).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Agreement:
    """How alike two scenes look."""

    iou: float
    """Intersection over union of the silhouettes (alpha > 0.5), mean over the views, 0..1."""
    psnr: float
    """Peak signal-to-noise ratio of the colours inside the union of the silhouettes, all views, dB."""


def fibonacci_cameras(views: int, size: int) -> Cameras:
    """Cameras spread evenly around the origin, below the horizon too (a Fibonacci lattice on the sphere)."""
    index = torch.arange(views)
    height = 0.95 * (1 - (2 * index + 1) / views)
    azimuth = torch.remainder(index * math.pi * (3 - math.sqrt(5)), 2 * math.pi)
    return look_at_origin(azimuth, torch.asin(height), size)


def iou(a: Bool[Tensor, "B H W"], b: Bool[Tensor, "B H W"]) -> float:
    """Mean over pictures of intersection over union; two empty pictures agree entirely."""
    union = (a | b).flatten(1).sum(1)
    both = (a & b).flatten(1).sum(1)
    return float(torch.where(union > 0, both / union.clamp_min(1), 1.0).mean())


@torch.no_grad()
def agreement(scene: Scene, mesh: Mesh, views: int = 24, size: int = 128) -> Agreement:
    """How well `mesh` stands for `scene`, over a grey background, from all around."""
    cameras = fibonacci_cameras(views, size)
    shown = StaticMeshScene(mesh)
    ious, errors, count = 0.0, 0.0, 0
    for start in range(0, views, BATCH):
        batch = cameras[start : start + BATCH]
        grey = torch.full((len(batch), 3), 0.5)
        wanted, got = scene.render(batch, grey), shown.render(batch, grey)
        inside, covered = wanted.alpha[..., 0].cpu() > 0.5, got.alpha[..., 0] > 0.5
        ious += iou(inside, covered) * len(batch)
        union = inside | covered
        errors += float((wanted.rgb.cpu().clamp(0, 1) - got.rgb)[union].square().sum())
        count += 3 * int(union.sum())
    return Agreement(ious / views, -10 * math.log10(max(errors / max(count, 1), 1e-10)))
