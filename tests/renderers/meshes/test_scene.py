"""The mesh scene: it takes on textures, shapes and materials from pictures, and is restored bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from renderers.cameras import looking_at_origin, ring
from renderers.meshes.config import Solid
from renderers.meshes.mesh import Maps, MeshScene, around, iou
from renderers.meshes.scene import SolidScene
from renderers.meshes.welded_mesh import ball
from renderers.optimizer_rows import adam_state, restore_adam
from tests.support.renderers.mesh_scenes import GREY, LIT, SMALL, chance, seen, train, waves


def test_it_looks_like_the_mesh_it_was_made_from() -> None:
    mesh = replace(ball(0.6, 1200, 64), texture=waves())
    scene = Solid(move=False, **SMALL).of(mesh, "cpu", chance())
    cameras = ring(3, 0.3, 64)
    found, wanted = seen(scene, cameras), seen(MeshScene(mesh, 4), cameras)
    inside = wanted.alpha[..., 0] > 0.99
    assert float((found.rgb - wanted.rgb)[inside].abs().mean()) < 0.02
    assert float((found.alpha - wanted.alpha).abs().max()) < 0.3
    assert float((found.alpha - wanted.alpha).abs().mean()) < 3e-3
    torch.testing.assert_close(found.depth[inside], wanted.depth[inside], rtol=0.02, atol=0)


def test_a_texture_takes_on_the_colours_of_pictures() -> None:
    mesh = replace(ball(0.6, 1200, 64), texture=waves())
    target = MeshScene(mesh)
    scene = Solid(move=False, repaint=True, **SMALL).of(mesh, "cpu", chance())
    assert float((scene.colours.detach() - 0.5).abs().max()) == 0
    train(scene, lambda cameras: seen(target, cameras).rgb, 100)
    cameras = ring(3, 0.3, 64)
    shown, wanted = seen(scene, cameras), seen(target, cameras)
    inside = wanted.alpha[..., 0] > 0.99
    error = (shown.rgb - wanted.rgb)[inside].square().mean()
    assert float(-10 * torch.log10(error)) > 27


def test_a_sphere_becomes_the_ellipsoid_whose_outlines_it_is_shown() -> None:
    plain = replace(ball(0.6, 1200, 16), texture=GREY)
    stretched = replace(plain, vertices=plain.vertices * np.array([1.2, 0.7, 1.0], np.float32))
    target = MeshScene(stretched)
    scene = Solid(paint="points").of(plain, "cpu", chance())
    cameras = around(6, 96)
    wanted = seen(target, cameras).alpha[..., 0] > 0.5
    before = iou(seen(scene, cameras).alpha[..., 0] > 0.5, wanted)
    train(scene, lambda cameras: seen(target, cameras).rgb, 150)
    after = iou(seen(scene, cameras).alpha[..., 0] > 0.5, wanted)
    assert before < 0.8 and after > 0.97
    found = scene.mesh().surface
    assert found.volume == pytest.approx(stretched.surface.volume, rel=0.06)


def test_roughness_is_read_off_the_highlights() -> None:
    """A metal ball of known roughness, seen under the light; ours starts rougher."""
    knobs = Solid(move=False, light="studio", material=True, paint="points", faces=1200, material_rate=2e-2)
    target, scene = (knobs.build("cpu", chance()) for _ in range(2))
    with torch.no_grad():
        for one, roughness in ((target, 0.2), (scene, 0.8)):
            one.colours.fill_(0.7)
            one.grain.copy_(torch.tensor([roughness, 1.0]).expand_as(one.grain))
    train(scene, lambda cameras: seen(target, cameras).rgb, 120)
    front = scene.points[:, 1] > 0
    assert float(scene.grain.detach()[front, 0].mean()) < 0.4
    cameras = ring(2, 0.3, 64)
    assert float((seen(scene, cameras).rgb - seen(target, cameras).rgb).abs().mean()) < 0.01


def test_bumps_change_how_light_falls_and_nothing_else() -> None:
    scene = Solid(move=False, **LIT, **SMALL).build("cpu", chance())
    cameras = ring(1, 0.2, 64)
    flat = seen(scene, cameras)
    with torch.no_grad():
        scene.slopes[..., 0] = 0.5
    bent = seen(scene, cameras)
    assert torch.equal(flat.alpha, bent.alpha) and torch.equal(flat.depth, bent.depth)
    assert float((flat.rgb - bent.rgb).abs().mean()) > 3e-3


def test_lit_from_both_sides_and_turned_by_chance() -> None:
    mesh = ball(0.6, 300, 16)
    inside_out = replace(mesh, faces=mesh.faces[:, ::-1].copy(), normals=-mesh.normals)
    knobs = Solid(move=False, light="studio", **SMALL)
    cameras = ring(1, 0.2, 32)
    there, back = (seen(knobs.of(m, "cpu", chance()), cameras).rgb for m in (mesh, inside_out))
    torch.testing.assert_close(there, back, atol=1e-5, rtol=0)
    turning = replace(knobs, turning=180.0).of(mesh, "cpu", chance())
    first, second = (turning.render(cameras, torch.zeros(1, 3)).rgb.detach() for _ in range(2))
    assert float((first - second).abs().max()) > 0.01
    before = turning.generator.get_state()
    torch.testing.assert_close(seen(turning, cameras).rgb, seen(turning, cameras).rgb, atol=0, rtol=0)
    assert torch.equal(turning.generator.get_state(), before), "who only looks draws no chance"


@pytest.mark.parametrize(
    "knobs", [{}, {"paint": "points"}, {"move": False}, LIT, LIT | {"move": False, "turning": 40.0}]
)
def test_a_restored_scene_goes_on_bit_for_bit(knobs: dict[str, Any]) -> None:
    chosen = Solid(**(SMALL | knobs))
    mesh = replace(ball(0.5, 300, 32), texture=waves(32))

    def step(scene: SolidScene, optimiser: torch.optim.Adam, rng: torch.Generator) -> None:
        cameras = scene.knobs.orbit.draw(2, 24, rng)
        frame = scene.render(cameras, torch.zeros(2, 3))
        optimiser.zero_grad(set_to_none=True)
        (frame.rgb.square().sum() + scene.penalty(frame)).backward()
        optimiser.step()
        scene.settle(0.5, frame, optimiser)

    one = chosen.of(mesh, "cpu", chance())
    optimiser, rng = torch.optim.Adam(one.groups(0.5)), chance(3)
    for _ in range(3):
        step(one, optimiser, rng)
    state, adam, place = one.state(), adam_state(optimiser), rng.get_state()
    for _ in range(3):
        step(one, optimiser, rng)
    other = chosen.build("cpu", chance(9))
    other.restore(state)
    again, rng = torch.optim.Adam(other.groups(0.5)), chance(4)
    restore_adam(again, adam)
    rng.set_state(place)
    for _ in range(3):
        step(other, again, rng)
    assert one.state().keys() == other.state().keys()
    for name, value in one.state().items():
        assert torch.equal(value, other.state()[name]), name


def test_states_that_do_not_fit_are_refused() -> None:
    scene = Solid(**SMALL).build("cpu", chance())
    state = scene.state()
    with pytest.raises(ValueError, match="the saved mesh lacks offsets"):
        scene.restore({name: value for name, value in state.items() if name != "offsets"})
    with pytest.raises(ValueError, match="the saved mesh lacks corners"):
        scene.restore({name: value for name, value in state.items() if name != "body.corners"})
    with pytest.raises(ValueError, match="64 rows of colours; these knobs ask for 32"):
        Solid(faces=1200, texture=32).build("cpu", chance()).restore(state)


def test_the_mesh_that_comes_out_looks_the_same() -> None:
    mesh = replace(ball(0.6, 1200, 64), texture=waves())
    cameras = ring(3, 0.3, 64)
    for knobs in (Solid(**SMALL), Solid(paint="points", faces=1200, texture=128)):
        scene = knobs.of(mesh, "cpu", chance())
        with torch.no_grad():
            scene.bends[..., 1] += 0.1
        out = scene.mesh()
        found, wanted = seen(MeshScene(out, 3), cameras), seen(scene, cameras)
        inside = found.alpha[..., 0] > 0.99
        assert float((found.rgb - wanted.rgb)[inside].abs().mean()) < 0.03
        assert float((found.alpha - wanted.alpha).abs().mean()) < 5e-3
        assert out.vertices[:, 1].mean() == pytest.approx(0.1, abs=1e-3)
        assert len(out.faces) == len(mesh.faces) and out.maps is None


def test_maps_come_out_and_go_in_again() -> None:
    knobs = Solid(move=False, **LIT, **SMALL)
    scene = knobs.build("cpu", chance())
    with torch.no_grad():
        scene.grain.copy_(torch.tensor([0.2, 0.8]).expand_as(scene.grain))
        scene.slopes.copy_(torch.tensor([0.3, -0.4]).expand_as(scene.slopes))
    out = scene.mesh()
    assert out.maps is not None and out.maps.normals is not None
    assert np.unique(out.maps.roughness).tolist() == [51] and np.unique(out.maps.metallic).tolist() == [204]
    normal = out.maps.normals.reshape(-1, 3)[0] / 127.5 - 1
    assert normal == pytest.approx([0.3, -0.4, math.sqrt(0.75)], abs=0.01)
    again = knobs.of(out, "cpu", chance())
    torch.testing.assert_close(again.grain, scene.grain, atol=3e-3, rtol=0)
    torch.testing.assert_close(again.slopes, scene.slopes, atol=6e-3, rtol=0)
    lit_only = Solid(move=False, light="studio", **SMALL).build("cpu", chance()).mesh()
    assert isinstance(lit_only.maps, Maps) and lit_only.maps.normals is None


def test_only_what_is_trained_has_a_group() -> None:
    def names(**knobs: Any) -> list[str]:
        return [group["name"] for group in Solid(**(SMALL | knobs)).build("cpu", chance()).groups(0.0)]

    assert names() == ["colours", "bends", "offsets"]
    assert names(lattice=0) == ["colours", "offsets"]
    assert names(move=False) == ["colours"]
    assert names(**LIT) == ["colours", "grain", "slopes", "bends", "offsets"]
    start, end = (Solid(**SMALL).build("cpu", chance()).groups(p)[2]["lr"] for p in (0.0, 1.0))
    assert end == pytest.approx(0.1 * start)


def test_penalties_are_nothing_at_rest_and_grow_with_roughness() -> None:
    scene = Solid(**SMALL).build("cpu", chance())

    def penalty() -> float:
        return float(scene.penalty(seen(scene, ring(1, 0.0, 16))))

    assert penalty() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        scene.offsets += 0.1
    assert penalty() == pytest.approx(0, abs=1e-6)  # a shape that moves as a whole is as smooth as before
    with torch.no_grad():
        scene.offsets += 0.01 * torch.randn(scene.offsets.shape, generator=chance())
    assert penalty() > 1e-2
    free = Solid(laplacian=0.0, creases=0.0, **SMALL).build("cpu", chance())
    assert float(free.penalty(seen(scene, ring(1, 0.0, 16))).detach()) == 0


def test_trouble_is_named() -> None:
    scene = Solid(**SMALL).build("cpu", chance())
    assert scene.healthy() is None
    frame = seen(scene, ring(1, 0.0, 16))
    scene.settle(
        0.0, replace(frame, statistics=replace(frame.statistics, pixels=0)), torch.optim.Adam(scene.groups(0.0))
    )
    assert scene.healthy() == "the mesh was in none of the last pictures"
    scene.drawn = 5
    with torch.no_grad():
        scene.offsets.fill_(0.25)
    assert "has come apart" in str(scene.healthy())
    with torch.no_grad():
        scene.colours[0, 0, 0] = torch.nan
    assert scene.healthy() == "1 values of colours are not finite"


def test_settling_keeps_everything_in_range() -> None:
    scene = Solid(**LIT, **SMALL).build("cpu", chance())
    with torch.no_grad():
        for name in ("colours", "grain", "slopes", "bends", "offsets"):
            getattr(scene, name).add_(5.0)
    scene.settle(0.0, seen(scene, ring(1, 0.0, 16)), torch.optim.Adam(scene.groups(0.0)))
    assert float(scene.colours.detach().max()) == 1 and float(scene.grain.detach().max()) == 1
    assert float(scene.slopes.detach().norm(dim=-1).max()) == pytest.approx(0.9)
    assert float(scene.offsets.detach().max()) == 0.25 and float(scene.bends.detach().max()) == 0.25


def test_it_says_what_it_is() -> None:
    assert Solid(**SMALL).build("cpu", chance()).told() == "1200 faces with a texture of 64 x 64"
    assert Solid(paint="points", faces=300).build("cpu", chance()).told() == "300 faces with colours at the points"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"faces": 3}, "faces is 3; it lies between 12"),
        ({"texture": 8192}, "texture is 8192; it lies between 16 and 4096"),
        ({"radius": 2.0}, "radius is 2.0; it lies between 0 and 1"),
        ({"radius": 0.0}, "radius is 0.0; it is a positive number"),
        ({"turning": 200.0}, "turning is 200.0"),
        ({"offset_rate": -1.0}, "offset_rate is -1.0; it is a positive number"),
        ({"laplacian": math.nan}, "laplacian is nan; it is a number from 0 upwards"),
        ({"lattice": 1}, "lattice is 1; it is 0 or lies between 2 and 32"),
        ({"material": True}, "set light to studio"),
        ({"light": "studio", "bumps": True, "paint": "points"}, "bumps need a texture"),
    ],
)
def test_knobs_out_of_range_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Solid(**wrong)


def test_depth_has_a_gradient_where_the_shape_moves() -> None:
    scene = Solid(**SMALL).build("cpu", chance())
    camera = looking_at_origin(torch.zeros(1), torch.zeros(1), 32)
    frame = scene.render(camera, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(frame.depth[0, 16, 16, 0], scene.bends)
    assert float(gradient[..., 2].sum()) == pytest.approx(-1, abs=5e-3)  # nearer by as much as it moves to the front
    picture = functional.interpolate(frame.rgb.permute(0, 3, 1, 2), (8, 8))
    assert picture.shape == (1, 3, 8, 8)
