"""Light on surfaces: no energy is lost or made, closed forms, gradients, and the two number formats of colours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from renderers.meshes import shading
from renderers.meshes.shading import (
    EnvironmentLight,
    Material,
    apply_normal_map,
    linear_to_srgb,
    prefilter_environment,
    rotate_y,
    shade,
    sphere,
    srgb_to_linear,
    studio_environment,
)

COUNT = 400


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def directions(count: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(count, 3, generator=chance(seed), dtype=torch.float64), dim=-1)


def looks(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Normals, and ways to an eye that is on their side."""
    normals, toward = directions(count, 0), directions(count, 1)
    return normals, torch.where((normals * toward).sum(-1, keepdim=True) < 0, -toward, toward)


def even(level: float = 1.0) -> EnvironmentLight:
    return prefilter_environment(torch.full((16, 32, 3), level, dtype=torch.float64))


def material(albedo: float, roughness: float, metallic: float, count: int = COUNT) -> Material:
    column = torch.ones(count, 1, dtype=torch.float64)
    return Material(albedo * column.expand(-1, 3), roughness * column, metallic * column)


@pytest.mark.parametrize("roughness", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("metallic", [0.0, 0.4, 1.0])
def test_a_white_surface_under_even_light_looks_like_the_light(roughness: float, metallic: float) -> None:
    sent = shade(material(1.0, roughness, metallic), *looks(), even(0.7))
    torch.testing.assert_close(sent, torch.full_like(sent, 0.7), rtol=1e-5, atol=0)


@pytest.mark.parametrize("albedo", [0.0, 0.2, 0.8])
def test_no_surface_sends_on_more_than_it_gets(albedo: float) -> None:
    for roughness in (0.0, 0.2, 0.6, 1.0):
        for metallic in (0.0, 0.5, 1.0):
            sent = shade(material(albedo, roughness, metallic), *looks(), even())
            assert float(sent.min()) > 0 and float(sent.max()) < 1


def test_what_a_rough_mirror_sends_on_at_once_is_the_integral_of_the_book() -> None:
    """Roughness 1, seen head-on: D = 1 / pi and V = 1 / (2 (l + 1)), so the share is the integral of l / (1 + l)."""
    table = shading._table()[0].sum(0)
    assert float(table[-1, -1]) == pytest.approx(1 - math.log(2), abs=2e-3)
    assert float(table[0, -1]) == pytest.approx(1, abs=1e-3)  # a perfect mirror loses nothing
    assert bool((table > 0).all()) and bool((table <= 1 + 1e-12).all())


def test_a_diffuse_surface_follows_the_cosine() -> None:
    """One small lamp: radiance * solid angle * cosine / pi, as well as nine harmonics have it (Ramamoorthi: 1 %)."""
    like = torch.zeros(1, dtype=torch.float64)
    ways, solid = sphere(16, 32, like)
    lamp = 100
    environment = torch.zeros(512, 3, dtype=torch.float64)
    environment[lamp] = 50.0
    light = prefilter_environment(environment.view(16, 32, 3))
    received = shading.eval_sh_bases(ways[None], 9)[0] @ light.diffuse
    strongest = 50 * float(solid[lamp]) / math.pi
    wanted = strongest * (ways @ ways[lamp]).clamp_min(0)
    assert float((received[:, 0] - wanted).abs().max()) < 0.13 * strongest
    # The same light in all directions together: half the sphere's mean cosine.
    total = float((received[:, 0] * solid).sum())
    assert total == pytest.approx(strongest * math.pi, rel=0.02)


def test_a_mirror_shows_what_lies_in_the_mirrored_direction() -> None:
    environment = torch.rand(16, 32, 3, generator=chance(0), dtype=torch.float64)
    ways, _ = sphere(16, 32, environment)
    normal = functional.normalize(torch.tensor([[0.2, 0.9, 0.3]], dtype=torch.float64), dim=-1)
    ahead = (ways * normal).sum(-1) > 0.3
    toward = ways[ahead]
    mirrored = 2 * (toward * normal).sum(-1, keepdim=True) * normal - toward
    smooth = torch.full((len(toward), 1), 0.0, dtype=torch.float64)
    found = shading._mirrored(prefilter_environment(environment), mirrored, smooth)
    texel = (mirrored @ ways.T).argmax(-1)
    shown = shading._mirrored(prefilter_environment(environment), ways, torch.zeros(512, 1, dtype=torch.float64))
    torch.testing.assert_close(shown, environment.view(-1, 3), rtol=1e-6, atol=1e-6)
    assert float((found - environment.view(-1, 3)[texel]).abs().mean()) < 0.25


def test_rougher_mirrors_blur_more_and_keep_the_mean() -> None:
    light = prefilter_environment(torch.rand(16, 32, 3, generator=chance(0), dtype=torch.float64))
    spread = light.specular.flatten(1, 2).std(1).mean(-1)
    assert bool((spread.diff() < 0).all())
    means = light.specular.flatten(1, 2).mean(1)
    assert float((means - means[0]).abs().max()) < 0.05


def test_gradients_are_those_of_finite_differences() -> None:
    environment = (0.2 + torch.rand(4, 8, 3, generator=chance(0), dtype=torch.float64)).requires_grad_()
    normals, toward = looks(6)
    rng = chance(1)

    def share(width: int) -> Tensor:
        return (0.3 + 0.4 * torch.rand(6, width, generator=rng, dtype=torch.float64)).requires_grad_()

    inputs = (share(3), share(1), share(1), normals.requires_grad_(), environment)

    def sent(albedo: Tensor, roughness: Tensor, metallic: Tensor, normals: Tensor, environment: Tensor) -> Tensor:
        return shade(
            Material(albedo, roughness, metallic),
            functional.normalize(normals, dim=-1),
            toward,
            prefilter_environment(environment),
        )

    assert torch.autograd.gradcheck(sent, inputs, eps=1e-7, atol=1e-5, rtol=1e-3)


def test_gradients_stay_finite_where_formulas_are_not_smooth() -> None:
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double().requires_grad_()
    for roughness in (0.0, 1.0):
        for albedo in (0.0, 1.0):
            paint = torch.full((6, 3), albedo, dtype=torch.float64, requires_grad=True)
            grain = torch.full((6, 1), roughness, dtype=torch.float64, requires_grad=True)
            sent = linear_to_srgb(shade(Material(srgb_to_linear(paint), grain, grain), axes, axes, even()))
            gradients = torch.autograd.grad(sent.sum(), [axes, paint, grain])
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_srgb_there_and_back() -> None:
    values = torch.linspace(0, 1, 257, dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, rtol=0, atol=1e-7)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.2140, abs=1e-4)
    slope = torch.autograd.grad(linear_to_srgb(values.requires_grad_()).sum(), values)[0]
    assert bool(slope.isfinite().all()) and float(slope[0]) == pytest.approx(12.92)


