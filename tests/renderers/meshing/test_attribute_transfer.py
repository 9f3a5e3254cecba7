"""What a fine mesh shows is shown by a coarse one: colours, material, and how light falls on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray

from renderers.meshes.mesh import MaterialMaps, Mesh, Surface, sample
from renderers.meshes.welded_mesh import WeldedMesh
from renderers.meshing.attribute_transfer import (
    SurfacePoints,
    bake_normal_map,
    closest_points,
    normal_deviation_deg,
    shown_normals,
    transfer_textures,
)
from renderers.meshing.isosurface import simplify
from renderers.meshing.tangents import tangents
from renderers.meshing.texture_refinement import refine_texture
from renderers.meshing.texturing import Texels, rasterize_to_texture, rasterize_uv, unwrap_uv
from tests.support.renderers.known_shapes import Painted, ball, rainbow

SIZE = 128


def laid_out(surface: Surface, size: int = SIZE) -> Mesh:
    """A surface with its own place in a grey texture for each triangle."""
    flat = unwrap_uv(surface)
    grey = np.full((size, size, 3), 128, np.uint8)
    return Mesh(surface.vertices[flat.source], flat.faces, surface.normals[flat.source], flat.uv, grey)


def painted_rainbow(mesh: Mesh) -> Mesh:
    """With a colour, a roughness and a metal for every place."""
    points = rasterize_uv(mesh.surface, mesh.normals, mesh.uv, SIZE)
    colours = rasterize_to_texture(points, rainbow(points.positions), SIZE)
    return replace(mesh, texture=colours, maps=MaterialMaps(colours[..., 0].copy(), colours[..., 1].copy()))


def scattered(mesh: Mesh, count: int = 4000, seed: int = 0) -> tuple[SurfacePoints, ndarray]:
    """Random places on a mesh, and where they lie."""
    chance = np.random.default_rng(seed)
    area = np.linalg.norm(
        np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2))), axis=-1
    )
    face = chance.choice(len(mesh.faces), count, p=area / area.sum())
    places = SurfacePoints(face, chance.dirichlet([1, 1, 1], count))
    return places, places.of(mesh.faces, mesh.vertices)


def degrees(a: ndarray, b: ndarray) -> ndarray:
    return np.degrees(np.arccos((a * b).sum(-1).clip(-1, 1)))


def by_the_book(mesh: Mesh, places: SurfacePoints) -> ndarray:
    """The normals that a glTF program shades with, after the formula of the specification, map and all."""
    assert mesh.maps is not None and mesh.maps.normals is not None
    given = tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces)
    up = np.cross(mesh.normals, given[:, :3]) * given[:, 3:]
    frame = [places.of(mesh.faces, part) for part in (given[:, :3], up, mesh.normals)]
    uv = places.of(mesh.faces, mesh.uv)
    texel = (uv * len(mesh.maps.normals)).astype(int).clip(0, len(mesh.maps.normals) - 1)
    local = mesh.maps.normals[texel[:, 1], texel[:, 0]] / 255 * 2 - 1
    bent = sum(local[:, k : k + 1] * frame[k] for k in range(3))
    return bent / np.linalg.norm(bent, axis=-1, keepdims=True)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_coarse_ball_is_lit_like_a_fine_one(mirrored: bool) -> None:
    mesh = laid_out(ball(0.7, 4))
    if mirrored:
        mesh = replace(mesh, uv=mesh.uv * np.float32([-1, 1]) + np.float32([1, 0]))
    mesh = bake_normal_map(mesh, ball(0.7, 24))
    places, positions = scattered(mesh)
    true = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    smooth = places.of(mesh.faces, mesh.normals)
    smooth /= np.linalg.norm(smooth, axis=-1, keepdims=True)
    assert degrees(smooth, true).mean() > 1.5
    found = by_the_book(mesh, places)
    assert degrees(found, true).mean() < 0.7
    lamp = np.array([0.6, 0.64, 0.48])
    shades = [(normals @ lamp).clip(0) for normals in (found, true, smooth)]
    assert np.abs(shades[0] - shades[1]).mean() < 0.35 * np.abs(shades[2] - shades[1]).mean()
    assert degrees(shown_normals(mesh, places), true).mean() < 0.7


def test_ridges_that_a_flat_wall_lacks_are_in_its_map() -> None:
    """A wall of two triangles stands for a corrugated one; which way its ridges run and lean must be right."""
    steps = np.linspace(-1, 1, 101)
    x, y = (part.ravel() for part in np.meshgrid(steps, steps))
    depth, slope = 0.02 * np.sin(9 * x + 4 * y), 0.02 * np.cos(9 * x + 4 * y)
    corner = (np.arange(100)[:, None] * 101 + np.arange(100)).ravel()
    faces = np.concatenate([corner[:, None] + [0, 1, 102], corner[:, None] + [0, 102, 101]]).astype(np.int32)
    fine = Surface(np.stack([x, y, depth], -1).astype(np.float32), faces)
    flat = np.float32([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    front = np.tile(np.float32([0, 0, 1]), (4, 1))
    uv = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])
    for turn in range(3):
        wall = Mesh(
            flat, np.int32([[0, 1, 2], [0, 2, 3]]), front, np.roll(uv, turn, 0), np.zeros((SIZE, SIZE, 3), np.uint8)
        )
        mesh = bake_normal_map(wall, fine)
        places, positions = scattered(mesh)
        lean = np.cos(9 * positions[:, 0] + 4 * positions[:, 1])[:, None] * [-0.18, -0.08, 0] + [0, 0, 1]
        true = lean / np.linalg.norm(lean, axis=-1, keepdims=True)
        assert degrees(by_the_book(mesh, places), true).mean() < 1 < 5 < degrees(np.float64([[0, 0, 1]]), true).mean()
    assert slope.max() == pytest.approx(0.02)


def test_frames_are_orthonormal_and_those_that_maps_are_trained_in() -> None:
    mesh = laid_out(ball(0.7, 24))
    found = tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces)
    assert np.linalg.norm(found[:, :3], axis=-1) == pytest.approx(np.ones(len(found)))
    assert (found[:, :3] * mesh.normals).sum(-1) == pytest.approx(np.zeros(len(found)), abs=1e-6)
    body = WeldedMesh.from_mesh(mesh)
    trained = body.tangents(body.points).numpy()
    assert (trained[:, 3] == found[:, 3]).all()
    assert np.median(degrees(trained[:, :3], found[:, :3])) < 2


def test_a_texture_without_area_still_gives_frames() -> None:
    mesh = laid_out(ball(0.7, 6))
    found = tangents(mesh.vertices, mesh.normals, np.zeros_like(mesh.uv), mesh.faces)
    assert np.linalg.norm(found[:, :3], axis=-1) == pytest.approx(np.ones(len(found)))


def test_everything_is_taken_over() -> None:
    fine = painted_rainbow(laid_out(ball(0.7, 24)))
    made = transfer_textures(fine, simplify(ball(0.7, 24), 600), 128)
    assert len(made.faces) <= 600 and made.texture.shape == (128, 128, 3)
    assert made.maps is not None and made.maps.normals is None
    places, positions = scattered(made)
    wanted = rainbow(positions / np.linalg.norm(positions, axis=-1, keepdims=True) * 0.7)
    uv = places.of(made.faces, made.uv)
    for texture, channels in (
        (made.texture, wanted),
        (made.maps.roughness[..., None], wanted[:, :1]),
        (made.maps.metallic[..., None], wanted[:, 1:2]),
    ):
        got = sample(torch.from_numpy(texture).permute(2, 0, 1) / 255.0, uv)
        assert np.abs(got - channels).mean() < 0.01 and np.quantile(np.abs(got - channels), 0.99) < 0.05


def test_a_normal_map_is_taken_over_and_made_anew() -> None:
    """Coarse, coarser: the map of the second shows what the first showed with its own."""
    first = bake_normal_map(laid_out(ball(0.7, 8)), ball(0.7, 24))
    second = transfer_textures(first, ball(0.7, 4), SIZE)
    places, positions = scattered(second)
    true = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    assert degrees(by_the_book(second, places), true).mean() < 0.8
    assert (
        normal_deviation_deg(second, ball(0.7, 24))
        > 1.5
        > 0.1
        > normal_deviation_deg(laid_out(ball(0.7, 24)), ball(0.7, 24))
    )


def test_thin_walls_do_not_bleed() -> None:
    """Two sheets a hair apart, one red and one blue: each texel takes the sheet that faces its way."""
    flat = np.float32([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = np.int32([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]])
    normals = np.repeat(np.float32([[0, 0, 1], [0, 0, -1]]), 4, 0)
    side = np.float32([[0.05, 0.9], [0.45, 0.9], [0.45, 0.1], [0.05, 0.1]])
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:, :32, 0], texture[:, 32:, 2] = 255, 255
    vertices = np.concatenate([flat, flat - np.float32([0, 0, 1e-3])])
    fine = Mesh(vertices, faces, normals, np.concatenate([side, side + np.float32([0.5, 0])]), texture)
    made = transfer_textures(fine, Surface(vertices - np.float32([0, 0, 5e-4]), faces), 64)
    places, _ = scattered(made)
    colours = sample(torch.from_numpy(made.texture).permute(2, 0, 1).float(), places.of(made.faces, made.uv))
    front = made.normals[made.faces[places.face, 0], 2] > 0
    assert (colours[front, 0] > 250).mean() > 0.9 < (colours[~front, 2] > 250).mean()


def test_nearest_places_are_the_nearest() -> None:
    """Against a search through every triangle, for one with large and with tiny triangles."""
    surface = simplify(ball(0.7, 24), 150)
    chance = np.random.default_rng(0)
    mesh = laid_out(surface, 32)
    points = rasterize_uv(mesh.surface, mesh.normals, mesh.uv, 32)
    kept = slice(None, None, max(1, len(points.rows) // 80))
    points = Texels(*(getattr(points, name)[kept] for name in Texels.__dataclass_fields__))
    off = replace(
        points, positions=(points.positions * chance.uniform(0.9, 1.1, (len(points.rows), 1))).astype(np.float32)
    )
    found = closest_points(surface, off)
    apart = np.linalg.norm(found.of(surface.faces, surface.vertices) - off.positions, axis=-1)
    grid = np.array([(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]) / 40
    every = np.einsum("gk,fkc->fgc", grid, surface.vertices[surface.faces]).reshape(-1, 3)
    best = np.array([np.linalg.norm(every - position, axis=-1).min() for position in off.positions])
    assert (apart <= best + 1e-6).mean() > 0.95 and (apart - best).max() < 0.02
    assert (found.bary >= -1e-9).all() and found.bary.sum(-1) == pytest.approx(np.ones(len(apart)))


def test_a_texture_comes_nearer_to_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renderers.meshing.texture_refinement.PIXELS", 64)
    scene, mesh = Painted(ball(0.7, 24)), laid_out(ball(0.7, 24), 64)
    made = refine_texture(mesh, scene, 12)
    places, positions = scattered(made)
    uv = places.of(made.faces, made.uv)
    before, after = (
        np.abs(sample(torch.from_numpy(one.texture).permute(2, 0, 1) / 255.0, uv) - rainbow(positions)).mean()
        for one in (mesh, made)
    )
    assert after < 0.8 * before
    assert (refine_texture(mesh, scene, 2).texture == refine_texture(mesh, scene, 2).texture).all()
    with pytest.raises(ValueError, match="1 to 2000 pictures; 0 were asked for"):
        refine_texture(mesh, scene, 0)
    with pytest.raises(ValueError, match="trained under light"):
        refine_texture(painted_rainbow(laid_out(ball(0.7, 6))), scene, 2)
