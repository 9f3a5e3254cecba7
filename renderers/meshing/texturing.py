"""A picture for a surface: unfolding it into a square, and painting the square from pictures of a scene.

Shapes: V vertices before and U after the seams were cut, F triangles, T texels along a side, N texels in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.mesh import Mesh, Surface, interpolate_at_pixels, rasterize_surface, sample
from renderers.meshes.zbuffer import project, rasterize
from renderers.scene import Scene

GRAZING = 0.2
"""Cosine between a surface's normal and the way to the camera below which a picture says nothing about it."""
SHARPNESS = 2.0
"""Power of that cosine in a picture's weight: the camera that looks straightest has most of the say.

Of 1, 2 and 4 on four assets, 4 was 0.2 to 0.4 dB further from the splats than 2, and 1 not better on all.
"""
FAINT = 0.1
"""Alpha below which a pixel says nothing about the surface."""
DEPTH_TOLERANCE = 0.01
"""Depth that a texel may lie behind the surface in a picture and still count as seen."""
SILHOUETTE_MARGIN_PX = 3
"""Pixels around the outline of what is in front that say little about what is behind; splats have soft edges."""
SILHOUETTE_WEIGHT = 1e-3
"""Weight of what they say: it counts where no other picture shows the place."""
GUTTER = 4
"""Texels between the pieces of an unfolded surface."""


@dataclass(frozen=True)
class UVMapping:
    """A surface cut open and laid flat."""

    source: Int[ndarray, " U"]
    """The vertex that each one is a copy of."""
    faces: Int[ndarray, "F 3"]
    uv: Float[ndarray, "U 2"]
    """0..1, (0, 0) at the upper-left corner of the texture."""


@dataclass(frozen=True)
class Texels:
    """The points of a surface that are painted."""

    rows: Int[ndarray, " N"]
    columns: Int[ndarray, " N"]
    face: Int[ndarray, " N"]
    """The triangle that each lies in."""
    bary: Float[ndarray, "N 3"]
    """Weights of its three corners."""
    positions: Float[ndarray, "N 3"]
    normals: Float[ndarray, "N 3"]
    """Of unit length."""


def unwrap_uv(surface: Surface) -> UVMapping:
    """Texture coordinates by xatlas, each piece of the surface with its own place in the square."""
    import xatlas

    pack = xatlas.PackOptions()
    pack.padding = GUTTER
    pack.bilinear = True
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32))
    atlas.generate(xatlas.ChartOptions(), pack)
    source, faces, uv = atlas[0]
    return UVMapping(source.astype(np.int64), faces.astype(np.int32), uv.astype(np.float32))


def texels(surface: Surface, normals: Float[ndarray, "V 3"], flat: UVMapping, size: int) -> Texels:
    """Where on the surface the centre of every texel in use lies."""
    return rasterize_uv(Surface(surface.vertices[flat.source], flat.faces), normals[flat.source], flat.uv, size)


def rasterize_uv(surface: Surface, normals: Float[ndarray, "U 3"], uv: Float[ndarray, "U 2"], size: int) -> Texels:
    """The same for a surface that is cut open already."""
    screen = np.concatenate([uv * size, np.ones((len(uv), 1))], -1).astype(np.float32)
    fragments = rasterize(screen[None], surface.faces, size, size)
    _, rows, columns = np.nonzero(fragments.seen)
    face, bary = fragments.face[fragments.seen], fragments.bary[fragments.seen]
    positions = interpolate_at_pixels(fragments, surface.faces, surface.vertices)
    across = interpolate_at_pixels(fragments, surface.faces, normals)
    across /= np.linalg.norm(across, axis=-1, keepdims=True).clip(1e-9)
    return Texels(rows, columns, face, bary, positions.astype(np.float32), across.astype(np.float32))


def texture_cameras(size: int) -> Cameras:
    """The cameras whose pictures paint: a ring above the horizon, one below it, the top and the bottom."""
    ring = torch.arange(12) * (2 * math.pi / 12)
    azimuth = torch.cat([ring, ring + math.pi / 12, torch.zeros(2)])
    elevation = torch.cat([torch.full((12,), 0.45), torch.full((12,), -0.35), torch.tensor([1.5, -1.5])])
    return look_at_origin(azimuth, elevation, size)


def bake_texture(surface: Surface, scene: Scene, size: int, render_size: int) -> Mesh:
    """The surface with a texture of `size` texels a side, blended from pictures of `render_size` pixels a side.

    Raises ValueError where the pictures show nothing of the surface.
    """
    normals = surface.normals
    flat = unwrap_uv(surface)
    points = texels(surface, normals, flat, size)
    summed = np.zeros((len(points.rows), 4), np.float32)
    for rows, colours, weights in _looks(surface, scene, points, texture_cameras(render_size)):
        summed[rows, :3] += colours * weights[:, None]
        summed[rows, 3] += weights
    texture = rasterize_to_texture(points, _filled(points, summed), size)
    return Mesh(surface.vertices[flat.source], flat.faces, normals[flat.source], flat.uv, texture)


