"""The mesh scene: it takes on textures, shapes and materials from pictures, and is restored bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from renderers.cameras import look_at_origin, orbit_cameras
from renderers.meshes.config import MeshConfig
from renderers.meshes.mesh import MaterialMaps, StaticMeshScene, fibonacci_cameras, iou
from renderers.meshes.scene import MeshScene
from renderers.meshes.welded_mesh import cube_sphere
from renderers.optimizer_rows import load_optimizer_state, optimizer_state
from tests.support.renderers.mesh_scenes import GREY, LIT, SMALL, chance, seen, train, waves


def test_it_looks_like_the_mesh_it_was_made_from() -> None:
    mesh = replace(cube_sphere(0.6, 1200, 64), texture=waves())
    scene = MeshConfig(train_geometry=False, **SMALL).from_mesh(mesh, "cpu", chance())
    cameras = orbit_cameras(3, 0.3, 64)
    found, wanted = seen(scene, cameras), seen(StaticMeshScene(mesh, 4), cameras)
    inside = wanted.alpha[..., 0] > 0.99
    assert float((found.rgb - wanted.rgb)[inside].abs().mean()) < 0.02
    assert float((found.alpha - wanted.alpha).abs().max()) < 0.3
    assert float((found.alpha - wanted.alpha).abs().mean()) < 3e-3
    torch.testing.assert_close(found.depth[inside], wanted.depth[inside], rtol=0.02, atol=0)


def test_a_texture_takes_on_the_colours_of_pictures() -> None:
    mesh = replace(cube_sphere(0.6, 1200, 64), texture=waves())
    target = StaticMeshScene(mesh)
    scene = MeshConfig(train_geometry=False, repaint=True, **SMALL).from_mesh(mesh, "cpu", chance())
    assert float((scene.base_color.detach() - 0.5).abs().max()) == 0
    train(scene, lambda cameras: seen(target, cameras).rgb, 100)
    cameras = orbit_cameras(3, 0.3, 64)
    shown, wanted = seen(scene, cameras), seen(target, cameras)
    inside = wanted.alpha[..., 0] > 0.99
    error = (shown.rgb - wanted.rgb)[inside].square().mean()
    assert float(-10 * torch.log10(error)) > 27


def test_a_sphere_becomes_the_ellipsoid_whose_outlines_it_is_shown() -> None:
    plain = replace(cube_sphere(0.6, 1200, 16), texture=GREY)
    stretched = replace(plain, vertices=plain.vertices * np.array([1.2, 0.7, 1.0], np.float32))
    target = StaticMeshScene(stretched)
    scene = MeshConfig(texture_type="points").from_mesh(plain, "cpu", chance())
    cameras = fibonacci_cameras(6, 96)
    wanted = seen(target, cameras).alpha[..., 0] > 0.5
    before = iou(seen(scene, cameras).alpha[..., 0] > 0.5, wanted)
    train(scene, lambda cameras: seen(target, cameras).rgb, 150)
    after = iou(seen(scene, cameras).alpha[..., 0] > 0.5, wanted)
    assert before < 0.8 and after > 0.97
    found = scene.mesh().surface
    assert found.volume == pytest.approx(stretched.surface.volume, rel=0.06)


def test_roughness_is_read_off_the_highlights() -> None:
    """A metal ball of known roughness, seen under the light; ours starts rougher."""
    knobs = MeshConfig(
        train_geometry=False, light="studio", train_material=True, texture_type="points", faces=1200, material_lr=2e-2
    )
    target, scene = (knobs.build("cpu", chance()) for _ in range(2))
    with torch.no_grad():
        for one, roughness in ((target, 0.2), (scene, 0.8)):
            one.base_color.fill_(0.7)
            one.metallic_roughness.copy_(torch.tensor([roughness, 1.0]).expand_as(one.metallic_roughness))
    train(scene, lambda cameras: seen(target, cameras).rgb, 120)
    front = scene.points[:, 1] > 0
    assert float(scene.metallic_roughness.detach()[front, 0].mean()) < 0.4
    cameras = orbit_cameras(2, 0.3, 64)
    assert float((seen(scene, cameras).rgb - seen(target, cameras).rgb).abs().mean()) < 0.01


def test_bumps_change_how_light_falls_and_nothing_else() -> None:
    scene = MeshConfig(train_geometry=False, **LIT, **SMALL).build("cpu", chance())
    cameras = orbit_cameras(1, 0.2, 64)
    flat = seen(scene, cameras)
    with torch.no_grad():
        scene.normal_xy[..., 0] = 0.5
    bent = seen(scene, cameras)
    assert torch.equal(flat.alpha, bent.alpha) and torch.equal(flat.depth, bent.depth)
    assert float((flat.rgb - bent.rgb).abs().mean()) > 3e-3


def test_lit_from_both_sides_and_turned_by_chance() -> None:
    mesh = cube_sphere(0.6, 300, 16)
    inside_out = replace(mesh, faces=mesh.faces[:, ::-1].copy(), normals=-mesh.normals)
    knobs = MeshConfig(train_geometry=False, light="studio", **SMALL)
    cameras = orbit_cameras(1, 0.2, 32)
    there, back = (seen(knobs.from_mesh(m, "cpu", chance()), cameras).rgb for m in (mesh, inside_out))
    torch.testing.assert_close(there, back, atol=1e-5, rtol=0)
    turning = replace(knobs, light_rotation_deg=180.0).from_mesh(mesh, "cpu", chance())
    first, second = (turning.render(cameras, torch.zeros(1, 3)).rgb.detach() for _ in range(2))
    assert float((first - second).abs().max()) > 0.01
    before = turning.generator.get_state()
    torch.testing.assert_close(seen(turning, cameras).rgb, seen(turning, cameras).rgb, atol=0, rtol=0)
    assert torch.equal(turning.generator.get_state(), before), "who only looks draws no chance"


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"texture_type": "points"},
        {"train_geometry": False},
        LIT,
        LIT | {"train_geometry": False, "light_rotation_deg": 40.0},
    ],
)
def test_a_restored_scene_goes_on_bit_for_bit(knobs: dict[str, Any]) -> None:
    chosen = MeshConfig(**(SMALL | knobs))
    mesh = replace(cube_sphere(0.5, 300, 32), texture=waves(32))

    def step(scene: MeshScene, optimiser: torch.optim.Adam, rng: torch.Generator) -> None:
        cameras = scene.knobs.orbit.sample(2, 24, rng)
        frame = scene.render(cameras, torch.zeros(2, 3))
        optimiser.zero_grad(set_to_none=True)
        (frame.rgb.square().sum() + scene.regularization_loss(frame)).backward()
        optimiser.step()
        scene.post_step(0.5, frame, optimiser)

    one = chosen.from_mesh(mesh, "cpu", chance())
    optimiser, rng = torch.optim.Adam(one.param_groups(0.5)), chance(3)
    for _ in range(3):
        step(one, optimiser, rng)
    state, adam, place = one.training_state(), optimizer_state(optimiser), rng.get_state()
    for _ in range(3):
        step(one, optimiser, rng)
    other = chosen.build("cpu", chance(9))
    other.load_training_state(state)
    again, rng = torch.optim.Adam(other.param_groups(0.5)), chance(4)
    load_optimizer_state(again, adam)
    rng.set_state(place)
    for _ in range(3):
        step(other, again, rng)
    assert one.training_state().keys() == other.training_state().keys()
    for name, value in one.training_state().items():
        assert torch.equal(value, other.training_state()[name]), name


def test_states_that_do_not_fit_are_refused() -> None:
    scene = MeshConfig(**SMALL).build("cpu", chance())
    state = scene.training_state()
    with pytest.raises(ValueError, match="the saved mesh lacks vertex_offsets"):
        scene.load_training_state({name: value for name, value in state.items() if name != "vertex_offsets"})
    with pytest.raises(ValueError, match="the saved mesh lacks corners"):
        scene.load_training_state({name: value for name, value in state.items() if name != "body.corners"})
    with pytest.raises(ValueError, match="64 rows of colours; these knobs ask for 32"):
        MeshConfig(faces=1200, texture_size=32).build("cpu", chance()).load_training_state(state)


def test_the_mesh_that_comes_out_looks_the_same() -> None:
    mesh = replace(cube_sphere(0.6, 1200, 64), texture=waves())
    cameras = orbit_cameras(3, 0.3, 64)
    for knobs in (MeshConfig(**SMALL), MeshConfig(texture_type="points", faces=1200, texture_size=128)):
        scene = knobs.from_mesh(mesh, "cpu", chance())
        with torch.no_grad():
            scene.lattice_offsets[..., 1] += 0.1
        out = scene.mesh()
        found, wanted = seen(StaticMeshScene(out, 3), cameras), seen(scene, cameras)
        inside = found.alpha[..., 0] > 0.99
        assert float((found.rgb - wanted.rgb)[inside].abs().mean()) < 0.03
        assert float((found.alpha - wanted.alpha).abs().mean()) < 5e-3
        assert out.vertices[:, 1].mean() == pytest.approx(0.1, abs=1e-3)
        assert len(out.faces) == len(mesh.faces) and out.maps is None


def test_maps_come_out_and_go_in_again() -> None:
    knobs = MeshConfig(train_geometry=False, **LIT, **SMALL)
    scene = knobs.build("cpu", chance())
    with torch.no_grad():
        scene.metallic_roughness.copy_(torch.tensor([0.2, 0.8]).expand_as(scene.metallic_roughness))
        scene.normal_xy.copy_(torch.tensor([0.3, -0.4]).expand_as(scene.normal_xy))
    out = scene.mesh()
    assert out.maps is not None and out.maps.normals is not None
    assert np.unique(out.maps.roughness).tolist() == [51] and np.unique(out.maps.metallic).tolist() == [204]
    normal = out.maps.normals.reshape(-1, 3)[0] / 127.5 - 1
    assert normal == pytest.approx([0.3, -0.4, math.sqrt(0.75)], abs=0.01)
    again = knobs.from_mesh(out, "cpu", chance())
    torch.testing.assert_close(again.metallic_roughness, scene.metallic_roughness, atol=3e-3, rtol=0)
    torch.testing.assert_close(again.normal_xy, scene.normal_xy, atol=6e-3, rtol=0)
    lit_only = MeshConfig(train_geometry=False, light="studio", **SMALL).build("cpu", chance()).mesh()
    assert isinstance(lit_only.maps, MaterialMaps) and lit_only.maps.normals is None


def test_only_what_is_trained_has_a_group() -> None:
    def names(**knobs: Any) -> list[str]:
        return [group["name"] for group in MeshConfig(**(SMALL | knobs)).build("cpu", chance()).param_groups(0.0)]

    assert names() == ["base_color", "lattice_offsets", "vertex_offsets"]
    assert names(lattice_size=0) == ["base_color", "vertex_offsets"]
    assert names(train_geometry=False) == ["base_color"]
    assert names(**LIT) == ["base_color", "metallic_roughness", "normal_xy", "lattice_offsets", "vertex_offsets"]
    start, end = (MeshConfig(**SMALL).build("cpu", chance()).param_groups(p)[2]["lr"] for p in (0.0, 1.0))
    assert end == pytest.approx(0.1 * start)


def test_penalties_are_nothing_at_rest_and_grow_with_roughness() -> None:
    scene = MeshConfig(**SMALL).build("cpu", chance())

    def penalty() -> float:
        return float(scene.regularization_loss(seen(scene, orbit_cameras(1, 0.0, 16))))

    assert penalty() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        scene.vertex_offsets += 0.1
    assert penalty() == pytest.approx(0, abs=1e-6)  # a shape that moves as a whole is as smooth as before
    with torch.no_grad():
        scene.vertex_offsets += 0.01 * torch.randn(scene.vertex_offsets.shape, generator=chance())
    assert penalty() > 1e-2
    free = MeshConfig(lambda_laplacian=0.0, lambda_normal_consistency=0.0, **SMALL).build("cpu", chance())
    assert float(free.regularization_loss(seen(scene, orbit_cameras(1, 0.0, 16))).detach()) == 0


def test_trouble_is_named() -> None:
    scene = MeshConfig(**SMALL).build("cpu", chance())
    assert scene.failure_reason() is None
    frame = seen(scene, orbit_cameras(1, 0.0, 16))
    scene.post_step(0.0, replace(frame, info=replace(frame.info, pixels=0)), torch.optim.Adam(scene.param_groups(0.0)))
    assert scene.failure_reason() == "the mesh was in none of the last pictures"
    scene.drawn = 5
    with torch.no_grad():
        scene.vertex_offsets.fill_(0.25)
    assert "has come apart" in str(scene.failure_reason())
    with torch.no_grad():
        scene.base_color[0, 0, 0] = torch.nan
    assert scene.failure_reason() == "1 values of base_color are not finite"


def test_settling_keeps_everything_in_range() -> None:
    scene = MeshConfig(**LIT, **SMALL).build("cpu", chance())
    with torch.no_grad():
        for name in ("base_color", "metallic_roughness", "normal_xy", "lattice_offsets", "vertex_offsets"):
            getattr(scene, name).add_(5.0)
    scene.post_step(0.0, seen(scene, orbit_cameras(1, 0.0, 16)), torch.optim.Adam(scene.param_groups(0.0)))
    assert float(scene.base_color.detach().max()) == 1 and float(scene.metallic_roughness.detach().max()) == 1
    assert float(scene.normal_xy.detach().norm(dim=-1).max()) == pytest.approx(0.9)
    assert float(scene.vertex_offsets.detach().max()) == 0.25 and float(scene.lattice_offsets.detach().max()) == 0.25


def test_it_says_what_it_is() -> None:
    assert MeshConfig(**SMALL).build("cpu", chance()).describe() == "1200 faces with a texture of 64 x 64"
    assert (
        MeshConfig(texture_type="points", faces=300).build("cpu", chance()).describe()
        == "300 faces with colours at the points"
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"faces": 3}, "faces is 3; it lies between 12"),
        ({"texture_size": 8192}, "texture_size is 8192; it lies between 16 and 4096"),
        ({"init_radius": 2.0}, "init_radius is 2.0; it lies between 0 and 1"),
        ({"init_radius": 0.0}, "init_radius is 0.0; it is a positive number"),
        ({"light_rotation_deg": 200.0}, "light_rotation_deg is 200.0"),
        ({"vertex_lr": -1.0}, "vertex_lr is -1.0; it is a positive number"),
        ({"lambda_laplacian": math.nan}, "lambda_laplacian is nan; it is a number from 0 upwards"),
        ({"lattice_size": 1}, "lattice_size is 1; it is 0 or lies between 2 and 32"),
        ({"train_material": True}, "set light to studio"),
        ({"light": "studio", "train_normal_map": True, "texture_type": "points"}, "bumps need a texture"),
    ],
)
def test_knobs_out_of_range_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MeshConfig(**wrong)


def test_depth_has_a_gradient_where_the_shape_moves() -> None:
    scene = MeshConfig(**SMALL).build("cpu", chance())
    camera = look_at_origin(torch.zeros(1), torch.zeros(1), 32)
    frame = scene.render(camera, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(frame.depth[0, 16, 16, 0], scene.lattice_offsets)
    assert float(gradient[..., 2].sum()) == pytest.approx(-1, abs=5e-3)  # nearer by as much as it moves to the front
    picture = functional.interpolate(frame.rgb.permute(0, 3, 1, 2), (8, 8))
    assert picture.shape == (1, 3, 8, 8)