def test_flat_bumps_bend_nothing_and_others_bend_along_the_texture() -> None:
    normals = torch.tensor([[0.0, 0.0, 1.0]])
    tangents = torch.tensor([[1.0, 0.0, 0.3, 1.0]])
    torch.testing.assert_close(apply_normal_map(normals, tangents, torch.zeros(1, 2)), normals)
    right = apply_normal_map(normals, tangents, torch.tensor([[0.6, 0.0]]))
    torch.testing.assert_close(right, torch.tensor([[0.6, 0.0, 0.8]]))
    up = apply_normal_map(normals, tangents, torch.tensor([[0.0, 0.6]]))
    torch.testing.assert_close(up, torch.tensor([[0.0, 0.6, 0.8]]))
    mirrored = apply_normal_map(normals, tangents * torch.tensor([1, 1, 1, -1]), torch.tensor([[0.0, 0.6]]))
    torch.testing.assert_close(mirrored, torch.tensor([[0.0, -0.6, 0.8]]))


def test_turning_takes_the_front_to_an_azimuth() -> None:
    front = torch.tensor([[0.0, 0.0, 1.0], [0.3, 0.5, -0.2]])
    torch.testing.assert_close(rotate_y(front, math.pi / 2)[0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(rotate_y(rotate_y(front, 0.7), -0.7), front)


def test_the_studio_lights_a_white_ball_to_four_fifths_from_above() -> None:
    environment = studio_environment()
    assert bool((environment > 0).all())
    ways, solid = sphere(16, 32, environment)
    received = shading.eval_sh_bases(ways[None], 9)[0] @ prefilter_environment(environment).diffuse
    assert float((received.mean(-1) * solid).sum() / solid.sum()) == pytest.approx(0.8, rel=0.01)
    top, bottom = (received[ways[:, 1] * sign > 0.9].mean() for sign in (1, -1))
    assert float(top) > 1.5 * float(bottom)


def test_environments_of_unfit_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 x 32 texels; expected 4 x 8 to 64 x 128"):
        prefilter_environment(torch.ones(2, 32, 3))