def _looks(
    surface: Surface, scene: Scene, points: Texels, cameras: Cameras
) -> Iterator[tuple[ndarray, ndarray, ndarray]]:
    """Camera by camera: the texels it sees [n], their colours [n 3] and the weights of these [n]."""
    for index in range(len(cameras)):
        camera = cameras[index : index + 1]
        toward = camera.positions[0].numpy() - points.positions
        cosine = (toward * points.normals).sum(-1) / np.linalg.norm(toward, axis=-1)
        rows = np.flatnonzero(cosine > GRAZING)
        cosine = cosine[rows]
        screen = project(points.positions[rows], camera)[0]
        place = screen[:, :2] / [camera.width, camera.height]
        with torch.no_grad():
            frame = scene.render(camera, torch.zeros(1, 3))
        picture = torch.cat([frame.rgb, frame.alpha], -1)[0].permute(2, 0, 1).float().cpu()
        footprint = screen[:, 2] * 2 * math.tan(0.5 * float(camera.fov_y[0])) / camera.height
        rise = footprint * np.sqrt((1 - cosine**2).clip(0)) / cosine  # of the surface, toward the camera, in a pixel
        drawn = torch.from_numpy(rasterize_surface(surface, camera).depth)
        clear, near = (_in_front(drawn, place, screen[:, 2], rise, window) for window in (SILHOUETTE_MARGIN_PX, 1))
        premultiplied = sample(picture, place)
        alpha = premultiplied[:, 3]
        seen = near & (alpha > FAINT)
        weights = cosine**SHARPNESS * alpha * np.where(clear, 1.0, SILHOUETTE_WEIGHT)
        yield rows[seen], premultiplied[seen, :3] / alpha[seen, None], weights[seen].astype(np.float32)


def _in_front(
    drawn: Float[Tensor, "1 H W"],
    place: Float[ndarray, "n 2"],
    depth: Float[ndarray, " n"],
    rise: Float[ndarray, " n"],
    window: int,
) -> Bool[ndarray, " n"]:
    """Whether nothing within `window` pixels of a place (0..1 in the picture) is nearer than the surface there can be.

    `drawn` is the picture's depth, 0 where it is empty; `depth` is that of the place, `rise` how much nearer the
    surface comes in one pixel.
    """
    drawn = torch.where(drawn > 0, drawn, torch.full_like(drawn, 1e3))
    nearest = -functional.max_pool2d(-drawn, 2 * window + 1, stride=1, padding=window)
    # At the corner of the window, half a pixel on.
    reach = math.sqrt(2) * (window + 0.5)
    free: ndarray = depth < sample(nearest, place)[:, 0] + DEPTH_TOLERANCE + reach * rise
    return free


def _filled(points: Texels, summed: Float[ndarray, "N 4"]) -> Float[ndarray, "N 3"]:
    """Colours 0..1; texels that no picture shows take the colour of the nearest one in space that is shown."""
    from scipy.spatial import cKDTree

    seen = summed[:, 3] > 0
    if not seen.any():
        raise ValueError("the scene's pictures show nothing of the surface; are they of the same thing?")
    colours: ndarray = np.clip(summed[:, :3] / summed[:, 3:].clip(1e-30), 0, 1)
    if not seen.all():
        known = np.flatnonzero(seen)
        known = known[:: max(1, len(known) // 20_000)]
        # Places deep inside are about as far from thousands of others: the exactly nearest would take a minute.
        _, nearest = cKDTree(points.positions[known]).query(points.positions[~seen], eps=0.5)
        colours[~seen] = colours[known[nearest]]
    return colours


def rasterize_to_texture(points: Texels, values: Float[ndarray, "N C"], size: int) -> UInt8[ndarray, "T T C"]:
    """Values 0..1 as a texture; the texels outside of every piece take that of the nearest one inside."""
    from scipy.ndimage import distance_transform_edt

    texture = np.zeros((size, size, values.shape[-1]), np.uint8)
    used = np.zeros((size, size), bool)
    used[points.rows, points.columns] = True
    texture[points.rows, points.columns] = (values.clip(0, 1) * 255).round().astype(np.uint8)
    _, (rows, columns) = distance_transform_edt(~used, return_indices=True)
    filled: ndarray = texture[rows, columns]
    return filled
